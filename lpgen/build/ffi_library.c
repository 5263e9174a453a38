/* The functions of the whole library for tvm-ffi. Places are those in the lists of the manifest. */

#include <string.h>

#include "ffi.h"

__attribute__((weak)) extern int TVMFFIStringFromByteArray(const TVMFFIByteArray *input,
                                                           TVMFFIAny *out);

#define LIBRARY_FFI(NAME)                                                                          \
  PUBLIC int __tvm_ffi_lpgen_##NAME(void *self, const TVMFFIAny *args, int32_t count,              \
                                    TVMFFIAny *result)

/* (cpu, ...) */
LIBRARY_FFI(set_affinity) {
  int cpus[MAX_THREADS];
  const char *name = "lpgen_set_affinity";
  (void)self;
  if (count > MAX_THREADS) return ffi_wrong_count(name, "(cpu, ...), up to 1024");
  for (int i = 0; i < count; i++) {
    if (args[i].type_index != kTVMFFIInt) return ffi_wrong_count(name, "(cpu, ...)");
    int64_t cpu = args[i].v_int64;
    cpus[i] = cpu < 0 || cpu > INT32_MAX ? -1 : (int)cpu;
  }
  return ffi_finish(name, lpgen_set_affinity(cpus, count), result);
}

static int return_text(const char *text, TVMFFIAny *result) {
  TVMFFIByteArray bytes = {text, strlen(text)};
  if (!TVMFFIStringFromByteArray) return -1;
  return TVMFFIStringFromByteArray(&bytes, result);
}

LIBRARY_FFI(manifest) {
  (void)self, (void)args, (void)count;
  return return_text(lpgen_manifest(), result);
}

/* "" when nothing is missing. */
LIBRARY_FFI(missing_features) {
  (void)self, (void)args, (void)count;
  const char *missing = lpgen_missing_features();
  return return_text(missing ? missing : "", result);
}

/* (name as uint8[bytes], ending in 0) */
LIBRARY_FFI(set_target) {
  const char *symbol = "lpgen_set_target", *name = count == 1 ? ffi_text(&args[0]) : NULL;
  (void)self;
  if (!name) return ffi_wrong_count(symbol, "(name as uint8[bytes], ending in 0)");
  return ffi_finish(symbol, lpgen_set_target(name), result);
}

/* "" when there is none. */
LIBRARY_FFI(target) {
  (void)self, (void)args, (void)count;
  const char *target = lpgen_target();
  return return_text(target ? target : "", result);
}

/* An argument within 0..of - 1, -1: it is none. */
static int place_of(const TVMFFIAny *args, int32_t count, int of) {
  int64_t place = count == 1 && args[0].type_index == kTVMFFIInt ? args[0].v_int64 : -1;
  return place >= 0 && place < of ? (int)place : -1;
}

/* (place of a target): what this CPU lacks for it, "": nothing. */
LIBRARY_FFI(lacking) {
  char text[1024] = "";
  int targets = 0;
  while (lpgen_built_for[targets].name) targets++;
  int place = place_of(args, count, targets);
  (void)self;
  if (place < 0) return ffi_wrong_count("lpgen_lacking", "(place of a target)");
  add_lacking(&lpgen_built_for[place], text, sizeof text);
  return return_text(text, result);
}

/* (place of a kernel): the place of its variant in use; past the last: there is none. */
LIBRARY_FFI(variant) {
  int kernels = 0, chosen = 0;
  while (lpgen_kernels[kernels]) kernels++;
  int place = place_of(args, count, kernels);
  (void)self;
  if (place < 0) return ffi_wrong_count("lpgen_variant", "(place of a kernel)");
  const struct kernel *kernel = lpgen_kernels[place];
  while (kernel->variants[chosen] && kernel->variants[chosen] != kernel->chosen) chosen++;
  return ffi_return_size((size_t)chosen, result);
}
