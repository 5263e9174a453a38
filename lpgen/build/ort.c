/* Networks of this library as nodes of ONNX Runtime: a custom-op library without its headers.
 *
 * OrtApi is a table of function pointers that only grows, so that an array of pointers and indices
 * are enough. OrtCustomOp begins with the version that it was written for, and a runtime reads no
 * field that came later. From version 16 on a kernel can return an error; older runtimes, down to
 * version 8 (1.8), get a line on stderr and an abort, as wrong numbers would be worse.
 * Included behind the tables of the generated file, which ort.h describes.
 * Source: include/onnxruntime/core/session/onnxruntime_c_api.h of ONNX Runtime, order of entries. */

#include <stdio.h>
#include <stdlib.h>

#include "pool.h"

enum { OLDEST = 8, WITH_STATUS = 16, FAILED = 1 };

enum { /* index in OrtApi */
  CREATE_STATUS = 0,
  CREATE_CUSTOM_OP_DOMAIN = 26,
  CUSTOM_OP_DOMAIN_ADD = 27,
  ADD_CUSTOM_OP_DOMAIN = 28,
  GET_TENSOR_MUTABLE_DATA = 51,
  GET_DIMENSIONS_COUNT = 61,
  GET_DIMENSIONS = 62,
  GET_TENSOR_TYPE_AND_SHAPE = 65,
  KERNEL_INFO_GET_ATTRIBUTE_INT64 = 86,
  KERNEL_CONTEXT_GET_INPUT = 90,
  KERNEL_CONTEXT_GET_OUTPUT = 91,
  RELEASE_STATUS = 93,
  RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99,
};

typedef struct ort_status ort_status; /* NULL: success */
typedef const void *const *ort_api;

typedef struct {
  ort_api (*get_api)(uint32_t version);
  const char *(*get_version)(void);
} ort_api_base;

struct op {
  uint32_t version;
  void *(*create)(const struct op *, ort_api, const void *info);
  const char *(*name)(const struct op *);
  const char *(*provider)(const struct op *);
  int (*input_type)(const struct op *, size_t);
  size_t (*input_count)(const struct op *);
  int (*output_type)(const struct op *, size_t);
  size_t (*output_count)(const struct op *);
  void (*compute)(void *kernel, void *context);
  void (*destroy)(void *kernel);
  int (*input_characteristic)(const struct op *, size_t);
  int (*output_characteristic)(const struct op *, size_t);
  /* From version 14 on. */
  int (*input_memory)(const struct op *, size_t);
  int (*variadic_input_least)(const struct op *);
  int (*variadic_input_alike)(const struct op *);
  int (*variadic_output_least)(const struct op *);
  int (*variadic_output_alike)(const struct op *);
  /* From version 16 on. */
  ort_status *(*create_with_status)(const struct op *, ort_api, const void *info, void **kernel);
  ort_status *(*compute_with_status)(void *kernel, void *context);
  const struct ort_node *node; /* ours, behind what the runtime reads for these versions */
};

/* A call in flight has an arena of its own; one is kept. */
struct node_kernel {
  const struct ort_node *node;
  ort_api api;
  int threads;
  size_t arena_bytes;
  _Atomic(void *) kept;
};

#define CALL(api, entry, ...) ((ort_status * (*)(__VA_ARGS__))(api)[entry])

static ort_status *failure(ort_api api, const char *message) {
  return CALL(api, CREATE_STATUS, int, const char *)(FAILED, message);
}

static ort_status *create_with_status(const struct op *op, ort_api api, const void *info,
                                      void **made) {
  struct node_kernel *kernel = calloc(1, sizeof *kernel);
  if (!kernel) return failure(api, "lpgen: out of memory");
  int64_t threads = 1;
  ort_status *absent = CALL(api, KERNEL_INFO_GET_ATTRIBUTE_INT64, const void *, const char *,
                            int64_t *)(info, "threads", &threads);
  if (absent) {
    ((void (*)(ort_status *))api[RELEASE_STATUS])(absent);
    threads = 1;
  }
  if (threads < 1 || threads > MAX_THREADS) {
    free(kernel);
    return failure(api, "lpgen: attribute threads is not within 1..1024");
  }
  kernel->node = op->node;
  kernel->api = api;
  kernel->threads = (int)threads;
  kernel->arena_bytes = network_arena_bytes(op->node->network, (int)threads);
  *made = kernel;
  return NULL;
}

static void destroy(void *made) {
  struct node_kernel *kernel = made;
  free(atomic_load(&kernel->kept));
  free(kernel);
}

/* Where the elements of an input lie; an error unless it has the shape that was compiled. */
static ort_status *input_data(ort_api api, void *value, const struct ort_tensor *expected,
                              const void **data) {
  void *info = NULL, *found = NULL;
  size_t count = 0;
  int64_t sizes[MAX_AXES];
  ort_status *status = CALL(api, GET_TENSOR_TYPE_AND_SHAPE, void *, void **)(value, &info);
  if (status) return status;
  status = CALL(api, GET_DIMENSIONS_COUNT, void *, size_t *)(info, &count);
  int same = !status && count == (size_t)expected->ndim && count <= MAX_AXES;
  if (same) status = CALL(api, GET_DIMENSIONS, void *, int64_t *, size_t)(info, sizes, count);
  for (size_t i = 0; same && !status && i < count; i++) same = sizes[i] == expected->shape[i];
  ((void (*)(void *))api[RELEASE_TENSOR_TYPE_AND_SHAPE_INFO])(info);
  if (status) return status;
  if (!same) return failure(api, "lpgen: an input has another shape than was compiled");
  status = CALL(api, GET_TENSOR_MUTABLE_DATA, void *, void **)(value, &found);
  *data = found;
  return status;
}

static ort_status *tensors(const struct node_kernel *kernel, void *context, const void **inputs,
                           void **outputs) {
  ort_api api = kernel->api;
  const struct ort_node *node = kernel->node;
  for (int i = 0; i < node->network->input_count; i++) {
    void *value = NULL;
    ort_status *status = CALL(api, KERNEL_CONTEXT_GET_INPUT, void *, size_t, void **)(
        context, (size_t)i, &value);
    if (!status) status = input_data(api, value, &node->inputs[i], &inputs[i]);
    if (status) return status;
  }
  for (int i = 0; i < node->network->output_count; i++) {
    void *value = NULL;
    const struct ort_tensor *output = &node->outputs[i];
    ort_status *status =
        CALL(api, KERNEL_CONTEXT_GET_OUTPUT, void *, size_t, const int64_t *, size_t, void **)(
            context, (size_t)i, output->shape, (size_t)output->ndim, &value);
    if (!status)
      status = CALL(api, GET_TENSOR_MUTABLE_DATA, void *, void **)(value, &outputs[i]);
    if (status) return status;
  }
  return NULL;
}

static ort_status *compute_with_status(void *made, void *context) {
  struct node_kernel *kernel = made;
  const struct network *network = kernel->node->network;
  const void *inputs[MAX_TENSORS];
  void *outputs[MAX_TENSORS];
  ort_status *status = tensors(kernel, context, inputs, outputs);
  if (status) return status;
  void *arena = atomic_exchange(&kernel->kept, NULL);
  size_t whole = (kernel->arena_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (!arena && whole > 0) arena = aligned_alloc(ALIGNMENT, whole);
  if (!arena && whole > 0) return failure(kernel->api, "lpgen: out of memory");
  lpgen_status done =
      network_run(network, inputs, outputs, arena, kernel->arena_bytes, kernel->threads, NULL);
  free(atomic_exchange(&kernel->kept, arena));
  return done == LPGEN_OK ? NULL : failure(kernel->api, lpgen_status_message(done));
}

/* The same for runtimes that take no status. */
static void *create(const struct op *op, ort_api api, const void *info) {
  void *kernel = NULL;
  if (create_with_status(op, api, info, &kernel)) {
    fprintf(stderr, "%s cannot be created\n", op->node->name);
    abort();
  }
  return kernel;
}

static void compute(void *kernel, void *context) {
  if (compute_with_status(kernel, context)) {
    fprintf(stderr, "%s failed\n", ((struct node_kernel *)kernel)->node->name);
    abort();
  }
}

static const char *name_of(const struct op *op) { return op->node->name; }
static const char *no_provider(const struct op *op) { return NULL; } /* the CPU */
static int input_type(const struct op *op, size_t i) { return op->node->inputs[i].type; }
static int output_type(const struct op *op, size_t i) { return op->node->outputs[i].type; }
static size_t input_count(const struct op *op) { return (size_t)op->node->network->input_count; }
static size_t output_count(const struct op *op) { return (size_t)op->node->network->output_count; }
static int required(const struct op *op, size_t i) { return 0; }
static int on_cpu(const struct op *op, size_t i) { return 0; }
static int one(const struct op *op) { return 1; }

PUBLIC ort_status *RegisterCustomOps(void *options, const ort_api_base *base) {
  static struct op ops[MAX_NODES];
  ort_api api = base->get_api(WITH_STATUS);
  uint32_t version = api ? WITH_STATUS : OLDEST;
  if (!api) api = base->get_api(OLDEST);
  if (!api) return NULL; /* older than any that has custom ops as these */
  void *domain = NULL;
  ort_status *status =
      CALL(api, CREATE_CUSTOM_OP_DOMAIN, const char *, void **)(ORT_DOMAIN, &domain);
  for (int i = 0; !status && ort_nodes[i].network; i++) {
    ops[i] = (struct op){
        version, create, name_of, no_provider, input_type, input_count, output_type, output_count,
        compute, destroy, required, required, on_cpu, one, one, one, one,
        create_with_status, compute_with_status, &ort_nodes[i]};
    status = CALL(api, CUSTOM_OP_DOMAIN_ADD, void *, struct op *)(domain, &ops[i]);
  }
  if (!status) status = CALL(api, ADD_CUSTOM_OP_DOMAIN, void *, void *)(options, domain);
  return status;
}
