/* Networks as nodes of ONNX Runtime: what the generated file says of them to ort.c. */

#ifndef LPGEN_ORT_H
#define LPGEN_ORT_H

#include "internal.h"

enum { MAX_AXES = 16 };

/* type: ONNX's number of the elements' type. */
struct ort_tensor {
  int type, ndim;
  int64_t shape[MAX_AXES];
};

/* name: the type of its node. */
struct ort_node {
  const struct network *network;
  const char *name;
  const struct ort_tensor *inputs, *outputs;
};

#endif
