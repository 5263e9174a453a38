/* The public functions of one kernel, in C and for tvm-ffi, as the generated file asks for them:
 * LPGEN_KERNEL(symbol, type of x, type of the weights, &its struct kernel). */

#ifndef LPGEN_FFI_H
#define LPGEN_FFI_H

#include <tvm/ffi/c_api.h>

#include "internal.h"

int ffi_run(const struct kernel *kernel, const TVMFFIAny *args, int count, TVMFFIAny *result);
int ffi_pack_weights(const struct kernel *kernel, const TVMFFIAny *args, int count,
                     TVMFFIAny *result);
int ffi_workspace_bytes(const struct kernel *kernel, const TVMFFIAny *args, int count,
                        TVMFFIAny *result);

#define LPGEN_FFI(NAME, FUNCTION, KERNEL)                                                      \
  PUBLIC int __tvm_ffi_##NAME(void *self, const TVMFFIAny *args, int32_t count,                \
                              TVMFFIAny *result) {                                             \
    (void)self;                                                                                \
    return FUNCTION(KERNEL, args, count, result);                                              \
  }

#define LPGEN_KERNEL(SYMBOL, X_TYPE, WEIGHTS_TYPE, KERNEL)                                     \
  PUBLIC lpgen_status SYMBOL(const X_TYPE *x, size_t x_bytes, const void *packed,              \
                             size_t packed_bytes, int32_t *y, size_t y_bytes, void *workspace, \
                             size_t workspace_bytes, int threads) {                            \
    return kernel_run(KERNEL, x, x_bytes, packed, packed_bytes, y, y_bytes, workspace,         \
                      workspace_bytes, threads);                                               \
  }                                                                                            \
  PUBLIC lpgen_status SYMBOL##_pack_weights(const WEIGHTS_TYPE *weights, size_t weights_bytes, \
                                            void *packed, size_t packed_bytes) {               \
    return kernel_pack(KERNEL, weights, weights_bytes, packed, packed_bytes);                  \
  }                                                                                            \
  PUBLIC size_t SYMBOL##_workspace_bytes(int threads) {                                        \
    return kernel_workspace_bytes(KERNEL, threads);                                            \
  }                                                                                            \
  LPGEN_FFI(SYMBOL, ffi_run, KERNEL)                                                           \
  LPGEN_FFI(SYMBOL##_pack_weights, ffi_pack_weights, KERNEL)                                   \
  LPGEN_FFI(SYMBOL##_workspace_bytes, ffi_workspace_bytes, KERNEL)

#endif
