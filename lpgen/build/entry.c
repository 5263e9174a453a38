/* The checks behind every public function: a wrong call is an error code, never a crash. */

#include <stdlib.h>
#include <string.h>

#include "pool.h"

PUBLIC const char *lpgen_status_message(lpgen_status status) {
  static const char *const messages[LPGEN_STATUS_COUNT] = {
      [LPGEN_OK] = "ok",
      [LPGEN_NULL_POINTER] = "a pointer is NULL",
      [LPGEN_X_BYTES] = "x_bytes is not the size of x (the header's _X_BYTES)",
      [LPGEN_Y_BYTES] = "y_bytes is not the size of y (the header's _Y_BYTES)",
      [LPGEN_WEIGHTS_BYTES] = "weights_bytes is not the size of the weights (_WEIGHTS_BYTES)",
      [LPGEN_PACKED_BYTES] = "packed_bytes is not the size of the packed weights (_PACKED_BYTES)",
      [LPGEN_WORKSPACE_BYTES] = "workspace_bytes is less than _workspace_bytes(threads) says",
      [LPGEN_MISALIGNED] = "packed or workspace does not start on a 64-byte boundary",
      [LPGEN_THREADS] = "threads is not within 1..1024",
      [LPGEN_WEIGHT_VALUE] = "a weight is not a value of its format (see the header)",
      [LPGEN_CPU] = "this CPU lacks instructions the kernel needs (lpgen_missing_features)",
      [LPGEN_OUT_OF_MEMORY] = "out of memory",
      [LPGEN_RESIDUAL_BYTES] = "residual_bytes is not the size of the residual (_RESIDUAL_BYTES)",
      [LPGEN_PARAMETER_BYTES] = "a parameter's size is not what the header says",
      [LPGEN_PARAMETER_VALUE] = "a parameter is not a number, not within its limits, or no bfloat16",
      [LPGEN_AFFINITY] = "a CPU is one that this process may not use",
      [LPGEN_ENVIRONMENT] = "LPGEN_AFFINITY, LPGEN_SPIN_US or LPGEN_TASK_US is not as in the header",
      [LPGEN_OUTLIER_ORDER] = "outlier_indptr does not ascend from 0, or indices of a channel do not",
      [LPGEN_OVERLAP] = "what is written, y or packed, overlaps another argument in memory",
      [LPGEN_PACKED_HEADER] = "packed does not begin as weights do that _pack_weights wrote",
      [LPGEN_PACKED_KERNEL] = "packed holds weights of another kernel, CPU level or build",
      [LPGEN_PACKED_DAMAGED] = "the packed weights are damaged: their checksum differs",
  };
  if ((int)status < 0 || status >= LPGEN_STATUS_COUNT) return "unknown status";
  return messages[status];
}

size_t tensor_bytes(const struct tensor *tensor) {
  size_t bytes = (size_t)tensor->bits / 8;
  for (int i = 0; i < tensor->ndim; i++) bytes *= (size_t)tensor->shape[i];
  return bytes;
}

size_t kernel_workspace_bytes(const struct kernel *kernel, int threads) {
  if (threads < 1) threads = 1;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  return kernel->serial_bytes + (size_t)threads * kernel->thread_bytes;
}

static int misaligned(const void *pointer) { return (uintptr_t)pointer % ALIGNMENT != 0; }

static int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
  uintptr_t first = (uintptr_t)a, second = (uintptr_t)b;
  return first < second + b_bytes && second < first + a_bytes;
}

lpgen_status kernel_run(const struct kernel *kernel, const void *x, size_t x_bytes,
                        const void *packed, size_t packed_bytes, const void *residual,
                        size_t residual_bytes, void *y, size_t y_bytes, void *workspace,
                        size_t workspace_bytes, int threads) {
  if (!cpu_runs(kernel)) return LPGEN_CPU;
  if (threads < 1 || threads > MAX_THREADS) return LPGEN_THREADS;
  if (threads > 1 && pool_settings.wrong) return LPGEN_ENVIRONMENT;
  size_t needed = kernel_workspace_bytes(kernel, threads);
  int adds = kernel->residual.name != NULL;
  if (!x || !packed || !y || (needed > 0 && !workspace)) return LPGEN_NULL_POINTER;
  if (adds && !residual) return LPGEN_NULL_POINTER;
  if (x_bytes != tensor_bytes(&kernel->x)) return LPGEN_X_BYTES;
  if (packed_bytes != tensor_bytes(&kernel->packed)) return LPGEN_PACKED_BYTES;
  if (adds && residual_bytes != tensor_bytes(&kernel->residual)) return LPGEN_RESIDUAL_BYTES;
  if (y_bytes != tensor_bytes(&kernel->y)) return LPGEN_Y_BYTES;
  if (workspace_bytes < needed) return LPGEN_WORKSPACE_BYTES;
  if (misaligned(packed) || (needed > 0 && misaligned(workspace))) return LPGEN_MISALIGNED;
  if (overlap(y, y_bytes, x, x_bytes) || overlap(y, y_bytes, packed, packed_bytes) ||
      (adds && overlap(y, y_bytes, residual, residual_bytes)) ||
      (needed > 0 && overlap(y, y_bytes, workspace, needed)))
    return LPGEN_OVERLAP;
  lpgen_status status = packed_belongs(kernel, packed);
  if (status != LPGEN_OK) return status;
  packed = packed_data(packed);
  int32_t failed = call_kernel(kernel, x, packed, residual, y, workspace, needed, threads);
  return failed ? LPGEN_OUT_OF_MEMORY : LPGEN_OK;
}

static int weights_legal(const struct kernel *kernel, const void *weights) {
  size_t count = tensor_bytes(&kernel->weights);
  const uint8_t *bytes = weights;
  uint64_t legal = 1;
  for (size_t i = 0; i < count; i++)
    legal &= kernel->weight_values[bytes[i] / 64] >> bytes[i] % 64;
  return (int)legal;
}

static int parameter_legal(const struct parameter *parameter, const void *data) {
  size_t count = tensor_bytes(&parameter->tensor) * 8 / (size_t)parameter->tensor.bits;
  int type = parameter->tensor.type, bytes = parameter->tensor.bits == 8;
  for (size_t i = 0; i < count; i++) {
    double value = type == REAL       ? (double)((const float *)data)[i]
                   : type == UNSIGNED ? (double)((const uint8_t *)data)[i]
                   : bytes            ? (double)((const int8_t *)data)[i]
                                      : (double)((const int32_t *)data)[i];
    if (!(value >= parameter->min && value <= parameter->max)) return 0; /* nor is NaN */
    if (parameter->zeros && ((const uint32_t *)data)[i] & parameter->zeros) return 0;
  }
  return 1;
}

/* indptr ascends from 0 and the indices of a channel ascend; their limits are checked already. */
static int outliers_legal(const struct parameter *indptr, const void *const *inputs) {
  const int32_t *indices = inputs[1], *starts = inputs[2];
  if (starts[0] != 0) return 0;
  for (int64_t channel = 0; channel + 1 < indptr->tensor.shape[0]; channel++) {
    if (starts[channel + 1] < starts[channel]) return 0;
    for (int64_t i = starts[channel] + 1; i < starts[channel + 1]; i++)
      if (indices[i] <= indices[i - 1]) return 0;
  }
  return 1;
}

lpgen_status kernel_pack(const struct kernel *kernel, const void *const *inputs,
                         const size_t *bytes, void *packed, size_t packed_bytes) {
  const struct parameter *parameters = kernel->parameters;
  if (!cpu_runs(kernel)) return LPGEN_CPU;
  if (!inputs[0] || !packed) return LPGEN_NULL_POINTER;
  if (bytes[0] != tensor_bytes(&kernel->weights)) return LPGEN_WEIGHTS_BYTES;
  if (packed_bytes != tensor_bytes(&kernel->packed)) return LPGEN_PACKED_BYTES;
  if (misaligned(packed)) return LPGEN_MISALIGNED;
  if (overlap(packed, packed_bytes, inputs[0], bytes[0])) return LPGEN_OVERLAP;
  for (int i = 0; parameters[i].tensor.name; i++) {
    if (!inputs[i + 1]) return LPGEN_NULL_POINTER;
    if (bytes[i + 1] != tensor_bytes(&parameters[i].tensor)) return LPGEN_PARAMETER_BYTES;
    if (overlap(packed, packed_bytes, inputs[i + 1], bytes[i + 1])) return LPGEN_OVERLAP;
    if (!parameter_legal(&parameters[i], inputs[i + 1])) return LPGEN_PARAMETER_VALUE;
  }
  int first = kernel->outliers;
  if (first >= 0 && !outliers_legal(&parameters[first + 2], &inputs[first + 1]))
    return LPGEN_OUTLIER_ORDER;
  if (!weights_legal(kernel, inputs[0])) return LPGEN_WEIGHT_VALUE;
  void *scratch = NULL;
  if (kernel->pack_bytes > 0) {
    scratch = aligned_alloc(ALIGNMENT, kernel->pack_bytes);
    if (!scratch) return LPGEN_OUT_OF_MEMORY;
  }
  memset(packed, 0, packed_bytes); /* between its sections, too: equal weights, equal bytes */
  void *data = (char *)packed + PACKED_HEADER;
  int32_t failed = call_packer(kernel, inputs, data, scratch, kernel->pack_bytes);
  free(scratch);
  if (failed) return LPGEN_OUT_OF_MEMORY;
  packed_sign(kernel, packed);
  return LPGEN_OK;
}
