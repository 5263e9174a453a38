/* What programs that check a header share: CHECK, buffers between guard bytes, and a count of what is
 * taken from the heap. Included first, behind the header that is checked. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#define CHECK(condition)                                  \
  do {                                                    \
    if (!(condition)) {                                   \
      printf("line %d: %s\n", __LINE__, #condition);      \
      exit(1);                                            \
    }                                                     \
  } while (0)

enum { CANARY = 4096 };

/* glibc's own names behind the public ones. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static volatile int allocations;
void *malloc(size_t n) { return allocations++, __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return allocations++, __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return allocations++, __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return allocations++, __libc_memalign(a, n); }

static void *guarded(size_t bytes) {
  char *memory = __libc_memalign(64, bytes + 2 * CANARY);
  memset(memory, 0xA5, bytes + 2 * CANARY);
  return memory + CANARY;
}

static int intact(const void *start, size_t bytes) {
  const unsigned char *memory = (const unsigned char *)start - CANARY;
  for (size_t i = 0; i < CANARY; i++)
    if (memory[i] != 0xA5 || memory[CANARY + bytes + i] != 0xA5) return 0;
  return 1;
}
