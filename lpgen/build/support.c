/* What TVM's generated code asks of its runtime: scratch memory and threads.
 *
 * The generated code calls through weak function pointers that libtvm fills in where it is loaded.
 * The strong definitions at the end of this file take their place, so that a library needs no
 * libtvm and heeds the caller: memory comes from the caller's workspace, and as many threads run
 * as the caller says. */

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

/* The call that this thread is in. initial-exec: the first access allocates nothing. */
static __thread struct call *current __attribute__((tls_model("initial-exec")));

static size_t rounded(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void *alloc_workspace(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  struct call *call = current;
  size_t size = rounded(bytes);
  if (!call || (size_t)(call->end - call->next) < size) return NULL;
  void *memory = call->next;
  call->next += size;
  return memory;
}

static int free_workspace(int device_type, int device_id, void *memory) {
  (void)device_type, (void)device_id;
  current->next = memory;
  return 0;
}

int32_t call_kernel(const struct kernel *kernel, const void *x, const void *packed,
                    const void *residual, void *y, void *workspace, size_t bytes, int threads) {
  if (threads > kernel->pieces) threads = kernel->pieces;
  struct pool_call together = pool_enter(threads, kernel->work);
  struct call call = {workspace, (char *)workspace + bytes, together.tasks};
  struct call *outer = current;
  current = &call;
  int32_t failed = kernel->run(x, packed, residual, y, together.tasks);
  current = outer;
  pool_leave(together);
  return failed;
}

int32_t call_packer(const struct kernel *kernel, const void *const *inputs, void *packed,
                    void *workspace, size_t bytes) {
  struct call call = {workspace, (char *)workspace + bytes, 1};
  struct call *outer = current;
  current = &call;
  int32_t failed = kernel->pack(inputs, packed);
  current = outer;
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
  struct call *outer = current;
  current = &call;
  int failed = loop->body(task, &env, loop->closure);
  current = outer;
  return failed;
}

/* `tasks` 0 means as many as there are threads. */
static int parallel_launch(parallel_body body, void *closure, int tasks) {
  struct call *call = current;
  if (tasks < 1 || tasks > call->tasks) tasks = call->tasks;
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
