/* Which kernels this CPU and its operating system run. Nothing else in a library may run before it
 * was asked, and it is itself compiled for the plainest CPU. What a CPU has its architecture's own
 * file tells (cpu_x86.c). */

#include <pthread.h>
#include <string.h>

#include "internal.h"

/* The answer for each kernel is kept. Two threads may both look; they find the same. */
int cpu_runs(const struct kernel *kernel) {
  int known = atomic_load_explicit(kernel->cpu, memory_order_relaxed);
  if (known == 0) {
    known = 1;
    for (const char *const *name = kernel->features; *name; name++)
      if (!cpu_has(*name)) known = 2;
    atomic_store_explicit(kernel->cpu, known, memory_order_relaxed);
  }
  return known == 1;
}

static char missing[1024];

static int is_listed(const char *name) {
  size_t length = strlen(name);
  for (const char *at = missing; (at = strstr(at, name)); at += length)
    if ((at == missing || at[-1] == ' ') && (at[length] == ',' || at[length] == 0)) return 1;
  return 0;
}

static void find_missing(void) {
  for (const struct kernel *const *kernel = lpgen_kernels; *kernel; kernel++)
    for (const char *const *name = (*kernel)->features; *name; name++) {
      if (cpu_has(*name) || is_listed(*name)) continue;
      if (strlen(missing) + strlen(*name) + 3 > sizeof missing) return;
      if (missing[0]) strcat(missing, ", ");
      strcat(missing, *name);
    }
}

PUBLIC const char *lpgen_missing_features(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_missing);
  return missing[0] ? missing : NULL;
}
