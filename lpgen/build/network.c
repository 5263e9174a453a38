/* Runs a network: a table of steps on the caller's tensors, the caller's arena and constants. */

#define _GNU_SOURCE /* clock_gettime */
#include <string.h>
#include <time.h>

#include "pool.h"

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

const struct program *network_program(const struct network *network) {
  const struct target *target = target_in_use();
  return &network->programs[target ? target - lpgen_built_for : 0];
}

size_t network_arena_bytes(const struct network *network, int threads) {
  size_t workspace = 0;
  for (int i = 0; i < network->step_count; i++) { /* the kernels are those of all programs */
    size_t bytes = kernel_workspace_bytes(network->programs[0].steps[i].kernel, threads);
    workspace = bytes > workspace ? bytes : workspace;
  }
  return network->tensor_bytes + workspace;
}

/* Whether memory that is written is also memory of another tensor of the caller's, or the arena. */
static int shares_memory(const struct network *network, const void *const *inputs,
                         void *const *outputs, const void *arena, size_t arena_bytes) {
  const size_t *in = network->input_bytes, *out = network->output_bytes;
  for (int i = 0; i < network->input_count; i++)
    if (overlap(inputs[i], in[i], arena, arena_bytes)) return 1;
  for (int o = 0; o < network->output_count; o++) {
    if (overlap(outputs[o], out[o], arena, arena_bytes)) return 1;
    for (int i = 0; i < network->input_count; i++)
      if (overlap(outputs[o], out[o], inputs[i], in[i])) return 1;
    for (int other = 0; other < o; other++)
      if (overlap(outputs[o], out[o], outputs[other], out[other])) return 1;
  }
  return 0;
}

static int any_null(const void *const *pointers, int count) {
  if (count > 0 && !pointers) return 1;
  for (int i = 0; i < count; i++)
    if (!pointers[i]) return 1;
  return 0;
}

static lpgen_status check(const struct network *network, const void *const *inputs,
                          void *const *outputs, const void *arena, size_t arena_bytes, int threads,
                          const lpgen_steps *steps) {
  if (threads < 1 || threads > MAX_THREADS) return LPGEN_THREADS;
  if (threads > 1 && pool_settings.wrong) return LPGEN_ENVIRONMENT;
  if (steps->first < 0 || steps->first > steps->last || steps->last > network->step_count)
    return LPGEN_STEPS;
  if (!target_in_use()) return target_refusal();
  if (!program_constants(network_program(network))) return LPGEN_WEIGHTS_UNMAPPED;
  if (any_null(inputs, network->input_count)) return LPGEN_NULL_POINTER;
  if (any_null((const void *const *)outputs, network->output_count)) return LPGEN_NULL_POINTER;
  size_t needed = network_arena_bytes(network, threads);
  if (needed > 0 && !arena) return LPGEN_NULL_POINTER;
  if (arena_bytes < needed) return LPGEN_ARENA_BYTES;
  if (needed > 0 && misaligned(arena, ALIGNMENT)) return LPGEN_MISALIGNED;
  return shares_memory(network, inputs, outputs, arena, needed) ? LPGEN_OVERLAP : LPGEN_OK;
}

/* What a call has for the operands of its steps. */
struct places {
  const void *const *inputs;
  void *const *outputs;
  char *arena;
  const char *constants;
};

static int32_t number_at(const void *data) {
  int32_t number;
  memcpy(&number, data, sizeof number);
  return number;
}

static struct value value_at(const struct places *places, struct operand operand, int scalar) {
  if (scalar && operand.place == GIVEN)
    return (struct value){NULL, 0, number_at(places->inputs[operand.at])};
  switch (operand.place) {
    case GIVEN: return (struct value){(void *)places->inputs[operand.at], 0, 0};
    case WANTED: return (struct value){places->outputs[operand.at], 0, 0};
    case CONSTANT: return (struct value){(void *)(places->constants + operand.at), 0, 0};
    case NUMBER: return (struct value){NULL, 0, (int32_t)operand.at};
    default: return (struct value){places->arena + operand.at, 0, 0};
  }
}

/* Whether the numbers that steps take from inputs are within their limits; the first that does not
 * is steps->failed. */
static lpgen_status check_numbers(const struct program *program, const void *const *inputs,
                                  lpgen_steps *steps) {
  for (int i = steps->first; i < steps->last; i++) {
    const struct step *step = &program->steps[i];
    for (int a = 0; a < step->kernel->count; a++) {
      const struct argument *argument = &step->kernel->arguments[a];
      if (argument->role != SCALAR || step->operands[a].place != GIVEN) continue;
      int32_t number = number_at(inputs[step->operands[a].at]);
      if (number >= argument->min && number <= argument->max) continue;
      steps->failed = i;
      return LPGEN_SCALAR_VALUE;
    }
  }
  return LPGEN_OK;
}

lpgen_status network_run(const struct network *network, const void *const *inputs,
                         void *const *outputs, void *arena, size_t arena_bytes, int threads,
                         lpgen_steps *asked) {
  lpgen_steps all = {0, network->step_count, NULL, -1}, *steps = asked ? asked : &all;
  steps->failed = -1;
  lpgen_status status = check(network, inputs, outputs, arena, arena_bytes, threads, steps);
  const struct program *program = network_program(network);
  if (status == LPGEN_OK) status = check_numbers(program, inputs, steps);
  if (status != LPGEN_OK) return status;
  struct places places = {inputs, outputs, arena, program_constants(program)};
  void *workspace = places.arena + network->tensor_bytes;
  /* What kernel_run would check of each call holds for all of them: the plan keeps the tensors of
   * a step apart, and constants were packed for its kernel. */
  for (int i = steps->first; i < steps->last; i++) {
    const struct step *step = &program->steps[i];
    struct value given[MAX_ARGUMENTS];
    for (int a = 0; a < step->kernel->count; a++)
      given[a] = value_at(&places, step->operands[a], step->kernel->arguments[a].role == SCALAR);
    int64_t start = steps->nanoseconds ? now() : 0;
    size_t bytes = kernel_workspace_bytes(step->kernel, threads);
    const struct variant *variant = step->kernel->chosen;
    if (call_kernel(variant, given, variant->work, workspace, bytes, threads) != 0) {
      steps->failed = i;
      return LPGEN_OUT_OF_MEMORY;
    }
    if (steps->nanoseconds) steps->nanoseconds[i] = now() - start;
  }
  return LPGEN_OK;
}
