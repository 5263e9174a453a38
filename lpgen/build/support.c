/* What TVM's generated code asks of its runtime: scratch memory and threads.
 *
 * The generated code calls through weak function pointers that libtvm fills in where it is loaded.
 * The strong definitions at the end of this file take their place, so that a library needs no
 * libtvm and heeds the caller: memory comes from the caller's workspace, and as many threads run
 * as the caller says. */

#include <pthread.h>
#include <sched.h>

#include "pool.h"

typedef struct {
  void *sync_handle;
  int32_t num_task;
} group_env;
typedef int (*parallel_body)(int task, group_env *env, void *closure);

/* ---- the workspace: a stack of buffers, as generated code frees them in reverse order ---- */

struct call {
  char *next, *end;
  int tasks; /* of a parallel loop */
};

/* Which call a thread is in: a table in place of a thread-local variable. The C library has static
 * room for those of some two hundred libraries in a process, and makes others when a thread first
 * uses them, in memory that a call must not allocate. A thread looks in the slots of one set only,
 * and at most for entries that it made itself. */
enum { SETS = 256, SLOTS = 16 };

static struct slot {
  atomic_uintptr_t thread; /* 0: free */
  struct call *call;
} slots[SETS][SLOTS];

static struct slot *set_of(uintptr_t thread) {
  return slots[(uint64_t)thread * UINT64_C(0x9e3779b97f4a7c15) >> 56]; /* Fibonacci hashing */
}

static struct slot *slot_of(uintptr_t thread) {
  struct slot *set = set_of(thread);
  for (int i = 0; i < SLOTS; i++)
    if (atomic_load_explicit(&set[i].thread, memory_order_relaxed) == thread) return &set[i];
  return NULL;
}

/* The call that this thread is in, or NULL. */
static struct call *current(void) {
  struct slot *slot = slot_of((uintptr_t)pthread_self());
  return slot ? slot->call : NULL;
}

/* This thread is in `call` from here on, until it leaves for the outer one, which is returned.
 * Where all slots of its set are taken it waits until one of those calls ends. */
static struct call *enter(struct call *call) {
  static struct call entering; /* outer to the call of a signal handler that interrupts this */
  uintptr_t thread = (uintptr_t)pthread_self();
  struct slot *slot = slot_of(thread), *set = set_of(thread);
  struct call *outer = !slot ? NULL : slot->call ? slot->call : &entering;
  for (int i = 0; !slot; i = (i + 1) % SLOTS) {
    uintptr_t nobody = 0;
    if (atomic_load_explicit(&set[i].thread, memory_order_relaxed) == 0 &&
        atomic_compare_exchange_strong(&set[i].thread, &nobody, thread))
      slot = &set[i];
    else if (i + 1 == SLOTS)
      sched_yield();
  }
  slot->call = call;
  return outer;
}

static void leave(struct call *outer) {
  struct slot *slot = slot_of((uintptr_t)pthread_self());
  slot->call = outer;
  if (!outer) atomic_store_explicit(&slot->thread, 0, memory_order_release);
}

static size_t rounded(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void *alloc_workspace(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  struct call *call = current();
  size_t size = rounded(bytes);
  if (!call || (size_t)(call->end - call->next) < size) return NULL;
  void *memory = call->next;
  call->next += size;
  return memory;
}

static int free_workspace(int device_type, int device_id, void *memory) {
  (void)device_type, (void)device_id;
  current()->next = memory;
  return 0;
}

int32_t call_kernel(const struct variant *variant, const struct value *given, int64_t work,
                    void *workspace, size_t bytes, int threads) {
  /* As few as have the largest share: of 80 pieces 27 threads get 3, as 32 would. */
  int largest = (variant->pieces + threads - 1) / threads;
  threads = (variant->pieces + largest - 1) / largest;
  struct pool_call together = pool_enter(threads, work);
  int32_t failed;
  if (bytes == 0 && together.tasks == 1) {
    failed = variant->run(given, 1); /* asks for nothing */
  } else {
    struct call call = {workspace, (char *)workspace + bytes, together.tasks};
    struct call *outer = enter(&call);
    failed = variant->run(given, together.tasks);
    leave(outer);
  }
  pool_leave(together);
  return failed;
}

int32_t call_packer(const struct variant *variant, const struct value *given, void *packed,
                    void *workspace, size_t bytes) {
  struct call call = {workspace, (char *)workspace + bytes, 1};
  struct call *outer = enter(&call);
  int32_t failed = variant->pack(given, packed);
  leave(outer);
  return failed;
}

/* ---- parallel loops ---- */

struct loop {
  parallel_body body;
  void *closure;
  char *slices; /* task t has the workspace slices + t * slice .. + (t + 1) * slice */
  size_t slice;
  int tasks;
};

static int run_task(int task, void *context) {
  const struct loop *loop = context;
  group_env env = {NULL, loop->tasks};
  char *memory = loop->slices + (size_t)task * loop->slice;
  struct call call = {memory, memory + loop->slice, 1};
  struct call *outer = enter(&call);
  int failed = loop->body(task, &env, loop->closure);
  leave(outer);
  return failed;
}

/* `tasks` 0 means as many as there are threads. */
static int parallel_launch(parallel_body body, void *closure, int tasks) {
  struct call *call = current();
  int most = call ? call->tasks : 1;
  if (tasks < 1 || tasks > most) tasks = most;
  if (tasks == 1) {
    group_env env = {NULL, 1};
    return body(0, &env, closure);
  }
  size_t slice = (size_t)(call->end - call->next) / (size_t)tasks / ALIGNMENT * ALIGNMENT;
  struct loop loop = {body, closure, call->next, slice, tasks};
  return pool_run(tasks, run_task, &loop);
}

/* ---- the names under which generated code looks for them ---- */

extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
extern int (*__TVMBackendFreeWorkspace)(int, int, void *);
extern int (*__TVMBackendParallelLaunch)(parallel_body, void *, int);

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;
int (*__TVMBackendParallelLaunch)(parallel_body, void *, int) = parallel_launch;
