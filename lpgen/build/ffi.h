/* The public functions of one kernel for tvm-ffi, as the generated file asks for them:
 * LPGEN_KERNEL(symbol, &its struct kernel), and LPGEN_PACKER of one that has packed weights; those
 * of a network, in C too: LPGEN_NETWORK(name, &its struct network). */

#ifndef LPGEN_FFI_H
#define LPGEN_FFI_H

#include <dlpack/dlpack.h>
#include <tvm/ffi/c_api.h>

#include "internal.h"

/* What functions of kernels and of networks share (ffi.c). ffi_tensor: NULL for what is none;
 * ffi_text: of a tensor uint8[n] that ends in 0, NULL for what is none; ffi_threads: outside of
 * their limits for what is no number of them; ffi_wrong_count: raises an error that names the
 * arguments. */
const DLTensor *ffi_tensor(const TVMFFIAny *value);
int ffi_is_dense(const DLTensor *tensor);
void *ffi_start(const DLTensor *tensor);
const char *ffi_text(const TVMFFIAny *value);
int ffi_threads(const TVMFFIAny *arg);
int ffi_return_size(size_t bytes, TVMFFIAny *result);
int ffi_finish(const char *symbol, lpgen_status status, TVMFFIAny *result);
int ffi_wrong_count(const char *symbol, const char *arguments);

int ffi_run(const struct kernel *kernel, const TVMFFIAny *args, int count, TVMFFIAny *result);
int ffi_pack_weights(const struct kernel *kernel, const TVMFFIAny *args, int count,
                     TVMFFIAny *result);
int ffi_check_weights(const struct kernel *kernel, const TVMFFIAny *args, int count,
                      TVMFFIAny *result);
int ffi_workspace_bytes(const struct kernel *kernel, const TVMFFIAny *args, int count,
                        TVMFFIAny *result);
/* ffi_network.c */
int ffi_network_run(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result);
int ffi_arena_bytes(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result);
int ffi_map_weights(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result);
int ffi_constant(const struct network *network, const TVMFFIAny *args, int count,
                 TVMFFIAny *result);

#define LPGEN_FFI(NAME, FUNCTION, KERNEL)                                                      \
  PUBLIC int __tvm_ffi_##NAME(void *self, const TVMFFIAny *args, int32_t count,                \
                              TVMFFIAny *result) {                                             \
    (void)self;                                                                                \
    return FUNCTION(KERNEL, args, count, result);                                              \
  }

#define LPGEN_KERNEL(SYMBOL, KERNEL)                                                         \
  PUBLIC size_t SYMBOL##_workspace_bytes(int threads) {                                      \
    return kernel_workspace_bytes(KERNEL, threads);                                          \
  }                                                                                          \
  LPGEN_FFI(SYMBOL, ffi_run, KERNEL)                                                         \
  LPGEN_FFI(SYMBOL##_workspace_bytes, ffi_workspace_bytes, KERNEL)

#define LPGEN_PACKER(SYMBOL, KERNEL)                                                         \
  PUBLIC lpgen_status SYMBOL##_check_weights(const void *packed, size_t packed_bytes) {      \
    return kernel_check_weights(KERNEL, packed, packed_bytes);                               \
  }                                                                                          \
  LPGEN_FFI(SYMBOL##_pack_weights, ffi_pack_weights, KERNEL)                                 \
  LPGEN_FFI(SYMBOL##_check_weights, ffi_check_weights, KERNEL)

#define LPGEN_NETWORK(NAME, NETWORK)                                                         \
  PUBLIC size_t NAME##_arena_bytes(int threads) {                                            \
    return network_arena_bytes(NETWORK, threads);                                            \
  }                                                                                          \
  PUBLIC lpgen_status NAME##_run(const void *const *inputs, void *const *outputs,            \
                                 void *arena, size_t arena_bytes, int threads) {             \
    return network_run(NETWORK, inputs, outputs, arena, arena_bytes, threads, NULL);         \
  }                                                                                          \
  PUBLIC lpgen_status NAME##_run_steps(const void *const *inputs, void *const *outputs,      \
                                       void *arena, size_t arena_bytes, int threads,         \
                                       lpgen_steps *steps) {                                 \
    return network_run(NETWORK, inputs, outputs, arena, arena_bytes, threads, steps);        \
  }                                                                                          \
  PUBLIC lpgen_status NAME##_constant(size_t offset, void *data, size_t bytes) {             \
    return network_constant(NETWORK, offset, data, bytes);                                   \
  }                                                                                          \
  LPGEN_FFI(NAME##_run, ffi_network_run, NETWORK)                                            \
  LPGEN_FFI(NAME##_arena_bytes, ffi_arena_bytes, NETWORK)                                    \
  LPGEN_FFI(NAME##_constant, ffi_constant, NETWORK)

/* And of one whose constants lie in a file beside the library. */
#define LPGEN_WEIGHTS(NAME, NETWORK)                                                         \
  PUBLIC lpgen_status NAME##_map_weights(const char *path) {                                 \
    return network_map_weights(NETWORK, path);                                               \
  }                                                                                          \
  static __attribute__((destructor)) void NAME##_unmap(void) {                               \
    network_unmap_weights(NETWORK);                                                          \
  }                                                                                          \
  LPGEN_FFI(NAME##_map_weights, ffi_map_weights, NETWORK)

#endif
