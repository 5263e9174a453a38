/* Calls functions of a library as it is told through a pipe: a program for the library's CPU, which
 * an emulator runs here. Numbers are little-endian; a request is
 *
 *   u32 bytes of a function's name, the name, u32 arguments, and for each of them
 *   u32 kind, u32 offset, i64 value, and of a GIVEN one, or BOTH, so many bytes
 *
 * where the value is a NUMBER, or the size of a tensor that starts `offset` bytes behind a 64-byte
 * boundary; a LIST of so many is the address of an array with those of the arguments behind it. The
 * answer is the function's result as i64, or of a TEXT function the length of the text that it
 * returns and the text, and then the bytes of every tensor that is WANTED, or BOTH given and
 * wanted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER, GIVEN, WANTED, SCRATCH, TEXT, BOTH, LIST };
enum { MOST = 96, PASSED = 48, ALIGNMENT = 64, UNWRITTEN = 0x5a };

struct argument {
  uint32_t kind, offset;
  int64_t value;
};

static void read_all(void *data, size_t bytes) {
  if (fread(data, 1, bytes, stdin) != bytes) exit(0); /* nobody asks any more */
}

static void *reserve(size_t bytes) {
  void *memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
  if (!memory) exit(2);
  return memory;
}

/* Every argument is a number or an address, of the size of a register or less: a function finds
 * those that it takes, whatever else is passed. */
#define A(i) a[i], a[i + 1], a[i + 2], a[i + 3], a[i + 4], a[i + 5], a[i + 6], a[i + 7]
#define L long, long, long, long, long, long, long, long
typedef long (*function)(L, L, L, L, L, L);

static void serve(void *library) {
  uint32_t length, count;
  char name[4096];
  read_all(&length, sizeof length);
  if (length >= sizeof name) exit(2);
  read_all(name, length);
  name[length] = 0;
  read_all(&count, sizeof count);
  if (count > MOST) exit(2);
  struct argument arguments[MOST];
  void *memory[MOST] = {NULL};
  long at[MOST] = {0}, a[PASSED] = {0};
  int text = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct argument *argument = &arguments[i];
    read_all(argument, sizeof *argument);
    text |= argument->kind == TEXT;
    at[i] = (long)argument->value;
    if (argument->kind == NUMBER || argument->kind == TEXT || argument->kind == LIST) continue;
    size_t bytes = (size_t)argument->value;
    memory[i] = reserve(argument->offset + bytes);
    at[i] = (long)memory[i] + (long)argument->offset;
    if (argument->kind == GIVEN || argument->kind == BOTH) read_all((void *)at[i], bytes);
    else memset((void *)at[i], UNWRITTEN, bytes);
  }
  uint32_t passed = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (passed == PASSED) exit(2);
    int list = arguments[i].kind == LIST;
    a[passed++] = list ? (long)&at[i + 1] : at[i];
    if (list) i += (uint32_t)arguments[i].value;
  }
  union {
    void *symbol;
    function call;
  } found = {dlsym(library, name)};
  if (!found.symbol) exit(3);
  long result = found.call(A(0), A(8), A(16), A(24), A(32), A(40));
  const char *said = text ? (const char *)result : NULL;
  int64_t answer = text ? (int64_t)(said ? strlen(said) : 0) : (int32_t)result;
  fwrite(&answer, sizeof answer, 1, stdout);
  if (said) fwrite(said, 1, (size_t)answer, stdout);
  for (uint32_t i = 0; i < count; i++) {
    if (arguments[i].kind == WANTED || arguments[i].kind == BOTH)
      fwrite((void *)at[i], 1, (size_t)arguments[i].value, stdout);
    free(memory[i]);
  }
  fflush(stdout);
}

int main(int count, char **words) {
  void *library = count == 2 ? dlopen(words[1], RTLD_NOW) : NULL;
  if (!library) {
    fprintf(stderr, "error: %s\n", dlerror());
    return 1;
  }
  for (;;) serve(library);
}
