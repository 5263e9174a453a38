/* The threads of a library (pool.c) and where they run (affinity.c). Times are in nanoseconds. */

#ifndef LPGEN_POOL_H
#define LPGEN_POOL_H

#include <pthread.h>

#include "internal.h"

/* A call that may use the pool. */
struct pool_call {
  int tasks;     /* in how many its work is to be split; 1: the caller is alone */
  int64_t start; /* 0: nobody wants to know when it ends */
};

/* Into how many tasks a call on `threads` threads should be split whose work takes `work` on one.
 * Where they are several the pool belongs to the caller until it leaves. */
struct pool_call pool_enter(int threads, int64_t work);
void pool_leave(struct pool_call call);

/* body(task, context) for every task, by whoever is free. 0, or -1 where one of them was not 0. */
typedef int (*pool_body)(int task, void *context);
int pool_run(int tasks, pool_body body, void *context);

/* Settings of the environment, read when the library is loaded. */
struct pool_settings {
  int64_t spin; /* LPGEN_SPIN_US: the longest that workers look for the next job */
  int64_t task; /* LPGEN_TASK_US: the least work of a task; 0: always so many as threads */
  int wrong;    /* whether one of them or LPGEN_AFFINITY cannot be read */
};
extern struct pool_settings pool_settings;

/* How many workers there may be: one on each CPU that is listed, else one less than CPUs. */
int affinity_workers(void);

/* Where the `number`th worker runs. */
void affinity_apply(int number, pthread_t thread);

/* Move a worker away from `cpu`, where the caller is, if it may run elsewhere. */
void affinity_avoid(pthread_t thread, int cpu);

/* List CPUs for the workers, none for the default. 0, or -1 if one of them may not be used. */
int affinity_list(const int *cpus, int count);

/* In a forked child. */
void affinity_after_fork(void);

#endif
