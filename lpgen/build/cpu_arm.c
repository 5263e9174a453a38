/* Which instructions a 64-bit Arm CPU and its operating system offer.
 *
 * Bits: Linux, arch/arm64/include/uapi/asm/hwcap.h. */

#if !defined(__aarch64__)
#error "kernels for AArch64 need a C compiler for AArch64"
#endif

#include <string.h>
#include <sys/auxv.h>

#include "internal.h"

static const struct feature {
  const char *name;
  unsigned long type; /* AT_HWCAP or AT_HWCAP2 */
  int bit;
} known_features[] = {
    {"neon", AT_HWCAP, 1},
    {"fullfp16", AT_HWCAP, 10},
    {"rdm", AT_HWCAP, 12},
    {"complxnum", AT_HWCAP, 14},
    {"dotprod", AT_HWCAP, 20},
    {"fp16fml", AT_HWCAP, 23},
    {"i8mm", AT_HWCAP2, 13},
    {"bf16", AT_HWCAP2, 14},
};

int cpu_has(const char *name) {
  for (size_t i = 0; i < sizeof known_features / sizeof *known_features; i++)
    if (strcmp(known_features[i].name, name) == 0)
      return getauxval(known_features[i].type) >> known_features[i].bit & 1;
  return 0; /* what this table does not know it cannot vouch for */
}
