/* What the header of a network promises, checked on one with an input and two outputs; the build
 * passes its names: -DNAME=model -DSIZES=MODEL and -include model.h. Arguments: files of the input
 * and of the outputs. Prints "ok", or the line that failed. */

#include "contract.h"

#define RUN JOIN(NAME, _run)
#define RUN_STEPS JOIN(NAME, _run_steps)
#define ARENA_BYTES JOIN(NAME, _arena_bytes)
#define X_BYTES JOIN(SIZES, _INPUT0_BYTES)
#define Y_BYTES JOIN(SIZES, _OUTPUT0_BYTES)
#define Z_BYTES JOIN(SIZES, _OUTPUT1_BYTES)
#define STEPS JOIN(SIZES, _STEPS)

enum { THREADS = 4, CALLERS = 4, CALLS = 50 };

static void *x, *y_expected, *z_expected;

static char *read_file(const char *name, size_t bytes) {
  char *memory = __libc_malloc(bytes);
  FILE *file = fopen(name, "rb");
  CHECK(file && fread(memory, bytes, 1, file) == 1);
  fclose(file);
  return memory;
}

static void results_are_exact(int threads) {
  size_t bytes = ARENA_BYTES(threads);
  char *y = guarded(Y_BYTES), *z = guarded(Z_BYTES), *arena = guarded(bytes);
  const void *inputs[] = {x};
  void *outputs[] = {y, z};
  for (int call = 0; call < 2; call++) {
    memset(y, 0x5A, Y_BYTES);
    CHECK(RUN(inputs, outputs, arena, bytes, threads) == LPGEN_OK);
    CHECK(memcmp(y, y_expected, Y_BYTES) == 0 && memcmp(z, z_expected, Z_BYTES) == 0);
  }
  CHECK(intact(y, Y_BYTES) && intact(z, Z_BYTES) && intact(arena, bytes));
  free(y - CANARY), free(z - CANARY), free(arena - CANARY);
}

static void steps_run_one_after_the_other(void) {
  size_t bytes = ARENA_BYTES(1);
  char *y = guarded(Y_BYTES), *z = guarded(Z_BYTES), *arena = guarded(bytes);
  const void *inputs[] = {x};
  void *outputs[] = {y, z};
  int64_t times[STEPS];
  memset(times, 0, sizeof times);
  for (int i = 0; i < STEPS; i++) {
    lpgen_steps steps = {i, i + 1, times, 7};
    CHECK(RUN_STEPS(inputs, outputs, arena, bytes, 1, &steps) == LPGEN_OK && steps.failed == -1);
    CHECK(times[i] > 0);
  }
  CHECK(memcmp(y, y_expected, Y_BYTES) == 0 && memcmp(z, z_expected, Z_BYTES) == 0);
  lpgen_steps none = {STEPS, STEPS, NULL, 0}, beyond = {0, STEPS + 1, NULL, 0};
  lpgen_steps negative = {-1, 1, NULL, 0}, backwards = {2, 1, NULL, 0};
  CHECK(RUN_STEPS(inputs, outputs, arena, bytes, 1, &none) == LPGEN_OK);
  CHECK(RUN_STEPS(inputs, outputs, arena, bytes, 1, &beyond) == LPGEN_STEPS);
  CHECK(RUN_STEPS(inputs, outputs, arena, bytes, 1, &negative) == LPGEN_STEPS);
  CHECK(RUN_STEPS(inputs, outputs, arena, bytes, 1, &backwards) == LPGEN_STEPS);
  free(y - CANARY), free(z - CANARY), free(arena - CANARY);
}

static void wrong_calls_are_errors(void) {
  size_t bytes = ARENA_BYTES(1);
  char *y = guarded(Y_BYTES), *z = guarded(Z_BYTES), *arena = guarded(bytes);
  const void *inputs[] = {x}, *no_input[] = {NULL}, *same[] = {y}, *in_arena[] = {arena};
  void *outputs[] = {y, z}, *no_output[] = {y, NULL}, *twice[] = {y, y}, *at[] = {y, arena};
  CHECK(RUN(NULL, outputs, arena, bytes, 1) == LPGEN_NULL_POINTER);
  CHECK(RUN(no_input, outputs, arena, bytes, 1) == LPGEN_NULL_POINTER);
  CHECK(RUN(inputs, NULL, arena, bytes, 1) == LPGEN_NULL_POINTER);
  CHECK(RUN(inputs, no_output, arena, bytes, 1) == LPGEN_NULL_POINTER);
  CHECK(RUN(inputs, outputs, NULL, bytes, 1) == LPGEN_NULL_POINTER);
  CHECK(RUN(inputs, outputs, arena, bytes - 1, 1) == LPGEN_ARENA_BYTES);
  CHECK(RUN(inputs, outputs, arena + 8, bytes, 1) == LPGEN_MISALIGNED);
  CHECK(RUN(inputs, outputs, arena, bytes, 0) == LPGEN_THREADS);
  CHECK(RUN(inputs, outputs, arena, bytes, 1025) == LPGEN_THREADS);
  CHECK(RUN(same, outputs, arena, bytes, 1) == LPGEN_OVERLAP);
  CHECK(RUN(in_arena, outputs, arena, bytes, 1) == LPGEN_OVERLAP);
  CHECK(RUN(inputs, twice, arena, bytes, 1) == LPGEN_OVERLAP);
  CHECK(RUN(inputs, at, arena, bytes, 1) == LPGEN_OVERLAP);
  CHECK(y[0] == (char)0xA5 && z[0] == (char)0xA5 && intact(arena, 0)); /* nothing was written */
  free(y - CANARY), free(z - CANARY), free(arena - CANARY);
}

static void *call_often(void *unused) {
  (void)unused;
  for (int call = 0; call < CALLS; call++) results_are_exact(1 + call % 2);
  return NULL;
}

static void callers_do_not_meet(void) {
  pthread_t callers[CALLERS];
  for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call_often, NULL);
  for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
}

static void nothing_is_allocated(void) {
  size_t bytes = ARENA_BYTES(1);
  char *y = guarded(Y_BYTES), *z = guarded(Z_BYTES), *arena = guarded(bytes);
  const void *inputs[] = {x};
  void *outputs[] = {y, z};
  int before = allocations;
  CHECK(RUN(inputs, outputs, arena, bytes, 1) == LPGEN_OK);
  CHECK(allocations == before);
  free(y - CANARY), free(z - CANARY), free(arena - CANARY);
}

int main(int count, char **arguments) {
  CHECK(count == 4);
  x = read_file(arguments[1], X_BYTES);
  y_expected = read_file(arguments[2], Y_BYTES);
  z_expected = read_file(arguments[3], Z_BYTES);
  nothing_is_allocated();
  results_are_exact(1);
  results_are_exact(THREADS);
  steps_run_one_after_the_other();
  wrong_calls_are_errors();
  callers_do_not_meet();
  puts("ok");
  return 0;
}
