/* What TVM's generated code asks of its runtime: scratch memory and threads.
 *
 * The generated code calls through weak function pointers that libtvm fills in where it is loaded.
 * The strong definitions at the end of this file take their place, so that a library needs no
 * libtvm and heeds the caller: memory comes from the caller's workspace, and as many threads run
 * as the caller says. */

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "internal.h"

typedef struct {
  void *sync_handle;
  int32_t num_task;
} group_env;
typedef int (*parallel_body)(int task, group_env *env, void *closure);

/* ---- the workspace: a stack of buffers, as generated code frees them in reverse order ---- */

struct call {
  char *next, *end;
  int threads;
};

/* Which call a thread is in: a table in place of a thread-local variable. The C library has static
 * room for those of some two hundred libraries in a process, and makes others when a thread first
 * uses them, in memory that a call must not allocate. A thread looks in the slots of one set only,
 * and at most for entries that it made itself. */
enum { SETS = 256, SLOTS = 16 };

static struct slot {
  atomic_uintptr_t thread; /* 0: free */
  struct call *call;
} slots[SETS][SLOTS];

static struct slot *set_of(uintptr_t thread) {
  return slots[(uint64_t)thread * UINT64_C(0x9e3779b97f4a7c15) >> 56]; /* Fibonacci hashing */
}

static struct slot *slot_of(uintptr_t thread) {
  struct slot *set = set_of(thread);
  for (int i = 0; i < SLOTS; i++)
    if (atomic_load_explicit(&set[i].thread, memory_order_relaxed) == thread) return &set[i];
  return NULL;
}

/* The call that this thread is in, or NULL. */
static struct call *current(void) {
  struct slot *slot = slot_of((uintptr_t)pthread_self());
  return slot ? slot->call : NULL;
}

/* This thread is in `call` from here on, until it leaves for the outer one, which is returned.
 * Where all slots of its set are taken it waits until one of those calls ends. */
static struct call *enter(struct call *call) {
  static struct call entering; /* outer to the call of a signal handler that interrupts this */
  uintptr_t thread = (uintptr_t)pthread_self();
  struct slot *slot = slot_of(thread), *set = set_of(thread);
  struct call *outer = !slot ? NULL : slot->call ? slot->call : &entering;
  for (int i = 0; !slot; i = (i + 1) % SLOTS) {
    uintptr_t nobody = 0;
    if (atomic_load_explicit(&set[i].thread, memory_order_relaxed) == 0 &&
        atomic_compare_exchange_strong(&set[i].thread, &nobody, thread))
      slot = &set[i];
    else if (i + 1 == SLOTS)
      sched_yield();
  }
  slot->call = call;
  return outer;
}

static void leave(struct call *outer) {
  struct slot *slot = slot_of((uintptr_t)pthread_self());
  slot->call = outer;
  if (!outer) atomic_store_explicit(&slot->thread, 0, memory_order_release);
}

static size_t rounded(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void *alloc_workspace(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  struct call *call = current();
  size_t size = rounded(bytes);
  if (!call || (size_t)(call->end - call->next) < size) return NULL;
  void *memory = call->next;
  call->next += size;
  return memory;
}

static int free_workspace(int device_type, int device_id, void *memory) {
  (void)device_type, (void)device_id;
  current()->next = memory;
  return 0;
}

int32_t call_kernel(const struct kernel *kernel, const void *x, const void *packed,
                    const void *residual, void *y, void *workspace, size_t bytes, int threads) {
  if (bytes == 0 && threads == 1) return kernel->run(x, packed, residual, y, 1); /* asks for nothing */
  struct call call = {workspace, (char *)workspace + bytes, threads};
  struct call *outer = enter(&call);
  int32_t failed = kernel->run(x, packed, residual, y, threads);
  leave(outer);
  return failed;
}

int32_t call_packer(const struct kernel *kernel, const void *const *inputs, void *packed,
                    void *workspace, size_t bytes) {
  struct call call = {workspace, (char *)workspace + bytes, 1};
  struct call *outer = enter(&call);
  int32_t failed = kernel->pack(inputs, packed);
  leave(outer);
  return failed;
}

/* ---- the threads: whoever is free takes the next task, the caller included ---- */

struct job {
  parallel_body body;
  void *closure;
  char *slices; /* task t has the workspace slices + t * slice .. + (t + 1) * slice */
  size_t slice;
  int tasks;
  atomic_int next, failed;
};

static struct {
  pthread_mutex_t lock; /* guards all but `posted` */
  pthread_cond_t wake, done;
  struct job *job;    /* open for more workers, or NULL */
  atomic_int running; /* workers inside of the job */
  int workers, stop;
  pthread_t threads[MAX_THREADS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static pthread_mutex_t pool_taken = PTHREAD_MUTEX_INITIALIZER; /* by the one caller it serves */
static atomic_uint posted;                                     /* how many jobs there were */

static void work(struct job *job) {
  struct call call, *outer = enter(&call);
  group_env env = {NULL, job->tasks};
  int task;
  while ((task = atomic_fetch_add(&job->next, 1)) < job->tasks) {
    char *memory = job->slices + (size_t)task * job->slice;
    call = (struct call){memory, memory + job->slice, 1};
    if (job->body(task, &env, job->closure) != 0) atomic_store(&job->failed, 1);
  }
  leave(outer);
}

static inline void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Waking up takes tens of microseconds. Parallel loops come in quick succession, so a worker looks
 * for the next one for about 3 microseconds before it sleeps; the caller, whose own tasks are done,
 * waits about 20 for the last ones. */
enum { WORKER_SPINS = 64, CALLER_SPINS = 512 };

static void *worker(void *unused) {
  (void)unused;
  pthread_mutex_lock(&pool.lock);
  while (!pool.stop) {
    struct job *job = pool.job;
    if (job && atomic_load(&job->next) < job->tasks) {
      atomic_fetch_add(&pool.running, 1);
      pthread_mutex_unlock(&pool.lock);
      work(job);
      pthread_mutex_lock(&pool.lock);
      if (atomic_fetch_sub(&pool.running, 1) == 1) pthread_cond_signal(&pool.done);
      unsigned seen = atomic_load(&posted);
      pthread_mutex_unlock(&pool.lock);
      for (int i = 0; i < WORKER_SPINS && atomic_load(&posted) == seen; i++) pause_briefly();
      pthread_mutex_lock(&pool.lock);
      continue;
    }
    pthread_cond_wait(&pool.wake, &pool.lock);
  }
  pthread_mutex_unlock(&pool.lock);
  return NULL;
}

/* After a fork only the forking thread is left: the child starts without workers. */
static void before_fork(void) { pthread_mutex_lock(&pool.lock); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&pool.lock); }
static void after_fork_in_child(void) {
  pthread_mutex_init(&pool.lock, NULL);
  pthread_mutex_init(&pool_taken, NULL);
  pthread_cond_init(&pool.wake, NULL);
  pthread_cond_init(&pool.done, NULL);
  pool.job = NULL;
  pool.workers = 0;
  atomic_store(&pool.running, 0);
}

static void register_fork_handlers(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* With the lock held. Fewer workers than wanted are no error: the caller does their tasks. */
static void add_workers(int wanted) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, register_fork_handlers);
  sigset_t all, before; /* signals are the host program's business, not our threads' */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool.workers < wanted && pool.workers < MAX_THREADS)
    if (pthread_create(&pool.threads[pool.workers], NULL, worker, NULL) == 0)
      pool.workers++;
    else
      break;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The program ends, or unloads the library: no thread may be left in code that goes away. */
__attribute__((destructor)) static void stop_workers(void) {
  pthread_mutex_lock(&pool.lock);
  pool.stop = 1;
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);
  for (int i = 0; i < pool.workers; i++) pthread_join(pool.threads[i], NULL);
  pool.workers = 0;
}

static void run_on_pool(struct job *job) {
  pthread_mutex_lock(&pool.lock);
  if (pool.workers < job->tasks - 1) add_workers(job->tasks - 1);
  pool.job = job;
  atomic_fetch_add(&posted, 1);
  if (pool.workers > job->tasks - 1)
    for (int i = 1; i < job->tasks; i++) pthread_cond_signal(&pool.wake);
  else
    pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);
  work(job);
  pthread_mutex_lock(&pool.lock);
  pool.job = NULL; /* a worker that wakes up late finds nothing to do */
  pthread_mutex_unlock(&pool.lock);
  for (int i = 0; i < CALLER_SPINS && atomic_load(&pool.running) > 0; i++) pause_briefly();
  pthread_mutex_lock(&pool.lock);
  while (atomic_load(&pool.running) > 0) pthread_cond_wait(&pool.done, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
}

/* `tasks` 0 means as many as there are threads. */
static int parallel_launch(parallel_body body, void *closure, int tasks) {
  struct call *call = current();
  int threads = call ? call->threads : 1;
  if (tasks < 1 || tasks > threads) tasks = threads;
  /* Another caller has the pool: this one works alone, as one task. */
  if (tasks == 1 || pthread_mutex_trylock(&pool_taken) != 0) {
    group_env env = {NULL, 1};
    return body(0, &env, closure);
  }
  size_t slice = (size_t)(call->end - call->next) / (size_t)tasks / ALIGNMENT * ALIGNMENT;
  struct job job = {body, closure, call->next, slice, tasks, 0, 0};
  run_on_pool(&job);
  pthread_mutex_unlock(&pool_taken);
  return atomic_load(&job.failed) ? -1 : 0;
}

/* ---- the names under which generated code looks for them ---- */

extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
extern int (*__TVMBackendFreeWorkspace)(int, int, void *);
extern int (*__TVMBackendParallelLaunch)(parallel_body, void *, int);

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;
int (*__TVMBackendParallelLaunch)(parallel_body, void *, int) = parallel_launch;
