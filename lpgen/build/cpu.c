/* Which kernels this CPU and its operating system run. Nothing else in a library may run before it
 * was asked, and it is itself compiled for the plainest CPU. What a CPU has its architecture's own
 * file tells (cpu_x86.c). */

#include <pthread.h>
#include <string.h>

#include "internal.h"

/* The answer for each variant is kept. Two threads may both look; they find the same. */
static int cpu_runs(const struct variant *variant) {
  int known = atomic_load_explicit(variant->cpu, memory_order_relaxed);
  if (known == 0) {
    known = 1;
    for (const char *const *name = variant->features; *name; name++)
      if (!cpu_has(*name)) known = 2;
    atomic_store_explicit(variant->cpu, known, memory_order_relaxed);
  }
  return known == 1;
}

const struct variant *variant_for_cpu(const struct kernel *kernel) {
  const struct variant *const *variant = kernel->variants;
  while (*variant && !cpu_runs(*variant)) variant++;
  return *variant;
}

static char missing[1024];

static int is_listed(const char *name) {
  size_t length = strlen(name);
  for (const char *at = missing; (at = strstr(at, name)); at += length)
    if ((at == missing || at[-1] == ' ') && (at[length] == ',' || at[length] == 0)) return 1;
  return 0;
}

static void add_missing(const struct variant *variant) {
  for (const char *const *name = variant->features; *name; name++) {
    if (cpu_has(*name) || is_listed(*name)) continue;
    if (strlen(missing) + strlen(*name) + 3 > sizeof missing) return;
    if (missing[0]) strcat(missing, ", ");
    strcat(missing, *name);
  }
}

static void find_missing(void) {
  for (const struct kernel *const *kernel = lpgen_kernels; *kernel; kernel++)
    for (const struct variant *const *variant = (*kernel)->variants; *variant; variant++)
      add_missing(*variant);
}

PUBLIC const char *lpgen_missing_features(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_missing);
  return missing[0] ? missing : NULL;
}
