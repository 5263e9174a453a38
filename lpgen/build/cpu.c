/* Which instructions this CPU and its operating system offer. Nothing else in a library may run
 * before it was asked, and it is itself compiled for the plainest CPU.
 *
 * Bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. */

#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>

#include "internal.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EAX, EBX, ECX, EDX };
enum { NO_STATE, AVX_STATE, AVX512_STATE, AMX_STATE }; /* what the system has to save */

static const struct feature {
  const char *name;
  uint32_t leaf, subleaf;
  int reg, bit, state;
} known_features[] = {
    {"sse", 1, 0, EDX, 25, NO_STATE},
    {"sse2", 1, 0, EDX, 26, NO_STATE},
    {"sse3", 1, 0, ECX, 0, NO_STATE},
    {"ssse3", 1, 0, ECX, 9, NO_STATE},
    {"sse4.1", 1, 0, ECX, 19, NO_STATE},
    {"sse4.2", 1, 0, ECX, 20, NO_STATE},
    {"sse4a", 0x80000001, 0, ECX, 6, NO_STATE},
    {"popcnt", 1, 0, ECX, 23, NO_STATE},
    {"movbe", 1, 0, ECX, 22, NO_STATE},
    {"lzcnt", 0x80000001, 0, ECX, 5, NO_STATE},
    {"bmi", 7, 0, EBX, 3, NO_STATE},
    {"bmi2", 7, 0, EBX, 8, NO_STATE},
    {"adx", 7, 0, EBX, 19, NO_STATE},
    {"gfni", 7, 0, ECX, 8, NO_STATE},
    {"f16c", 1, 0, ECX, 29, AVX_STATE},
    {"fma", 1, 0, ECX, 12, AVX_STATE},
    {"avx", 1, 0, ECX, 28, AVX_STATE},
    {"avx2", 7, 0, EBX, 5, AVX_STATE},
    {"avxvnni", 7, 1, EAX, 4, AVX_STATE},
    {"avxifma", 7, 1, EAX, 23, AVX_STATE},
    {"avxvnniint8", 7, 1, EDX, 4, AVX_STATE},
    {"avxvnniint16", 7, 1, EDX, 10, AVX_STATE},
    {"avx512f", 7, 0, EBX, 16, AVX512_STATE},
    {"avx512dq", 7, 0, EBX, 17, AVX512_STATE},
    {"avx512ifma", 7, 0, EBX, 21, AVX512_STATE},
    {"avx512cd", 7, 0, EBX, 28, AVX512_STATE},
    {"avx512bw", 7, 0, EBX, 30, AVX512_STATE},
    {"avx512vl", 7, 0, EBX, 31, AVX512_STATE},
    {"avx512vbmi", 7, 0, ECX, 1, AVX512_STATE},
    {"avx512vbmi2", 7, 0, ECX, 6, AVX512_STATE},
    {"avx512vnni", 7, 0, ECX, 11, AVX512_STATE},
    {"avx512bitalg", 7, 0, ECX, 12, AVX512_STATE},
    {"avx512vpopcntdq", 7, 0, ECX, 14, AVX512_STATE},
    {"avx512vp2intersect", 7, 0, EDX, 8, AVX512_STATE},
    {"avx512fp16", 7, 0, EDX, 23, AVX512_STATE},
    {"avx512bf16", 7, 1, EAX, 5, AVX512_STATE},
    {"amx-bf16", 7, 0, EDX, 22, AMX_STATE},
    {"amx-tile", 7, 0, EDX, 24, AMX_STATE},
    {"amx-int8", 7, 0, EDX, 25, AMX_STATE},
    {"amx-fp16", 7, 1, EAX, 21, AMX_STATE},
};

static uint64_t saved_states(void) {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (uint64_t)d << 32 | a;
}

/* Linux keeps the tiles from a process until it asks: ARCH_REQ_XCOMP_PERM, XTILEDATA. */
static int tiles_granted(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return 0;
#endif
}

static int state_saved(int state) {
  static const uint64_t needed[] = {[NO_STATE] = 0,
                                    [AVX_STATE] = 0x6,
                                    [AVX512_STATE] = 0xe6,
                                    [AMX_STATE] = 0x60000};
  return (saved_states() & needed[state]) == needed[state];
}

static int cpu_has(const char *name) {
  for (size_t i = 0; i < sizeof known_features / sizeof *known_features; i++) {
    const struct feature *f = &known_features[i];
    if (strcmp(f->name, name) != 0) continue;
    uint32_t regs[4];
    if (!__get_cpuid_count(f->leaf, f->subleaf, &regs[EAX], &regs[EBX], &regs[ECX], &regs[EDX]))
      return 0;
    if (!(regs[f->reg] >> f->bit & 1) || !state_saved(f->state)) return 0;
    return f->state != AMX_STATE || tiles_granted();
  }
  return 0; /* what this table does not know it cannot vouch for */
}

#else /* not x86-64: a library for x86-64 does not even load here */

static int cpu_has(const char *name) {
  (void)name;
  return 1;
}

#endif

/* CPUID is slow (it leaves a virtual machine): the answer for each kernel is kept. Two threads may
 * both look; they find the same. */
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
