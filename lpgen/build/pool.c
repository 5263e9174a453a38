/* The threads of a library: workers that look for the next job while calls come in quick
 * succession, and sleep otherwise.
 *
 * A job is a number of tasks. Task 0 is the caller's and task i the ith worker's, so that each core
 * meets the same part of a kernel's data again; whoever is done takes what nobody has begun, and
 * the caller waits for nobody but those at work. The pool keeps a balance of the time that it wins
 * and loses. Where other programs have the cores it loses, and calls run alone for a while. */

#define _GNU_SOURCE
#include "pool.h"

#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define US INT64_C(1000)
#define GREEDY (10 * US)         /* a thread looks so long without letting others run */
#define LEAST_SPIN (20 * US)     /* between two loops, or calls of a caller that does little else */
#define CALLER_SPIN (50 * US)    /* for the last tasks of others; then the caller sleeps */
#define WORTH_WAKING (30 * US)   /* less work is done before a sleeping thread is awake */
#define MOST_CREDIT (10000 * US) /* what losing a core now and then may cost */
#define MOST_DEBT (400 * US)     /* more than waking a thread takes, tens of us in a virtual machine */
#define ALONE 64 /* times the debt is how long calls run alone */

#define CACHE_LINE _Alignas(64)
#define TASK_BITS 16

/* Cores pass a cache line to each other in a few hundred nanoseconds: what is written for every
 * call, and by whom, decides what shares one. */

struct worker {
  CACHE_LINE pthread_t thread;
  sem_t wake;
  atomic_int asleep;
  atomic_int cpu; /* where it ran last, -1: nobody knows */
  int number;     /* from 1 */
  uint64_t seen;  /* the job that was posted before it */
};

struct task {
  CACHE_LINE atomic_ullong begun, done; /* the number of the last job for which it was */
};

static struct {
  CACHE_LINE atomic_ullong posted; /* a job's number << TASK_BITS | its tasks, 0 to end workers */
  pool_body body;                  /* written before a job is posted, read by who began a task */
  void *context;
  /* Seldom written. */
  CACHE_LINE atomic_llong spin; /* how long workers look for the next job */
  atomic_int workers, caller_cpu, caller_asleep, failed;
  sem_t done;
  /* The callers'. */
  CACHE_LINE atomic_int taken; /* by the one that the pool serves */
  atomic_llong left_at;        /* when a call ended */
  atomic_llong alone;          /* how long calls are still to run alone */
  int64_t balance;             /* won - lost */
  int most_workers;            /* 0: to be asked for */
} pool;

static struct task tasks[MAX_THREADS];
static struct worker workers[MAX_THREADS]; /* the first one is nobody: the caller */

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000 * US + time.tv_nsec;
}

/* ---- waiting ---- */

/* Between two looks at what a thread waits for: whether it should look once more. */
static int look_again(int64_t start, int64_t span) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
  int64_t spent = now() - start;
  if (spent > GREEDY) sched_yield();
  return spent < span;
}

/* `flag` says that a thread sleeps or is about to; only who clears it posts `wake`. */
static void sleep_unless(int ready, atomic_int *flag, sem_t *wake) {
  if (ready && atomic_exchange(flag, 0)) return;
  while (sem_wait(wake) != 0) continue; /* a signal */
}

static void rouse(atomic_int *flag, sem_t *wake) {
  if (atomic_load(flag) && atomic_exchange(flag, 0)) sem_post(wake);
}

/* The job after `seen`. */
static uint64_t next_job(struct worker *self, uint64_t seen, int64_t span) {
  for (;;) {
    int64_t start = now();
    do {
      uint64_t job = atomic_load(&pool.posted);
      if (job != seen) return job;
    } while (look_again(start, span));
    atomic_store(&self->asleep, 1);
    sleep_unless(atomic_load(&pool.posted) != seen, &self->asleep, &self->wake);
  }
}

/* Until `task` of the job `number` is done. */
static void wait_for(struct task *task, uint64_t number) {
  if (atomic_load(&task->done) == number) return;
  int64_t start = now();
  while (atomic_load(&task->done) != number) {
    if (look_again(start, CALLER_SPIN)) continue;
    atomic_store(&pool.caller_asleep, 1);
    sleep_unless(atomic_load(&task->done) == number, &pool.caller_asleep, &pool.done);
  }
}

/* ---- working ---- */

static int count_of(uint64_t job) { return (int)(job & ((1 << TASK_BITS) - 1)); }

/* Does the tasks that nobody has begun, `first` before others; how many they were. To a thread that
 * comes late, for a job that is over, all are begun: for that job or a later one. */
static int work(uint64_t job, int first) {
  int count = count_of(job), mine = 0;
  unsigned long long number = job >> TASK_BITS;
  for (int i = 0; i < count; i++) {
    int at = first + i < count ? first + i : first + i - count;
    struct task *task = &tasks[at];
    unsigned long long last = atomic_load(&task->begun);
    if (last >= number || !atomic_compare_exchange_strong(&task->begun, &last, number)) continue;
    if (pool.body(at, pool.context) != 0) atomic_store(&pool.failed, 1);
    atomic_store(&task->done, number);
    rouse(&pool.caller_asleep, &pool.done);
    mine++;
  }
  return mine;
}

/* Everyone wakes two others, so that the caller need not wake all. Whether there were any. */
static int wake_next(int number, int count) {
  int end = atomic_load(&pool.workers) + 1, woke = 0;
  if (end > count) end = count;
  for (int i = 2 * number + 1; i <= 2 * number + 2 && i < end; i++) {
    struct worker *next = &workers[i];
    if (!atomic_load(&next->asleep)) continue;
    /* It would be woken where it ran last, and wait there until the caller is done. */
    int cpu = atomic_load(&pool.caller_cpu);
    if (atomic_load(&next->cpu) == cpu) affinity_avoid(next->thread, cpu);
    rouse(&next->asleep, &next->wake);
    woke = 1;
  }
  return woke;
}

static void *serve(void *argument) {
  struct worker *self = argument;
  uint64_t job = self->seen;
  int64_t span = pool_settings.spin;
  affinity_apply(self->number, pthread_self());
  while (count_of(job = next_job(self, job, span)) > 0) {
    span = 0;
    if (self->number >= count_of(job)) continue; /* fewer threads this time */
    wake_next(self->number, count_of(job));
    int mine = work(job, self->number), cpu = sched_getcpu();
    if (cpu == atomic_load(&pool.caller_cpu)) affinity_avoid(pthread_self(), cpu);
    atomic_store_explicit(&self->cpu, cpu, memory_order_relaxed);
    /* Who came too late may be in time for the next job. */
    span = mine > 0 ? atomic_load(&pool.spin) : pool_settings.spin;
  }
  return NULL;
}

/* The number of the job that it posts. */
static uint64_t post(int count, pool_body body, void *context) {
  uint64_t number = (atomic_load(&pool.posted) >> TASK_BITS) + 1;
  pool.body = body;
  pool.context = context;
  atomic_store(&pool.posted, number << TASK_BITS | (uint64_t)count);
  return number;
}

int pool_run(int count, pool_body body, void *context) {
  int64_t start = now(), begin = start;
  int cpu = sched_getcpu();
  if (atomic_load(&pool.caller_cpu) != cpu) atomic_store(&pool.caller_cpu, cpu);
  uint64_t number = post(count, body, context);
  if (wake_next(0, count)) begin = now();
  int mine = work(number << TASK_BITS | (uint64_t)count, 0);
  int64_t own = now() - begin;
  for (int i = 0; i < count; i++) wait_for(&tasks[i], number);
  int64_t end = now();
  if (mine > 0) pool.balance += own * count / mine - (end - start);
  atomic_store_explicit(&pool.left_at, end, memory_order_relaxed);
  return atomic_load(&pool.failed) && atomic_exchange(&pool.failed, 0) ? -1 : 0;
}

/* ---- coming and going ---- */

/* After a fork only the forking thread is left: the child starts without workers. */
static void after_fork_in_child(void) {
  affinity_after_fork();
  atomic_store(&pool.workers, 0);
  atomic_store(&pool.caller_asleep, 0);
  atomic_store(&pool.taken, 0);
}

/* Fewer workers than wanted are no error: others do their tasks. */
static void add_workers(int wanted) {
  int count = atomic_load(&pool.workers);
  if (count >= wanted) return;
  static int registered;
  if (!registered) registered = pthread_atfork(NULL, NULL, after_fork_in_child) == 0;
  if (count == 0) sem_init(&pool.done, 0, 0);
  sigset_t all, before; /* signals are the host program's business, not our threads' */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (count < wanted) {
    struct worker *next = &workers[count + 1];
    sem_init(&next->wake, 0, 0);
    atomic_store(&next->asleep, 0);
    atomic_store(&next->cpu, -1);
    next->number = count + 1;
    next->seen = atomic_load(&pool.posted);
    if (pthread_create(&next->thread, NULL, serve, next) != 0) break;
    atomic_store(&pool.workers, ++count);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Workers look for the next job a few times as long as it took to come, if that is not too long. */
static void adapt(int64_t gap) {
  int64_t limit = pool_settings.spin, spin = atomic_load(&pool.spin);
  int64_t wanted = gap < limit ? 4 * gap : 0;
  if (wanted > limit) wanted = limit;
  if (wanted < LEAST_SPIN) wanted = LEAST_SPIN;
  if (wanted > spin || wanted < spin / 4)
    atomic_store(&pool.spin, wanted > spin ? wanted : spin / 2);
}

struct pool_call pool_enter(int threads, int64_t work) {
  struct pool_call call = {1, 0};
  int forced = pool_settings.task == 0;
  int64_t most = forced ? threads : work / pool_settings.task;
  if (threads < 2 || most < 2) return call;
  call.start = now();
  int64_t gap = call.start - atomic_load(&pool.left_at);
  int rare = gap > pool_settings.spin && work < WORTH_WAKING;
  if (!forced && (rare || atomic_load(&pool.alone) > 0)) return call;
  if (atomic_exchange(&pool.taken, 1)) return call;
  adapt(gap);
  if (pool.most_workers == 0) pool.most_workers = affinity_workers();
  int helpers = forced ? threads - 1 : pool.most_workers;
  if (helpers > threads - 1) helpers = threads - 1;
  if (helpers > most - 1) helpers = (int)most - 1;
  add_workers(helpers);
  call.tasks = helpers + 1;
  if (call.tasks == 1) atomic_store(&pool.taken, 0);
  return call;
}

void pool_leave(struct pool_call call) {
  if (call.start == 0) return;
  if (call.tasks == 1) {
    int64_t end = now();
    atomic_store_explicit(&pool.left_at, end, memory_order_relaxed);
    if (atomic_load(&pool.alone) > 0) atomic_fetch_sub(&pool.alone, end - call.start);
    return;
  }
  if (pool.balance > MOST_CREDIT) pool.balance = MOST_CREDIT;
  if (pool.balance < -MOST_DEBT) {
    atomic_store(&pool.alone, -ALONE * pool.balance);
    pool.balance = 0;
  }
  atomic_store_explicit(&pool.taken, 0, memory_order_release);
}

PUBLIC lpgen_status lpgen_set_affinity(const int *cpus, int count) {
  while (atomic_exchange(&pool.taken, 1)) sched_yield();
  int failed = affinity_list(cpus, count);
  pool.most_workers = 0;
  for (int i = 1; i <= atomic_load(&pool.workers) && !failed; i++)
    affinity_apply(i, workers[i].thread);
  atomic_store(&pool.taken, 0);
  return failed ? LPGEN_AFFINITY : LPGEN_OK;
}

/* The program ends, or unloads the library: no thread may be left in code that goes away. */
__attribute__((destructor)) static void stop_workers(void) {
  /* Another thread's call may be under way while the program ends: then they are left to it. */
  for (int tries = 0; atomic_exchange(&pool.taken, 1); tries++) {
    if (tries == 1000) return;
    usleep(100);
  }
  int count = atomic_load(&pool.workers);
  if (count == 0) return;
  atomic_store(&pool.posted, ((atomic_load(&pool.posted) >> TASK_BITS) + 1) << TASK_BITS);
  for (int i = 1; i <= count; i++) rouse(&workers[i].asleep, &workers[i].wake);
  for (int i = 1; i <= count; i++) pthread_join(workers[i].thread, NULL);
}
