/* Constants of a network for one target in a file beside the library, mapped and only read. It
 * begins with a header that says which library it is of. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

struct header {
  char magic[8];
  uint64_t version; /* of this form */
  uint64_t bytes;   /* behind the header */
  uint8_t digest[32]; /* SHA-256 of them */
  uint64_t zeros;
};

_Static_assert(sizeof(struct header) == ALIGNMENT, "constants are on a 64-byte boundary again");

enum { VERSION = 1 };

static int is_of(const struct program *program, const struct header *header) {
  struct header expected = {"lpgen-c", VERSION, program->constant_bytes, {0}, 0};
  memcpy(expected.digest, program->beside->digest, sizeof expected.digest);
  return memcmp(header, &expected, sizeof expected) == 0;
}

lpgen_status network_map_weights(const struct network *network, const char *path) {
  if (!path) return LPGEN_NULL_POINTER;
  const struct program *program = network_program(network);
  struct beside *beside = program->beside;
  size_t bytes = sizeof(struct header) + program->constant_bytes;
  struct stat status;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return LPGEN_WEIGHTS_FILE;
  void *memory = MAP_FAILED;
  if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && (size_t)status.st_size == bytes)
    memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return LPGEN_WEIGHTS_FILE;
  void *nothing = NULL;
  int fits = is_of(program, memory);
  /* Where it is mapped already, that stays: another thread may be using it. */
  if (!fits || !atomic_compare_exchange_strong(&beside->mapped, &nothing, memory))
    munmap(memory, bytes);
  return fits ? LPGEN_OK : LPGEN_WEIGHTS_FILE;
}

const void *program_constants(const struct program *program) {
  if (!program->beside) return program->constants;
  char *mapped = atomic_load(&program->beside->mapped);
  return mapped ? mapped + sizeof(struct header) : NULL;
}

lpgen_status network_constant(const struct network *network, size_t offset, void *data,
                              size_t bytes) {
  const struct program *program = network_program(network);
  const char *constants = program_constants(program);
  if (!constants) return LPGEN_WEIGHTS_UNMAPPED;
  if (offset > program->constant_bytes || bytes > program->constant_bytes - offset)
    return LPGEN_WEIGHTS_BYTES;
  memcpy(data, constants + offset, bytes);
  return LPGEN_OK;
}

void network_unmap_weights(const struct network *network) {
  for (int i = 0; lpgen_built_for[i].name; i++) {
    const struct program *program = &network->programs[i];
    void *mapped = atomic_exchange(&program->beside->mapped, NULL);
    if (mapped) munmap(mapped, sizeof(struct header) + program->constant_bytes);
  }
}
