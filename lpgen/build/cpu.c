/* Which kernels run: those for the best target of the library that this CPU serves, or for the one
 * that is asked for. That is chosen when the library is loaded, and calls find it done. Nothing
 * else in a library may run before, and this is itself compiled for the plainest CPU. What a CPU
 * has its architecture's own file tells (cpu_x86.c). */

#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const struct target *in_use, *asked; /* NULL: none; whichever is best */
static int unknown;                         /* what is asked for is not inside */
static char missing[1024];

static int lacking(const struct target *target) {
  int count = 0;
  for (const char *const *name = target->features; *name; name++) count += !cpu_has(*name);
  return count;
}

/* The target of that name or level, of a level the first that this CPU runs; NULL: none. */
static const struct target *named(const char *name) {
  const struct target *found = NULL;
  for (const struct target *target = lpgen_built_for; target->name; target++) {
    if (strcmp(target->name, name) == 0) return target;
    if (strcmp(target->level, name) == 0 && (!found || found->runs < target->runs)) found = target;
  }
  return found;
}

static int fits(const struct target *target) {
  return target->runs && !unknown && (!asked || target == asked);
}

static int is_listed(const char *text, const char *name) {
  size_t length = strlen(name);
  for (const char *at = text; (at = strstr(at, name)); at += length)
    if ((at == text || at[-1] == ' ') && (at[length] == ',' || at[length] == 0)) return 1;
  return 0;
}

void add_lacking(const struct target *target, char *text, size_t size) {
  for (const char *const *name = target->features; *name; name++) {
    if (cpu_has(*name) || is_listed(text, *name)) continue;
    if (strlen(text) + strlen(*name) + 3 > size) return;
    if (text[0]) strcat(text, ", ");
    strcat(text, *name);
  }
}

/* What the variant lacks that could serve: the one asked for, or that which lacks fewest. */
static void add_missing_of(const struct kernel *kernel) {
  const struct target *nearest = NULL;
  for (const struct variant *const *variant = kernel->variants; *variant; variant++) {
    const struct target *target = (*variant)->target;
    if (asked ? target == asked : !nearest || lacking(target) < lacking(nearest)) nearest = target;
  }
  if (nearest) add_lacking(nearest, missing, sizeof missing);
}

PUBLIC lpgen_status lpgen_set_target(const char *name) {
  int best = !name || !*name;
  for (struct target *target = lpgen_built_for; target->name; target++)
    target->runs = lacking(target) == 0;
  asked = best ? NULL : named(name);
  unknown = !best && !asked;
  in_use = NULL;
  for (const struct target *target = lpgen_built_for; !in_use && target->name; target++)
    if (fits(target)) in_use = target;
  missing[0] = 0;
  for (struct kernel *const *kernel = lpgen_kernels; *kernel; kernel++) {
    const struct variant *const *variant = (*kernel)->variants;
    while (*variant && !fits((*variant)->target)) variant++;
    (*kernel)->chosen = *variant;
    if (!*variant && !unknown) add_missing_of(*kernel);
  }
  return in_use ? LPGEN_OK : target_refusal();
}

__attribute__((constructor)) static void choose_at_load(void) {
  lpgen_set_target(getenv("LPGEN_TARGET"));
}

const struct target *target_in_use(void) { return in_use; }

lpgen_status target_refusal(void) { return unknown ? LPGEN_TARGET : LPGEN_CPU; }

lpgen_status kernel_refusal(const struct kernel *kernel) {
  for (const struct variant *const *variant = kernel->variants; *variant; variant++)
    if (!asked || (*variant)->target == asked) return target_refusal();
  return LPGEN_TARGET;
}

PUBLIC const char *lpgen_target(void) { return in_use ? in_use->name : NULL; }

PUBLIC const char *lpgen_missing_features(void) { return missing[0] ? missing : NULL; }
