/* On which CPUs workers run, and the settings of the environment.
 *
 * Workers start with the binding of the thread that makes them, and a caller bound to one core would
 * keep all of them there. They get what any thread of the process may use instead, less the CPU on
 * which they met the caller; or the CPUs that are listed, one for each. A process that was started
 * on one CPU (taskset, cpuset) has no other, and gets no workers. */

#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool.h"

struct pool_settings pool_settings = {100000, 3000, 0};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static cpu_set_t allowed; /* for all workers, where no CPUs are listed; none: nobody looked yet */
static int listed[CPU_SETSIZE], listed_count;

static void allow(pid_t thread) {
  cpu_set_t cpus;
  if (sched_getaffinity(thread, sizeof cpus, &cpus) == 0) CPU_OR(&allowed, &allowed, &cpus);
}

/* Whatever some thread may use: one that is bound does not speak for the others. */
static void allow_all_threads(void) {
  DIR *threads = opendir("/proc/self/task");
  struct dirent *entry;
  while (threads && (entry = readdir(threads)))
    if (entry->d_name[0] != '.') allow((pid_t)strtol(entry->d_name, NULL, 10));
  if (threads) closedir(threads);
}

int affinity_workers(void) {
  static int looked;
  pthread_mutex_lock(&lock);
  if (!looked) allow_all_threads();
  looked = 1;
  int cpus = CPU_COUNT(&allowed); /* 0: more than a cpu_set_t holds */
  if (cpus == 0) cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
  int count = listed_count > 0 ? listed_count : cpus - 1;
  pthread_mutex_unlock(&lock);
  return count < MAX_THREADS - 1 ? count : MAX_THREADS - 1;
}

void affinity_apply(int number, pthread_t thread) {
  pthread_mutex_lock(&lock);
  cpu_set_t cpus = allowed;
  if (listed_count > 0) {
    CPU_ZERO(&cpus);
    CPU_SET(listed[(number - 1) % listed_count], &cpus);
  }
  if (CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(thread, sizeof cpus, &cpus);
  pthread_mutex_unlock(&lock);
}

void affinity_avoid(pthread_t thread, int cpu) {
  pthread_mutex_lock(&lock);
  cpu_set_t cpus = allowed;
  if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_CLR(cpu, &cpus);
  if (listed_count == 0 && CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(thread, sizeof cpus, &cpus);
  pthread_mutex_unlock(&lock);
}

/* Whether a thread may be bound to the CPU: this one is, for a moment. */
static int usable(int cpu) {
  cpu_set_t cpus, before;
  if (cpu < 0 || cpu >= CPU_SETSIZE) return 0;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  if (sched_getaffinity(0, sizeof before, &before) != 0) return 0;
  int fits = sched_setaffinity(0, sizeof cpus, &cpus) == 0;
  sched_setaffinity(0, sizeof before, &before);
  return fits;
}

int affinity_list(const int *cpus, int count) {
  if (count < 0 || count > CPU_SETSIZE || (count > 0 && !cpus)) return -1;
  for (int i = 0; i < count; i++)
    if (!usable(cpus[i])) return -1;
  pthread_mutex_lock(&lock);
  if (count > 0) memcpy(listed, cpus, (size_t)count * sizeof *cpus);
  listed_count = count;
  pthread_mutex_unlock(&lock);
  return 0;
}

void affinity_after_fork(void) { pthread_mutex_init(&lock, NULL); }

/* ---- the environment ---- */

/* A number of digits alone, up to `limit`; -1 for anything else. */
static long number(const char *text, char **end, long limit) {
  if (*text < '0' || *text > '9') return -1;
  long value = strtol(text, end, 10);
  return value <= limit ? value : -1;
}

static int64_t microseconds(const char *name, int64_t otherwise) {
  const char *text = getenv(name);
  if (!text || !*text) return otherwise;
  char *end;
  long value = number(text, &end, 1000000);
  if (value >= 0 && !*end) return value * 1000;
  pool_settings.wrong = 1;
  return otherwise;
}

/* "0,4-7" */
static int read_list(char *text) {
  static int cpus[CPU_SETSIZE];
  int count = 0;
  for (;;) {
    long first = number(text, &text, CPU_SETSIZE - 1), last = first;
    if (first >= 0 && *text == '-') last = number(text + 1, &text, CPU_SETSIZE - 1);
    if (first < 0 || last < first) return -1;
    for (long cpu = first; cpu <= last; cpu++) {
      if (count == CPU_SETSIZE) return -1;
      cpus[count++] = (int)cpu;
    }
    if (!*text) return affinity_list(cpus, count);
    if (*text++ != ',') return -1;
  }
}

__attribute__((constructor)) static void read_environment(void) {
  allow(getpid()); /* before the program binds its threads */
  allow(0);
  pool_settings.spin = microseconds("LPGEN_SPIN_US", pool_settings.spin);
  pool_settings.task = microseconds("LPGEN_TASK_US", pool_settings.task);
  char *list = getenv("LPGEN_AFFINITY");
  if (list && *list && read_list(list) != 0) pool_settings.wrong = 1;
}
