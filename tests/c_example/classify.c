/* An image classified by a network, with nothing but the C library. Make the library first:
 *
 *   lpgen compile classifier.onnx -o classifier.so
 *   cc classify.c ./classifier.so -o classify && ./classify image.raw
 *
 * image.raw holds the input's numbers as the header says (float or uint8_t, one behind the other).
 * Prints the classes of the five largest scores, the best first. */

#include <stdio.h>
#include <stdlib.h>

#include "classifier.h"

enum { THREADS = 2, SHOWN = 5, CLASSES = CLASSIFIER_OUTPUT0_BYTES / sizeof(float) };

static float scores[CLASSES];

int main(int count, char **arguments) {
  FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
  void *image = malloc(CLASSIFIER_INPUT0_BYTES);
  if (!file || !image || fread(image, CLASSIFIER_INPUT0_BYTES, 1, file) != 1) {
    fprintf(stderr, "usage: %s IMAGE of %zu bytes\n", arguments[0], CLASSIFIER_INPUT0_BYTES);
    return 1;
  }
  fclose(file);

  /* Scratch memory of the whole network, on a 64-byte boundary; one for each thread that calls. */
  size_t bytes = classifier_arena_bytes(THREADS);
  void *arena = aligned_alloc(64, (bytes + 64) / 64 * 64);

  const void *inputs[CLASSIFIER_INPUTS] = {image};
  void *outputs[CLASSIFIER_OUTPUTS] = {scores};
  lpgen_status status = classifier_run(inputs, outputs, arena, bytes, THREADS);
  if (status != LPGEN_OK) {
    const char *missing = status == LPGEN_CPU ? lpgen_missing_features() : NULL;
    fprintf(stderr, "%s: %s\n", lpgen_status_message(status), missing ? missing : "");
    return 1;
  }

  for (int shown = 0; shown < SHOWN && shown < CLASSES; shown++) {
    int best = 0;
    for (int i = 1; i < CLASSES; i++)
      if (scores[i] > scores[best]) best = i;
    printf("%d %.6g\n", best, scores[best]);
    scores[best] = -1e38f;
  }
  free(arena);
  free(image);
  return 0;
}
