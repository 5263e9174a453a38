/* What the header promises, checked on one kernel; the build passes its names:
 * -DKERNEL=lpgen_... -DSIZES=LPGEN_... and -include lib.h. Prints "ok", or the line that failed. */

#include "contract.h"

#include <sys/wait.h>
#include <unistd.h>

#define PACK JOIN(KERNEL, _pack_weights)
#define CHECK_WEIGHTS JOIN(KERNEL, _check_weights)
#define WORKSPACE JOIN(KERNEL, _workspace_bytes)
#define X_BYTES JOIN(SIZES, _X_BYTES)
#define WEIGHTS_BYTES JOIN(SIZES, _WEIGHTS_BYTES)
#define PACKED_BYTES JOIN(SIZES, _PACKED_BYTES)
#define Y_BYTES JOIN(SIZES, _Y_BYTES)
#define WORKSPACE_MACRO JOIN(SIZES, _WORKSPACE_BYTES)

enum { THREADS = 4 };

static uint8_t *x, *weights, *packed, *expected;

static int run(void *y, void *workspace, int threads) {
  return KERNEL((const void *)x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, workspace,
                WORKSPACE(threads), threads);
}

static void nothing_is_written_beyond_the_buffers(int threads) {
  size_t bytes = WORKSPACE(threads);
  char *y = guarded(Y_BYTES), *workspace = guarded(bytes);
  CHECK(bytes == WORKSPACE_MACRO(threads));
  CHECK(run(y, workspace, threads) == LPGEN_OK);
  CHECK(memcmp(y, expected, Y_BYTES) == 0);
  CHECK(intact(y, Y_BYTES) && intact(workspace, bytes) && intact(packed, PACKED_BYTES));
}

static void *a_serial_call_allocates_nothing(void *unused) {
  char *y = guarded(Y_BYTES), *workspace = guarded(WORKSPACE(1));
  int before = allocations;
  CHECK(run(y, workspace, 1) == LPGEN_OK);
  CHECK(allocations == before);
  return unused;
}

static void *many_calls(void *unused) {
  char *y = guarded(Y_BYTES), *workspace = guarded(WORKSPACE(THREADS));
  for (int i = 0; i < 60; i++) {
    memset(y, 0, Y_BYTES);
    int threads = 1 + i % THREADS;
    CHECK(run(y, workspace, threads) == LPGEN_OK);
    CHECK(memcmp(y, expected, Y_BYTES) == 0);
  }
  CHECK(intact(workspace, WORKSPACE(THREADS)));
  return unused;
}

static void callers_do_not_disturb_each_other(void) {
  pthread_t callers[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&callers[i], NULL, many_calls, NULL) == 0);
  for (int i = 0; i < 3; i++) CHECK(pthread_join(callers[i], NULL) == 0);
}

static void a_forked_child_goes_on(void) {
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    many_calls(NULL);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  many_calls(NULL);
}

static void wrong_calls_are_refused(void) {
  char *y = guarded(Y_BYTES), *w = guarded(WORKSPACE(1));
  size_t n = WORKSPACE(1);
#define CALL(x, xb, p, pb, y, yb, w, wb, t) \
  KERNEL((const void *)(x), xb, p, pb, (void *)(y), yb, w, wb, t)
  CHECK(CALL(NULL, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w, n, 1) == LPGEN_NULL_POINTER);
  CHECK(CALL(x, X_BYTES, NULL, PACKED_BYTES, y, Y_BYTES, w, n, 1) == LPGEN_NULL_POINTER);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, NULL, Y_BYTES, w, n, 1) == LPGEN_NULL_POINTER);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, NULL, n, 1) == LPGEN_NULL_POINTER);
  CHECK(CALL(x, X_BYTES - 1, packed, PACKED_BYTES, y, Y_BYTES, w, n, 1) == LPGEN_INPUT_BYTES);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES + 1, y, Y_BYTES, w, n, 1) == LPGEN_PACKED_BYTES);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, 0, w, n, 1) == LPGEN_OUTPUT_BYTES);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w, n - 1, 1) == LPGEN_WORKSPACE_BYTES);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w, n, 2) == LPGEN_WORKSPACE_BYTES);
  CHECK(CALL(x, X_BYTES, packed + 16, PACKED_BYTES, y, Y_BYTES, w, n, 1) == LPGEN_MISALIGNED);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w + 32, n, 1) == LPGEN_MISALIGNED);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w, n, 0) == LPGEN_THREADS);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, y, Y_BYTES, w, n, 1025) == LPGEN_THREADS);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, (char *)x + X_BYTES - 4, Y_BYTES, w, n, 1) ==
        LPGEN_OVERLAP);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, packed + PACKED_BYTES - 4, Y_BYTES, w, n, 1) ==
        LPGEN_OVERLAP);
  CHECK(CALL(x, X_BYTES, packed, PACKED_BYTES, w, Y_BYTES, w, n, 1) == LPGEN_OVERLAP);
  CHECK(PACK((const void *)weights, WEIGHTS_BYTES - 1, packed, PACKED_BYTES) ==
        LPGEN_WEIGHTS_BYTES);
  CHECK(PACK((const void *)weights, WEIGHTS_BYTES, packed, 1) == LPGEN_PACKED_BYTES);
  CHECK(PACK((const void *)weights, WEIGHTS_BYTES, packed + 1, PACKED_BYTES) == LPGEN_MISALIGNED);
  CHECK(PACK((const void *)(packed + PACKED_BYTES - 1), WEIGHTS_BYTES, packed, PACKED_BYTES) ==
        LPGEN_OVERLAP);
  weights[WEIGHTS_BYTES - 1] = 0x7F; /* no value of b1 or s4 */
  CHECK(PACK((const void *)weights, WEIGHTS_BYTES, packed, PACKED_BYTES) == LPGEN_WEIGHT_VALUE);
  CHECK(intact(y, Y_BYTES) && y[0] == (char)0xA5);
  for (int status = 0; status < 20; status++) CHECK(strlen(lpgen_status_message(status)) > 1);
  CHECK(strcmp(lpgen_status_message(-1), "unknown status") == 0);
  CHECK(strcmp(lpgen_status_message(99), "unknown status") == 0);
}

static void weights_of_others_are_refused(void) {
  char *y = guarded(Y_BYTES), *w = guarded(WORKSPACE(1));
  CHECK(CHECK_WEIGHTS(packed, PACKED_BYTES) == LPGEN_OK);
  CHECK(CHECK_WEIGHTS(packed, PACKED_BYTES - 1) == LPGEN_PACKED_BYTES);
  CHECK(CHECK_WEIGHTS(NULL, PACKED_BYTES) == LPGEN_NULL_POINTER);
  static const struct {
    size_t byte;
    int call, check;
  } changes[] = {
      {0, LPGEN_PACKED_HEADER, LPGEN_PACKED_HEADER},  /* magic */
      {8, LPGEN_PACKED_HEADER, LPGEN_PACKED_HEADER},  /* version */
      {23, LPGEN_PACKED_KERNEL, LPGEN_PACKED_KERNEL}, /* identity */
      {24, LPGEN_PACKED_KERNEL, LPGEN_PACKED_KERNEL}, /* size */
      {32, LPGEN_PACKED_LEVEL, LPGEN_PACKED_LEVEL},   /* CPU level */
      {48, LPGEN_OK, LPGEN_PACKED_DAMAGED},           /* checksum */
      {63, LPGEN_OK, LPGEN_PACKED_DAMAGED},
      {64, LPGEN_OK, LPGEN_PACKED_DAMAGED}, /* data */
      {PACKED_BYTES - 1, LPGEN_OK, LPGEN_PACKED_DAMAGED},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    packed[changes[i].byte] ^= 1;
    CHECK(run(y, w, 1) == changes[i].call);
    CHECK((int)CHECK_WEIGHTS(packed, PACKED_BYTES) == changes[i].check);
    packed[changes[i].byte] ^= 1;
  }
  CHECK(CHECK_WEIGHTS(packed, PACKED_BYTES) == LPGEN_OK);
}

static void *read_file(const char *path, size_t bytes) {
  uint8_t *memory = (uint8_t *)guarded(bytes) + 1; /* any address will do */
  FILE *file = fopen(path, "rb");
  CHECK(file && fread(memory, 1, bytes, file) == bytes);
  fclose(file);
  return memory;
}

int main(int argc, char **argv) {
  CHECK(argc == 4 && lpgen_missing_features() == NULL);
  x = read_file(argv[1], X_BYTES);
  weights = read_file(argv[2], WEIGHTS_BYTES);
  expected = read_file(argv[3], Y_BYTES);
  packed = guarded(PACKED_BYTES);
  CHECK(PACK((const void *)weights, WEIGHTS_BYTES, packed, PACKED_BYTES) == LPGEN_OK);
  a_serial_call_allocates_nothing(NULL);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, a_serial_call_allocates_nothing, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  for (int threads = 1; threads <= 9; threads++) nothing_is_written_beyond_the_buffers(threads);
  callers_do_not_disturb_each_other();
  a_forked_child_goes_on();
  weights_of_others_are_refused();
  wrong_calls_are_refused();
  printf("ok %s", lpgen_manifest());
  return 0;
}
