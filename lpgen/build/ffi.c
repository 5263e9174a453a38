/* The functions of kernels for tvm-ffi: __tvm_ffi_NAME(x, packed, y[, workspace][, threads]), or
 * what else the arguments are; __tvm_ffi_NAME_pack_weights(weights, parameters in the header's
 * order, packed), and __tvm_ffi_NAME_check_weights(packed).
 *
 * Tensors are checked (type, dimensions, shape, contiguity) and named in the error. libtvm_ffi is
 * imported weakly: a plain C program neither has nor needs it. */

#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "ffi.h"

__attribute__((weak)) extern void TVMFFIErrorSetRaisedFromCStr(const char *kind,
                                                               const char *message);

static int fail(const char *kind, const char *message) {
  if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}

/* "[1, 56, 56, 64] int32" */
static void describe(char *text, size_t size, int ndim, const int64_t *shape, int code, int bits) {
  size_t at = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < ndim && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
  static const char *const types[] = {"int", "uint", "float"};
  const char *type = code >= 0 && code < 3 ? types[code] : "other type of ";
  if (at < size) snprintf(text + at, size - at, "] %s%d", type, bits);
}

int ffi_is_dense(const DLTensor *tensor) {
  if (!tensor->strides) return 1;
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; i >= 0; i--) {
    if (tensor->shape[i] != 1 && tensor->strides[i] != stride) return 0;
    stride *= tensor->shape[i];
  }
  return 1;
}

const DLTensor *ffi_tensor(const TVMFFIAny *value) {
  if (value->type_index == kTVMFFIDLTensorPtr) return value->v_ptr;
  if (value->type_index == kTVMFFITensor)
    return (const DLTensor *)((const char *)value->v_obj + sizeof(TVMFFIObject));
  return NULL;
}

void *ffi_start(const DLTensor *tensor) { return (char *)tensor->data + tensor->byte_offset; }

const char *ffi_text(const TVMFFIAny *value) {
  const DLTensor *tensor = ffi_tensor(value);
  if (!tensor || tensor->ndim != 1 || tensor->dtype.bits != 8 || tensor->shape[0] < 1) return NULL;
  if (tensor->device.device_type != kDLCPU || !ffi_is_dense(tensor)) return NULL;
  const char *text = ffi_start(tensor);
  return text[tensor->shape[0] - 1] ? NULL : text;
}

/* The data of argument `value`, or NULL with an error raised; first: the extent of its first axis,
 * 0: as expected. */
static void *checked(const TVMFFIAny *value, const struct tensor *expected, int64_t first,
                     const char *symbol) {
  char message[512], want[128], got[128];
  const DLTensor *tensor = ffi_tensor(value);
  if (!tensor) {
    snprintf(message, sizeof message, "%s: %s is not a tensor", symbol, expected->name);
    fail("TypeError", message);
    return NULL;
  }
  int code = expected->type;
  int same = tensor->dtype.code == code && tensor->dtype.bits == expected->bits &&
             tensor->dtype.lanes == 1 && tensor->ndim == expected->ndim;
  int64_t shape[MAX_NDIM];
  memcpy(shape, expected->shape, sizeof shape);
  if (first) shape[0] = first;
  for (int i = 0; same && i < expected->ndim; i++) same = tensor->shape[i] == shape[i];
  if (!same) {
    describe(want, sizeof want, expected->ndim, shape, code, expected->bits);
    describe(got, sizeof got, tensor->ndim, tensor->shape, tensor->dtype.code,
             tensor->dtype.bits);
    snprintf(message, sizeof message, "%s: %s is %s, expected %s", symbol, expected->name, got,
             want);
    fail("ValueError", message);
    return NULL;
  }
  int on_cpu = tensor->device.device_type == kDLCPU || tensor->device.device_type == kDLCUDAHost;
  if (!on_cpu || !ffi_is_dense(tensor) || !tensor->data) {
    snprintf(message, sizeof message, "%s: %s is not %s", symbol, expected->name,
             on_cpu ? "contiguous" : "in the CPU's memory");
    fail("ValueError", message);
    return NULL;
  }
  return ffi_start(tensor);
}

int ffi_finish(const char *symbol, lpgen_status status, TVMFFIAny *result) {
  char message[512];
  result->type_index = kTVMFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  if (status == LPGEN_OK) return 0;
  const char *more = status == LPGEN_CPU      ? lpgen_missing_features()
                     : status == LPGEN_TARGET ? lpgen_targets()
                                              : NULL;
  snprintf(message, sizeof message, "%s: %s%s%s", symbol, lpgen_status_message(status),
           more ? ": " : "", more ? more : "");
  return fail("RuntimeError", message);
}

int ffi_wrong_count(const char *symbol, const char *arguments) {
  char message[512];
  snprintf(message, sizeof message, "%s: expected the arguments %s", symbol, arguments);
  return fail("TypeError", message);
}

/* What a call with so many rows gives for a kernel's argument; -1 with an error raised. */
static int value_of(const struct argument *argument, const TVMFFIAny *arg, int32_t rows,
                    const char *symbol, struct value *value) {
  if (argument->role == SCALAR) {
    char message[512];
    if (arg->type_index == kTVMFFIInt) {
      int64_t number = arg->v_int64;
      if (number >= argument->min && number <= argument->max) {
        value->number = (int32_t)number;
        return 0;
      }
    }
    snprintf(message, sizeof message, "%s: %s is not an integer within %d..%d", symbol,
             argument->tensor.name, argument->min, argument->max);
    return fail("ValueError", message);
  }
  value->data = checked(arg, &argument->tensor, argument->by_rows ? rows : 0, symbol);
  value->bytes = argument_bytes(argument, rows);
  return value->data ? 0 : -1;
}

/* Another number or order of arguments than (x, packed, y[, workspace][, threads]). */
static int wrong_call(const struct kernel *kernel) {
  char text[512] = "(";
  for (int i = 0; i < kernel->count; i++) {
    strncat(text, kernel->arguments[i].tensor.name, sizeof text / MAX_ARGUMENTS - 4);
    strcat(text, i + 1 < kernel->count ? ", " : "");
  }
  strcat(text, "[, workspace][, threads])");
  return ffi_wrong_count(kernel->symbol, text);
}

/* An argument as a number of threads; what is none is outside of their limits. */
int ffi_threads(const TVMFFIAny *arg) {
  if (arg->type_index != kTVMFFIInt) return 0;
  int64_t threads = arg->v_int64;
  return threads > MAX_THREADS ? MAX_THREADS + 1 : threads < 0 ? 0 : (int)threads;
}

int ffi_run(const struct kernel *kernel, const TVMFFIAny *args, int count, TVMFFIAny *result) {
  int first = kernel->count; /* of the optional arguments */
  if (count < first || count > first + 2) return wrong_call(kernel);
  const DLTensor *workspace = count > first ? ffi_tensor(&args[first]) : NULL;
  int threads = 1, next = workspace ? first + 1 : first;
  if (next < count) {
    if (args[next].type_index != kTVMFFIInt || next + 1 < count) return wrong_call(kernel);
    threads = ffi_threads(&args[next]);
  }
  struct value given[MAX_ARGUMENTS];
  int32_t rows = 0;
  if (kernel->rows >= 0) { /* before the tensors whose shapes depend on it */
    const struct argument *argument = &kernel->arguments[kernel->rows];
    struct value *value = &given[kernel->rows];
    if (value_of(argument, &args[kernel->rows], 0, kernel->symbol, value)) return -1;
    rows = value->number;
  }
  for (int i = 0; i < kernel->count; i++)
    if (value_of(&kernel->arguments[i], &args[i], rows, kernel->symbol, &given[i])) return -1;

  size_t bytes = kernel_workspace_bytes(kernel, threads);
  void *memory = NULL, *own = NULL;
  if (workspace) {
    memory = ffi_start(workspace);
    if (!ffi_is_dense(workspace) || workspace->ndim != 1 || workspace->dtype.bits != 8 ||
        workspace->dtype.lanes != 1 || workspace->device.device_type != kDLCPU)
      return ffi_wrong_count(kernel->symbol, "workspace as uint8[bytes]");
    bytes = (size_t)workspace->shape[0];
  } else if (bytes > 0) {
    memory = own = aligned_alloc(ALIGNMENT, bytes);
    if (!own) return ffi_finish(kernel->symbol, LPGEN_OUT_OF_MEMORY, result);
  }
  lpgen_status status = kernel_run(kernel, given, memory, bytes, threads);
  free(own);
  return ffi_finish(kernel->symbol, status, result);
}

int ffi_pack_weights(const struct kernel *kernel, const TVMFFIAny *args, int count,
                     TVMFFIAny *result) {
  struct value given[MAX_ARGUMENTS], packed = {0};
  int parameters = kernel->parameter_count;
  if (count != parameters + 1)
    return ffi_wrong_count(kernel->symbol, "(weights, parameters in the header's order, packed)");
  for (int i = 0; i < parameters; i++) {
    const struct tensor *tensor = &kernel->parameters[i].tensor;
    given[i].data = checked(&args[i], tensor, 0, kernel->symbol);
    given[i].bytes = tensor_bytes(tensor);
    if (!given[i].data) return -1;
  }
  const struct argument *argument = &kernel->arguments[kernel->packed];
  if (value_of(argument, &args[parameters], 0, kernel->symbol, &packed)) return -1;
  lpgen_status status = kernel_pack(kernel, given, packed.data, packed.bytes);
  return ffi_finish(kernel->symbol, status, result);
}

int ffi_check_weights(const struct kernel *kernel, const TVMFFIAny *args, int count,
                      TVMFFIAny *result) {
  struct value packed = {0};
  if (count != 1) return ffi_wrong_count(kernel->symbol, "(packed)");
  const struct argument *argument = &kernel->arguments[kernel->packed];
  if (value_of(argument, &args[0], 0, kernel->symbol, &packed)) return -1;
  return ffi_finish(kernel->symbol, kernel_check_weights(kernel, packed.data, packed.bytes), result);
}

int ffi_return_size(size_t bytes, TVMFFIAny *result) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = (int64_t)bytes;
  return 0;
}

int ffi_workspace_bytes(const struct kernel *kernel, const TVMFFIAny *args, int count,
                        TVMFFIAny *result) {
  if (count != 1) return ffi_wrong_count(kernel->symbol, "(threads)");
  return ffi_return_size(kernel_workspace_bytes(kernel, ffi_threads(&args[0])), result);
}
