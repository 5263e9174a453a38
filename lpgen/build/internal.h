/* What the parts of a library share. Every library is compiled from support.c, pool.c, affinity.c,
 * cpu.c, the cpu_*.c of its architecture, packed.c, entry.c, network.c, weights.c, ffi*.c and one
 * generated file that describes its kernels and its network; users see only the generated header. */

#ifndef LPGEN_INTERNAL_H
#define LPGEN_INTERNAL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define ALIGNMENT 64
#define PACKED_HEADER 64 /* bytes in front of the data of packed weights */
#define MAX_THREADS 1024
#define MAX_NDIM 6
#define MAX_ARGUMENTS 20 /* of a kernel, and of its packer */

#define PUBLIC __attribute__((visibility("default")))

/* In the order of the messages in entry.c; the generated header repeats them. */
typedef enum {
  LPGEN_OK,
  LPGEN_NULL_POINTER,
  LPGEN_INPUT_BYTES,
  LPGEN_OUTPUT_BYTES,
  LPGEN_WEIGHTS_BYTES,
  LPGEN_PACKED_BYTES,
  LPGEN_WORKSPACE_BYTES,
  LPGEN_MISALIGNED,
  LPGEN_THREADS,
  LPGEN_WEIGHT_VALUE,
  LPGEN_CPU,
  LPGEN_OUT_OF_MEMORY,
  LPGEN_SCALAR_VALUE,
  LPGEN_PARAMETER_BYTES,
  LPGEN_PARAMETER_VALUE,
  LPGEN_OUTLIER_ORDER,
  LPGEN_OVERLAP,
  LPGEN_PACKED_HEADER,
  LPGEN_PACKED_KERNEL,
  LPGEN_PACKED_LEVEL,
  LPGEN_PACKED_DAMAGED,
  LPGEN_AFFINITY,
  LPGEN_ENVIRONMENT,
  LPGEN_ARENA_BYTES,
  LPGEN_STEPS,
  LPGEN_WEIGHTS_FILE,
  LPGEN_WEIGHTS_UNMAPPED,
  LPGEN_TARGET,
  LPGEN_STATUS_COUNT
} lpgen_status;

enum { SIGNED, UNSIGNED, REAL }; /* as DLPack numbers them */

/* A dense row-major tensor of 8- or 32-bit numbers. */
struct tensor {
  const char *name; /* NULL: there is none */
  int type, bits, ndim;
  int64_t shape[MAX_NDIM];
};

/* An argument of a kernel. */
struct argument {
  enum { INPUT, PACKED, SCALAR, OUTPUT } role;
  struct tensor tensor; /* PACKED: with its header; SCALAR: its name, of no dimensions */
  uintptr_t alignment;  /* bytes of which its address is a multiple */
  int32_t min, max;     /* of a SCALAR */
  int by_rows;          /* its first extent is the kernel's scalar `rows`; in `tensor` the largest */
};

/* What a call gives for an argument: a tensor's address and bytes, or a number. */
struct value {
  void *data;
  size_t bytes;
  int32_t number;
};

/* What is packed: the weights or a parameter, the limits of its values, bits of them that have to
 * be 0, and of weights the set of legal bytes. */
struct parameter {
  struct tensor tensor;
  double min, max;
  uint32_t zeros;
  const uint64_t *set; /* bit b % 64 of word b / 64; NULL: all within the limits */
};

/* A CPU that a library is built for. */
struct target {
  const char *name, *level;
  const char *const *features; /* in LLVM's spelling, ended by NULL */
  int runs;                    /* whether this CPU has all of them (cpu.c) */
};

/* A kernel for one target. */
struct variant {
  const struct target *target;
  uint64_t identity;           /* of the operator, its template, knobs, and their packer */
  size_t packed_bytes;         /* of packed weights, without their header */
  size_t serial_bytes, thread_bytes; /* workspace: once, and for each thread */
  size_t pack_bytes;                 /* scratch memory of the packer */
  int64_t work;                      /* nanoseconds of a call on one thread, about */
  int64_t least_work;                /* the same with the fewest rows, if they are an argument */
  int pieces;                        /* into how many its work can be shared */
  int32_t (*run)(const struct value *given, int32_t threads);
  int32_t (*pack)(const struct value *given, void *packed);
};

/* A kernel as its callers know it: the first of its variants that the CPU runs, or the one for the
 * target that is asked for. */
struct kernel {
  const char *symbol;
  const struct argument *arguments;
  int count;  /* of the arguments */
  int packed; /* which of them are the packed weights, or -1 */
  int rows;   /* which of them is the number of rows, or -1: it is fixed */
  const struct parameter *parameters; /* the weights and what is packed with them, in order */
  int parameter_count;
  int outliers; /* which of them is outlier_data, with its indices and indptr behind it; or -1 */
  const struct variant *const *variants; /* best first, ended by NULL */
  const struct variant *chosen;          /* NULL: none (cpu.c) */
};

/* Where a step finds what it gives for an argument. */
struct operand {
  enum { ARENA, GIVEN, WANTED, CONSTANT, NUMBER } place;
  int64_t at; /* bytes from the start; which input or output of the network; the number */
};

/* A call of a kernel; operands: for each of its arguments. */
struct step {
  const struct kernel *kernel;
  const struct operand *operands;
};

/* Steps in the order in which they run, with constants that are packed for one target. */
struct program {
  const struct step *steps;
  const void *constants;
  size_t constant_bytes;
  struct beside *beside; /* where the constants lie in a file, NULL: in the library */
};

/* A network; its kernels have variants for all targets of the library. Sizes are in bytes. */
struct network {
  const char *name;
  int step_count, input_count, output_count;
  const size_t *input_bytes, *output_bytes;
  size_t tensor_bytes; /* of the arena: in front of the workspace that all steps share */
  const struct program *programs; /* for each of lpgen_built_for */
};

/* The file of a program's constants: its SHA-256, and where it is mapped. */
struct beside {
  uint8_t digest[32];
  _Atomic(void *) mapped;
};

/* Steps first .. last - 1. nanoseconds: what each of them takes, NULL: not asked for; failed: the
 * one that failed, or -1. */
typedef struct {
  int first, last;
  int64_t *nanoseconds;
  int failed;
} lpgen_steps;

/* entry.c. given: for each argument, or for each parameter. */
size_t tensor_bytes(const struct tensor *tensor);
size_t argument_bytes(const struct argument *argument, int32_t rows);
size_t kernel_workspace_bytes(const struct kernel *kernel, int threads);
lpgen_status kernel_run(const struct kernel *kernel, const struct value *given, void *workspace,
                        size_t workspace_bytes, int threads);
lpgen_status kernel_pack(const struct kernel *kernel, const struct value *given, void *packed,
                         size_t packed_bytes);
int misaligned(const void *pointer, uintptr_t alignment);
int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes);
const char *lpgen_status_message(lpgen_status status);

/* network.c. steps: which of them, NULL: all. */
size_t network_arena_bytes(const struct network *network, int threads);
lpgen_status network_run(const struct network *network, const void *const *inputs,
                         void *const *outputs, void *arena, size_t arena_bytes, int threads,
                         lpgen_steps *steps);

/* For the target in use; where there is none that of the first, which can be looked at. */
const struct program *network_program(const struct network *network);

/* Copies constants of the program in use, for who checks them. */
lpgen_status network_constant(const struct network *network, size_t offset, void *data,
                              size_t bytes);

/* weights.c: maps the file of the constants; NULL: it is not mapped. */
lpgen_status network_map_weights(const struct network *network, const char *path);
void network_unmap_weights(const struct network *network);
const void *program_constants(const struct program *program);

/* packed.c. packed_belongs: LPGEN_OK if it begins as weights of this variant do, at the cost of a
 * few comparisons; packed_sign: writes that beginning, when all else is there. */
void *packed_data(void *packed);
lpgen_status packed_belongs(const struct variant *variant, const void *packed);
void packed_sign(const struct variant *variant, void *packed);
lpgen_status kernel_check_weights(const struct kernel *kernel, const void *packed,
                                  size_t packed_bytes);

/* cpu_*.c of the architecture: whether this CPU has an extension, by LLVM's name; 0 for one it does not know. */
int cpu_has(const char *name);

/* cpu.c. target_in_use: of lpgen_built_for, NULL: none; refusal: why, or why a kernel has no
 * variant for it; add_lacking: adds the features of a target that this CPU lacks to a text. */
const struct target *target_in_use(void);
void add_lacking(const struct target *target, char *text, size_t size);
lpgen_status target_refusal(void);
lpgen_status kernel_refusal(const struct kernel *kernel);
const char *lpgen_missing_features(void);
lpgen_status lpgen_set_target(const char *name);
const char *lpgen_target(void);

/* pool.c: CPUs for the workers, one on each; none: the default. */
lpgen_status lpgen_set_affinity(const int *cpus, int count);

/* support.c: calls a generated function with `bytes` of workspace at its disposal. */
int32_t call_kernel(const struct variant *variant, const struct value *given, int64_t work,
                    void *workspace, size_t bytes, int threads);
int32_t call_packer(const struct variant *variant, const struct value *given, void *packed,
                    void *workspace, size_t bytes);

/* The generated file. */
extern struct target lpgen_built_for[];      /* best first, ended by one without a name */
extern struct kernel *const lpgen_kernels[]; /* ended by NULL */
const char *lpgen_manifest(void);
const char *lpgen_targets(void);

#endif
