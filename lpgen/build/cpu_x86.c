/* Which instructions an x86-64 CPU and its operating system offer.
 *
 * Bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. */

#if !defined(__x86_64__)
#error "kernels for x86-64 need a C compiler for x86-64"
#endif

#define _GNU_SOURCE
#include <cpuid.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

enum { EAX, EBX, ECX, EDX };
enum { LEAF_1, LEAF_7, LEAF_7_1, LEAF_EXTENDED_1, LEAVES };
enum { NO_STATE, AVX_STATE, AVX512_STATE, AMX_STATE }; /* what the system has to save */

static const struct feature {
  const char *name;
  int leaf, reg, bit, state;
} known_features[] = {
    {"sse", LEAF_1, EDX, 25, NO_STATE},
    {"sse2", LEAF_1, EDX, 26, NO_STATE},
    {"sse3", LEAF_1, ECX, 0, NO_STATE},
    {"ssse3", LEAF_1, ECX, 9, NO_STATE},
    {"sse4.1", LEAF_1, ECX, 19, NO_STATE},
    {"sse4.2", LEAF_1, ECX, 20, NO_STATE},
    {"sse4a", LEAF_EXTENDED_1, ECX, 6, NO_STATE},
    {"popcnt", LEAF_1, ECX, 23, NO_STATE},
    {"movbe", LEAF_1, ECX, 22, NO_STATE},
    {"lzcnt", LEAF_EXTENDED_1, ECX, 5, NO_STATE},
    {"bmi", LEAF_7, EBX, 3, NO_STATE},
    {"bmi2", LEAF_7, EBX, 8, NO_STATE},
    {"adx", LEAF_7, EBX, 19, NO_STATE},
    {"gfni", LEAF_7, ECX, 8, NO_STATE},
    {"f16c", LEAF_1, ECX, 29, AVX_STATE},
    {"fma", LEAF_1, ECX, 12, AVX_STATE},
    {"avx", LEAF_1, ECX, 28, AVX_STATE},
    {"avx2", LEAF_7, EBX, 5, AVX_STATE},
    {"avxvnni", LEAF_7_1, EAX, 4, AVX_STATE},
    {"avxifma", LEAF_7_1, EAX, 23, AVX_STATE},
    {"avxvnniint8", LEAF_7_1, EDX, 4, AVX_STATE},
    {"avxneconvert", LEAF_7_1, EDX, 5, AVX_STATE},
    {"avxvnniint16", LEAF_7_1, EDX, 10, AVX_STATE},
    {"avx512f", LEAF_7, EBX, 16, AVX512_STATE},
    {"avx512dq", LEAF_7, EBX, 17, AVX512_STATE},
    {"avx512ifma", LEAF_7, EBX, 21, AVX512_STATE},
    {"avx512cd", LEAF_7, EBX, 28, AVX512_STATE},
    {"avx512bw", LEAF_7, EBX, 30, AVX512_STATE},
    {"avx512vl", LEAF_7, EBX, 31, AVX512_STATE},
    {"avx512vbmi", LEAF_7, ECX, 1, AVX512_STATE},
    {"avx512vbmi2", LEAF_7, ECX, 6, AVX512_STATE},
    {"avx512vnni", LEAF_7, ECX, 11, AVX512_STATE},
    {"avx512bitalg", LEAF_7, ECX, 12, AVX512_STATE},
    {"avx512vpopcntdq", LEAF_7, ECX, 14, AVX512_STATE},
    {"avx512vp2intersect", LEAF_7, EDX, 8, AVX512_STATE},
    {"avx512fp16", LEAF_7, EDX, 23, AVX512_STATE},
    {"avx512bf16", LEAF_7_1, EAX, 5, AVX512_STATE},
    {"amx-bf16", LEAF_7, EDX, 22, AMX_STATE},
    {"amx-tile", LEAF_7, EDX, 24, AMX_STATE},
    {"amx-int8", LEAF_7, EDX, 25, AMX_STATE},
    {"amx-fp16", LEAF_7_1, EAX, 21, AMX_STATE},
};

/* CPUID is slow (it leaves a virtual machine), so it is asked once. */
static uint32_t leaves[LEAVES][4];
static uint64_t saved_states;

static void ask_cpu(void) {
  static const uint32_t numbers[LEAVES][2] = {[LEAF_1] = {1, 0},
                                              [LEAF_7] = {7, 0},
                                              [LEAF_7_1] = {7, 1},
                                              [LEAF_EXTENDED_1] = {0x80000001, 0}};
  uint32_t last = __get_cpuid_max(0, NULL), last_extended = __get_cpuid_max(0x80000000, NULL);
  for (int i = 0; i < LEAVES; i++) {
    uint32_t *r = leaves[i], leaf = numbers[i][0];
    if (leaf <= (i == LEAF_EXTENDED_1 ? last_extended : last)) /* else it is left at 0 */
      __cpuid_count(leaf, numbers[i][1], r[EAX], r[EBX], r[ECX], r[EDX]);
  }
  if (leaves[LEAF_1][ECX] >> 27 & 1) { /* OSXSAVE */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    saved_states = (uint64_t)high << 32 | low;
  }
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
  return (saved_states & needed[state]) == needed[state];
}

int cpu_has(const char *name) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, ask_cpu);
  for (size_t i = 0; i < sizeof known_features / sizeof *known_features; i++) {
    const struct feature *f = &known_features[i];
    if (strcmp(f->name, name) != 0) continue;
    if (!(leaves[f->leaf][f->reg] >> f->bit & 1) || !state_saved(f->state)) return 0;
    return f->state != AMX_STATE || tiles_granted();
  }
  return 0; /* what this table does not know it cannot vouch for */
}
