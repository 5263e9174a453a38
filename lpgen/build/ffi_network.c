/* The functions of a network for tvm-ffi: __tvm_ffi_NAME_run(inputs, outputs, arena, threads[, first,
 * last, nanoseconds]), each tensor an argument; __tvm_ffi_NAME_arena_bytes(threads);
 * __tvm_ffi_NAME_constant(offset, bytes), which copies constants; and, where these are in a file,
 * __tvm_ffi_NAME_map_weights(path). */

#include <stdio.h>
#include <string.h>

#include "ffi.h"

int ffi_arena_bytes(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result) {
  if (count != 1) return ffi_wrong_count(network->name, "(threads)");
  return ffi_return_size(network_arena_bytes(network, ffi_threads(&args[0])), result);
}

/* The data of a dense tensor of so many bytes, or NULL. */
static void *data_of(const TVMFFIAny *value, size_t bytes) {
  const DLTensor *tensor = ffi_tensor(value);
  if (!tensor || !ffi_is_dense(tensor) || tensor->device.device_type != kDLCPU) return NULL;
  size_t own = (size_t)tensor->dtype.bits / 8;
  for (int i = 0; i < tensor->ndim; i++) own *= (size_t)tensor->shape[i];
  return own >= bytes ? ffi_start(tensor) : NULL;
}

int ffi_network_run(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result) {
  int inputs = network->input_count, outputs = network->output_count, tensors = inputs + outputs;
  const char *expected = "(inputs, outputs, arena, threads[, first, last, nanoseconds])";
  if (count != tensors + 2 && count != tensors + 5) return ffi_wrong_count(network->name, expected);
  void *given[tensors + 1];
  for (int i = 0; i < tensors; i++) {
    size_t bytes = i < inputs ? network->input_bytes[i] : network->output_bytes[i - inputs];
    if (!(given[i] = data_of(&args[i], bytes))) return ffi_wrong_count(network->name, expected);
  }
  args += tensors;
  void *arena = data_of(&args[0], 0);
  size_t arena_bytes = arena ? (size_t)ffi_tensor(&args[0])->shape[0] : 0;
  lpgen_steps steps = {0, network->step_count, NULL, -1};
  if (count == tensors + 5) {
    steps.first = (int)args[2].v_int64, steps.last = (int)args[3].v_int64;
    steps.nanoseconds = data_of(&args[4], sizeof(int64_t) * (size_t)network->step_count);
  }
  lpgen_status status = network_run(network, (const void *const *)given, given + inputs, arena,
                                    arena_bytes, ffi_threads(&args[1]), &steps);
  char where[64];
  snprintf(where, sizeof where, "%.40s: step %d", network->name, steps.failed);
  return ffi_finish(steps.failed < 0 ? network->name : where, status, result);
}

int ffi_constant(const struct network *network, const TVMFFIAny *args, int count,
                 TVMFFIAny *result) {
  void *data = count == 2 && args[0].type_index == kTVMFFIInt ? data_of(&args[1], 1) : NULL;
  if (!data) return ffi_wrong_count(network->name, "(offset, uint8[bytes])");
  size_t bytes = (size_t)ffi_tensor(&args[1])->shape[0], offset = (size_t)args[0].v_int64;
  lpgen_status status = network_constant(network, offset, data, bytes);
  if (status == LPGEN_WEIGHTS_BYTES)
    return ffi_wrong_count(network->name, "an offset and a size within the constants");
  return ffi_finish(network->name, status, result);
}

int ffi_map_weights(const struct network *network, const TVMFFIAny *args, int count,
                    TVMFFIAny *result) {
  const char *path = count == 1 ? ffi_text(&args[0]) : NULL;
  if (!path)
    return ffi_wrong_count(network->name, "(path as uint8[bytes], ending in 0)");
  return ffi_finish(network->name, network_map_weights(network, path), result);
}
