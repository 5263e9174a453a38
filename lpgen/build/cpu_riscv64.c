/* Which instructions a 64-bit RISC-V CPU and its operating system offer.
 *
 * Bits: Linux, arch/riscv/include/uapi/asm/hwcap.h and hwprobe.h. Kernels before Linux 6.4 and some
 * emulators have no hwprobe: of the extensions there they tell V alone. */

#if !defined(__riscv) || __riscv_xlen != 64
#error "kernels for RISC-V need a C compiler for 64-bit RISC-V"
#endif

#define _GNU_SOURCE
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "internal.h"

enum { NR_HWPROBE = 258, IMA_EXT_0 = 4, IMA_V = 2 };
enum { LONGEST = 128 }; /* bytes of a vector: of longer ones vrgather finds more than kernels take */

static const struct feature {
  const char *name;
  int bit;       /* of hwprobe's IMA_EXT_0 */
  unsigned long bytes; /* of a vector register at least, 0: no vectors are needed */
} known_features[] = {
    {"v", IMA_V, 16},
    {"zvl128b", IMA_V, 16},
    {"zvl256b", IMA_V, 32},
    {"zba", 3, 0},
    {"zbb", 4, 0},
    {"zbs", 5, 0},
    {"zvbb", 17, 16},
};

static unsigned long extensions(void) {
  struct {
    long key;
    unsigned long value;
  } asked = {IMA_EXT_0, 0};
  unsigned long v = getauxval(AT_HWCAP) >> ('V' - 'A') & 1;
  if (syscall(NR_HWPROBE, &asked, 1L, 0L, 0L, 0L) != 0 || asked.key != IMA_EXT_0) asked.value = 0;
  return asked.value | v << IMA_V;
}

static unsigned long vector_bytes(void) {
  unsigned long bytes;
  __asm__("csrr %0, 0xc22" : "=r"(bytes)); /* vlenb */
  return bytes;
}

int cpu_has(const char *name) {
  unsigned long have = extensions();
  for (size_t i = 0; i < sizeof known_features / sizeof *known_features; i++) {
    const struct feature *feature = &known_features[i];
    if (strcmp(feature->name, name) != 0) continue;
    if (!(have >> feature->bit & 1)) return 0;
    if (!feature->bytes) return 1;
    if (!(have >> IMA_V & 1)) return 0;
    unsigned long bytes = vector_bytes();
    return feature->bytes <= bytes && bytes <= LONGEST;
  }
  return 0; /* what this table does not know it cannot vouch for */
}
