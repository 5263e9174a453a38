/* Which instructions a 32-bit Arm CPU and its operating system offer.
 *
 * Bits: Linux, arch/arm/include/uapi/asm/hwcap.h. */

#if !defined(__arm__)
#error "kernels for ARMv7 need a C compiler for 32-bit Arm"
#endif

#include <string.h>
#include <sys/auxv.h>

#include "internal.h"

static const struct feature {
  const char *name;
  int bit;
} known_features[] = {
    {"neon", 12},
    {"vfp4", 16},
    {"hwdiv-arm", 17},
};

int cpu_has(const char *name) {
  for (size_t i = 0; i < sizeof known_features / sizeof *known_features; i++)
    if (strcmp(known_features[i].name, name) == 0)
      return getauxval(AT_HWCAP) >> known_features[i].bit & 1;
  return 0; /* what this table does not know it cannot vouch for */
}
