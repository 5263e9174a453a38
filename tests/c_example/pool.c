/* The pool of a library by itself: every task is done once, whoever calls, forks or moves threads. */

#define _GNU_SOURCE
#include "pool.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                            \
  do                                                                \
    if (!(condition)) {                                             \
      fprintf(stderr, "line %d: %s is false\n", __LINE__, #condition); \
      exit(1);                                                      \
    }                                                               \
  while (0)

enum { LARGE = 1000 * 1000 * 1000, FAILING = 77 }; /* a second of work; this task fails */

static int count_task(int task, void *context) {
  ((int *)context)[task]++; /* not atomic: two threads in one task are a race */
  for (volatile int i = 0; i < 50 * task; i++) continue;
  return task == FAILING;
}

static void call(int threads) {
  int counts[MAX_THREADS] = {0};
  struct pool_call call = pool_enter(threads, LARGE);
  CHECK(call.tasks == 1 || call.tasks == threads); /* 1: another caller has the pool */
  for (int loop = 1; loop <= 3 && call.tasks > 1; loop++) {
    CHECK(pool_run(call.tasks, count_task, counts) == (call.tasks > FAILING ? -1 : 0));
    for (int i = 0; i < call.tasks; i++) CHECK(counts[i] == loop);
  }
  pool_leave(call);
}

static void *many_calls(void *seed) {
  unsigned state = (unsigned)(size_t)seed;
  for (int i = 0; i < 200; i++) {
    call(1 + rand_r(&state) % (i % 20 ? 6 : 100));
    if (i % 40 == 0) usleep((useconds_t)(rand_r(&state) % 500)); /* some workers fall asleep */
  }
  return NULL;
}

static void several_callers(void) {
  int first, missing = CPU_SETSIZE - 1;
  cpu_set_t cpus;
  pthread_t callers[3];
  CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
  for (first = 0; !CPU_ISSET(first, &cpus); first++) continue;
  for (size_t i = 0; i < 3; i++)
    CHECK(pthread_create(&callers[i], NULL, many_calls, (void *)(i + 1)) == 0);
  if (!CPU_ISSET(missing, &cpus)) CHECK(lpgen_set_affinity(&missing, 1) == LPGEN_AFFINITY);
  for (int i = 0; i < 20; i++) CHECK(lpgen_set_affinity(&first, i % 2) == LPGEN_OK);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(callers[i], NULL) == 0);
}

static void a_forked_child_goes_on(void) {
  call(4);
  pid_t child = fork();
  int status;
  if (child == 0) {
    many_calls(NULL);
    exit(0); /* its own workers end */
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  call(4);
}

/* ---- nobody waits for who has not begun ---- */

static atomic_int done;

static int wait_for_the_rest(int task, void *others) {
  if (task == 1)
    while (atomic_load(&done) < *(int *)others) sched_yield();
  else
    atomic_fetch_add(&done, 1);
  return 0;
}

/* Whoever is stuck in task 1, the other one does the rest. */
static void the_rest_is_taken_over(void) {
  struct pool_call call = pool_enter(2, LARGE);
  CHECK(call.tasks == 2);
  for (int others = 1; others < 100; others += 7) {
    atomic_store(&done, 0);
    CHECK(pool_run(others + 1, wait_for_the_rest, &others) == 0);
  }
  pool_leave(call);
}

/* ---- a bound caller ---- */

static void *sleep_on(void *unused) {
  pause();
  return unused;
}

static pthread_t main_thread;
static cpu_set_t one;

static int count_cpus(int task, void *counts) {
  cpu_set_t cpus;
  int is_main = pthread_equal(pthread_self(), main_thread);
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return -1;
  ((int *)counts)[task] = CPU_EQUAL(&cpus, &one) ? 0 : CPU_COUNT(&cpus);
  return is_main != (task == 0); /* who was late had another one do its task */
}

/* Workers may run on every CPU of the process but the caller's, though that one is bound to it. */
static void workers_are_not_bound(void) {
  cpu_set_t all;
  pthread_t another;
  int cpu = 0, counts[2];
  main_thread = pthread_self();
  CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
  if (CPU_COUNT(&all) == 1) return;
  CHECK(pthread_create(&another, NULL, sleep_on, NULL) == 0);
  while (!CPU_ISSET(cpu, &all)) cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  struct pool_call call = pool_enter(2, LARGE);
  for (int i = 0; i < 1000; i++) {
    if (pool_run(2, count_cpus, counts) != 0) continue;
    CHECK(counts[0] == 0);
    CHECK(counts[1] >= CPU_COUNT(&all) - 1);
  }
  pool_leave(call);
}

/* ---- small kernels ---- */

static void small_kernels_stay_alone(void) {
  pool_settings.task = 3000;
  for (int i = 0; i < 100; i++) {
    struct pool_call call = pool_enter(64, 5999);
    CHECK(call.tasks == 1);
    pool_leave(call);
    call = pool_enter(64, LARGE); /* never more tasks than CPUs */
    CHECK(call.tasks <= sysconf(_SC_NPROCESSORS_CONF));
    pool_leave(call);
  }
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "settings")) {
    printf("%d us, %d us, %s\n", (int)(pool_settings.spin / 1000), (int)(pool_settings.task / 1000),
           pool_settings.wrong ? "wrong" : "right");
    return 0;
  }
  pool_settings.task = 0;
  if (argc > 2) pool_settings.spin = atoi(argv[2]) * 1000;
  if (!strcmp(what, "callers")) several_callers();
  if (!strcmp(what, "fork")) a_forked_child_goes_on();
  if (!strcmp(what, "late")) the_rest_is_taken_over();
  if (!strcmp(what, "bound")) workers_are_not_bound();
  if (!strcmp(what, "small")) small_kernels_stay_alone();
  puts("ok");
  return 0;
}
