/* What packed weights begin with. Every call compares it, so that weights of another kernel, level
 * or build, or no weights at all, are an error and not a wrong number. */

#include <string.h>

#include "internal.h"

/* The fields in the machine's byte order; the kernel gets the address behind them. */
struct header {
  char magic[8];
  uint64_t version; /* of this form */
  uint64_t kernel;  /* which kernel of which build: its `identity` */
  uint64_t bytes;   /* of the data behind the header */
  char level[16];   /* of the CPU */
  uint64_t checksum; /* of the data */
  uint64_t zeros;
};

_Static_assert(sizeof(struct header) == PACKED_HEADER, "data is on a 64-byte boundary again");

enum { VERSION = 2, COMPARED_AT_EACH_CALL = offsetof(struct header, checksum) };

/* Finds damage, not forgery: each step can be undone, so that no change of one word is lost. */
static uint64_t checksum(const uint8_t *data, size_t bytes) {
  uint64_t sum = 0;
  for (size_t at = 0; at < bytes; at += sizeof sum) {
    uint64_t word = 0;
    memcpy(&word, data + at, bytes - at < sizeof word ? bytes - at : sizeof word);
    sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    sum ^= sum >> 32;
  }
  return sum;
}

static struct header header_of(const struct variant *variant, uint64_t sum) {
  struct header header = {
      "lpgen-w", VERSION, variant->identity, variant->packed_bytes, {0}, sum, 0};
  strncpy(header.level, variant->target->level, sizeof header.level - 1);
  return header;
}

void *packed_data(void *packed) { return (char *)packed + PACKED_HEADER; }

static uint64_t sum_of(const struct variant *variant, const void *packed) {
  return checksum((const uint8_t *)packed + PACKED_HEADER, variant->packed_bytes);
}

lpgen_status packed_belongs(const struct variant *variant, const void *packed) {
  struct header expected = header_of(variant, 0);
  if (memcmp(packed, &expected, COMPARED_AT_EACH_CALL) == 0) return LPGEN_OK;
  if (memcmp(packed, &expected, offsetof(struct header, kernel)) != 0) return LPGEN_PACKED_HEADER;
  int same = memcmp(packed, &expected, offsetof(struct header, level)) == 0;
  return same ? LPGEN_PACKED_LEVEL : LPGEN_PACKED_KERNEL;
}

void packed_sign(const struct variant *variant, void *packed) {
  struct header header = header_of(variant, sum_of(variant, packed));
  memcpy(packed, &header, sizeof header);
}

lpgen_status kernel_check_weights(const struct kernel *kernel, const void *packed,
                                  size_t packed_bytes) {
  const struct variant *variant = kernel->chosen;
  if (!variant) return kernel_refusal(kernel);
  if (!packed) return LPGEN_NULL_POINTER;
  if (packed_bytes != tensor_bytes(&kernel->arguments[kernel->packed].tensor))
    return LPGEN_PACKED_BYTES;
  lpgen_status status = packed_belongs(variant, packed);
  if (status != LPGEN_OK) return status;
  struct header expected = header_of(variant, sum_of(variant, packed));
  return memcmp(packed, &expected, sizeof expected) == 0 ? LPGEN_OK : LPGEN_PACKED_DAMAGED;
}
