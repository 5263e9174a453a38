/* The checks behind every public function: a wrong call is an error code, never a crash. */

#include <stdlib.h>
#include <string.h>

#include "pool.h"

PUBLIC const char *lpgen_status_message(lpgen_status status) {
  static const char *const messages[LPGEN_STATUS_COUNT] = {
      [LPGEN_OK] = "ok",
      [LPGEN_NULL_POINTER] = "a pointer is NULL",
      [LPGEN_INPUT_BYTES] = "the size of an input is not what the header says",
      [LPGEN_OUTPUT_BYTES] = "the size of an output is not what the header says",
      [LPGEN_WEIGHTS_BYTES] = "weights_bytes is not the size of the weights (_WEIGHTS_BYTES)",
      [LPGEN_PACKED_BYTES] = "packed_bytes is not the size of the packed weights (_PACKED_BYTES)",
      [LPGEN_WORKSPACE_BYTES] = "workspace_bytes is less than _workspace_bytes(threads) says",
      [LPGEN_MISALIGNED] = "packed, workspace or arena does not start on a 64-byte boundary",
      [LPGEN_THREADS] = "threads is not within 1..1024",
      [LPGEN_WEIGHT_VALUE] = "a weight is not a value of its format (see the header)",
      [LPGEN_CPU] = "this CPU lacks instructions the kernel needs (lpgen_missing_features)",
      [LPGEN_OUT_OF_MEMORY] = "out of memory",
      [LPGEN_SCALAR_VALUE] = "a number is not within the limits that the header says",
      [LPGEN_PARAMETER_BYTES] = "a parameter's size is not what the header says",
      [LPGEN_PARAMETER_VALUE] = "a parameter is not a number, not within its limits, or no bfloat16",
      [LPGEN_AFFINITY] = "a CPU is one that this process may not use",
      [LPGEN_ENVIRONMENT] = "LPGEN_AFFINITY, LPGEN_SPIN_US or LPGEN_TASK_US is not as in the header",
      [LPGEN_ARENA_BYTES] = "arena_bytes is less than _arena_bytes(threads) says",
      [LPGEN_WEIGHTS_FILE] = "the file of weights cannot be read, or is of another library",
      [LPGEN_WEIGHTS_UNMAPPED] = "the weights lie beside the library: call _map_weights before",
      [LPGEN_TARGET] = "LPGEN_TARGET or lpgen_set_target names no target inside (lpgen_targets)",
      [LPGEN_STEPS] = "first..last are no steps of the network",
      [LPGEN_OUTLIER_ORDER] = "outlier_indptr does not ascend from 0, or indices of a channel do not",
      [LPGEN_OVERLAP] = "what is written overlaps another argument in memory",
      [LPGEN_PACKED_HEADER] = "packed does not begin as weights do that _pack_weights wrote",
      [LPGEN_PACKED_KERNEL] = "packed holds weights of another kernel or build",
      [LPGEN_PACKED_LEVEL] = "packed holds weights for another CPU level",
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

/* Of a tensor with so many rows, where they are not fixed. */
size_t argument_bytes(const struct argument *argument, int32_t rows) {
  size_t bytes = tensor_bytes(&argument->tensor);
  return argument->by_rows ? bytes / (size_t)argument->tensor.shape[0] * (size_t)rows : bytes;
}

static size_t workspace_bytes_of(const struct variant *variant, int threads) {
  if (threads < 1) threads = 1;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  return variant->serial_bytes + (size_t)threads * variant->thread_bytes;
}

size_t kernel_workspace_bytes(const struct kernel *kernel, int threads) {
  return workspace_bytes_of(kernel->chosen ? kernel->chosen : kernel->variants[0], threads);
}

int misaligned(const void *pointer, uintptr_t alignment) {
  return (uintptr_t)pointer % alignment != 0;
}

int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes) {
  uintptr_t first = (uintptr_t)a, second = (uintptr_t)b;
  return first < second + b_bytes && second < first + a_bytes;
}

static lpgen_status check_value(const struct argument *argument, struct value given,
                                int32_t rows) {
  if (argument->role == SCALAR) {
    int fits = given.number >= argument->min && given.number <= argument->max;
    return fits ? LPGEN_OK : LPGEN_SCALAR_VALUE;
  }
  static const lpgen_status statuses[] = {
      [INPUT] = LPGEN_INPUT_BYTES, [PACKED] = LPGEN_PACKED_BYTES, [OUTPUT] = LPGEN_OUTPUT_BYTES};
  if (!given.data) return LPGEN_NULL_POINTER;
  if (given.bytes != argument_bytes(argument, rows)) return statuses[argument->role];
  return misaligned(given.data, argument->alignment) ? LPGEN_MISALIGNED : LPGEN_OK;
}

/* Whether an output shares memory with another argument or the workspace. */
static int outputs_overlap(const struct kernel *kernel, const struct value *given,
                           const void *workspace, size_t workspace_bytes) {
  for (int i = 0; i < kernel->count; i++) {
    if (kernel->arguments[i].role != OUTPUT) continue;
    for (int j = 0; j < kernel->count; j++)
      if (j != i && kernel->arguments[j].role != SCALAR &&
          overlap(given[i].data, given[i].bytes, given[j].data, given[j].bytes))
        return 1;
    if (workspace_bytes > 0 && overlap(given[i].data, given[i].bytes, workspace, workspace_bytes))
      return 1;
  }
  return 0;
}

static int32_t rows_of(const struct kernel *kernel, const struct value *given) {
  return kernel->rows < 0 ? 0 : given[kernel->rows].number;
}

/* Nanoseconds of a call with so many rows, between those with the fewest and with the most. */
static int64_t work_of(const struct kernel *kernel, const struct variant *variant, int32_t rows) {
  if (kernel->rows < 0) return variant->work;
  const struct argument *range = &kernel->arguments[kernel->rows];
  int64_t more = (variant->work - variant->least_work) / (range->max - range->min);
  return variant->least_work + more * (rows - range->min);
}

lpgen_status kernel_run(const struct kernel *kernel, const struct value *given, void *workspace,
                        size_t workspace_bytes, int threads) {
  const struct variant *variant = kernel->chosen;
  if (!variant) return kernel_refusal(kernel);
  if (threads < 1 || threads > MAX_THREADS) return LPGEN_THREADS;
  if (threads > 1 && pool_settings.wrong) return LPGEN_ENVIRONMENT;
  size_t needed = workspace_bytes_of(variant, threads);
  int32_t rows = rows_of(kernel, given);
  if (kernel->rows >= 0) { /* before the sizes that depend on it */
    lpgen_status status = check_value(&kernel->arguments[kernel->rows], given[kernel->rows], 0);
    if (status != LPGEN_OK) return status;
  }
  for (int i = 0; i < kernel->count; i++) {
    lpgen_status status = check_value(&kernel->arguments[i], given[i], rows);
    if (status != LPGEN_OK) return status;
  }
  if (needed > 0 && !workspace) return LPGEN_NULL_POINTER;
  if (workspace_bytes < needed) return LPGEN_WORKSPACE_BYTES;
  if (needed > 0 && misaligned(workspace, ALIGNMENT)) return LPGEN_MISALIGNED;
  if (outputs_overlap(kernel, given, workspace, needed)) return LPGEN_OVERLAP;
  if (kernel->packed >= 0) {
    lpgen_status status = packed_belongs(variant, given[kernel->packed].data);
    if (status != LPGEN_OK) return status;
  }
  int64_t work = work_of(kernel, variant, rows);
  int32_t failed = call_kernel(variant, given, work, workspace, needed, threads);
  return failed ? LPGEN_OUT_OF_MEMORY : LPGEN_OK;
}

static int bytes_legal(const uint64_t *set, const uint8_t *bytes, size_t count) {
  uint64_t legal = 1;
  for (size_t i = 0; i < count; i++) legal &= set[bytes[i] / 64] >> bytes[i] % 64;
  return (int)legal;
}

static int parameter_legal(const struct parameter *parameter, const void *data) {
  if (parameter->set) return bytes_legal(parameter->set, data, tensor_bytes(&parameter->tensor));
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

/* indptr ascends from 0 and the indices of a channel ascend; their limits are checked already.
 * given: outlier_data, outlier_indices, outlier_indptr, which has `starts` elements. */
static int outliers_legal(const struct value *given, int64_t starts) {
  const int32_t *indices = given[1].data, *indptr = given[2].data;
  if (indptr[0] != 0) return 0;
  for (int64_t channel = 0; channel + 1 < starts; channel++) {
    if (indptr[channel + 1] < indptr[channel]) return 0;
    for (int64_t i = indptr[channel] + 1; i < indptr[channel + 1]; i++)
      if (indices[i] <= indices[i - 1]) return 0;
  }
  return 1;
}

static lpgen_status check_parameters(const struct kernel *kernel, const struct value *given,
                                     const void *packed, size_t packed_bytes) {
  const struct parameter *parameters = kernel->parameters;
  for (int i = 0; i < kernel->parameter_count; i++) {
    if (!given[i].data) return LPGEN_NULL_POINTER;
    if (given[i].bytes != tensor_bytes(&parameters[i].tensor))
      return parameters[i].set ? LPGEN_WEIGHTS_BYTES : LPGEN_PARAMETER_BYTES;
    if (overlap(packed, packed_bytes, given[i].data, given[i].bytes)) return LPGEN_OVERLAP;
    if (!parameter_legal(&parameters[i], given[i].data))
      return parameters[i].set ? LPGEN_WEIGHT_VALUE : LPGEN_PARAMETER_VALUE;
  }
  int first = kernel->outliers;
  if (first >= 0 && !outliers_legal(&given[first], parameters[first + 2].tensor.shape[0]))
    return LPGEN_OUTLIER_ORDER;
  return LPGEN_OK;
}

lpgen_status kernel_pack(const struct kernel *kernel, const struct value *given, void *packed,
                         size_t packed_bytes) {
  const struct variant *variant = kernel->chosen;
  if (!variant) return kernel_refusal(kernel);
  struct value whole = {packed, packed_bytes, 0};
  lpgen_status status = check_value(&kernel->arguments[kernel->packed], whole, 0);
  if (status == LPGEN_OK) status = check_parameters(kernel, given, packed, packed_bytes);
  if (status != LPGEN_OK) return status;
  void *scratch = NULL;
  if (variant->pack_bytes > 0) {
    scratch = aligned_alloc(ALIGNMENT, variant->pack_bytes);
    if (!scratch) return LPGEN_OUT_OF_MEMORY;
  }
  memset(packed, 0, packed_bytes); /* between its sections, too: equal weights, equal bytes */
  int32_t failed = call_packer(variant, given, packed_data(packed), scratch, variant->pack_bytes);
  free(scratch);
  if (failed) return LPGEN_OUT_OF_MEMORY;
  packed_sign(variant, packed);
  return LPGEN_OK;
}
