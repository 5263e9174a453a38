/* A dense layer called from C: y = x W^T, exact. Build the library, then compile this with it:
 *
 *   lpgen build "dense m=2 n=3 k=4 act=u8 weight=s8" -o dense.so
 *   cc dense.c ./dense.so -o dense && ./dense
 */

#include <stdio.h>
#include <stdlib.h>

#include "dense.h"

/* The names in dense.h: the kernel's, and in capitals for its sizes. */
#define KERNEL lpgen_dense_2x3x4_u8s8_ec942e
#define PACK_WEIGHTS lpgen_dense_2x3x4_u8s8_ec942e_pack_weights
#define CHECK_WEIGHTS lpgen_dense_2x3x4_u8s8_ec942e_check_weights
#define SIZE(name) LPGEN_DENSE_2X3X4_U8S8_EC942E_##name

/* Packed weights and workspaces start on a 64-byte boundary. */
static void *aligned(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static void check(lpgen_status status) {
  if (status == LPGEN_OK) return;
  const char *missing = status == LPGEN_CPU ? lpgen_missing_features() : NULL;
  fprintf(stderr, "%s: %s\n", lpgen_status_message(status), missing ? missing : "");
  exit(1);
}

int main(void) {
  enum { THREADS = 2 };
  const uint8_t x[2][4] = {{1, 2, 3, 4}, {255, 255, 255, 255}};
  const int8_t weights[3][4] = {{1, 1, 1, 1}, {-128, -128, -128, -128}, {1, -2, 3, -4}};
  int32_t y[2][3];
  size_t workspace_bytes = SIZE(WORKSPACE_BYTES(THREADS));
  void *packed = aligned(SIZE(PACKED_BYTES)), *workspace = aligned(workspace_bytes);

  /* Once for each set of weights: */
  check(PACK_WEIGHTS(&weights[0][0], sizeof weights, packed, SIZE(PACKED_BYTES)));
  /* They may be saved with their header, and are to be checked when they are read again:
   * check(CHECK_WEIGHTS(packed, SIZE(PACKED_BYTES))); */
  /* For each set of activations: */
  check(KERNEL(&x[0][0], sizeof x, packed, SIZE(PACKED_BYTES), &y[0][0], sizeof y, workspace,
               workspace_bytes, THREADS));

  for (int m = 0; m < 2; m++) printf("%d %d %d\n", y[m][0], y[m][1], y[m][2]);
  free(packed);
  free(workspace);
  return 0;
}
