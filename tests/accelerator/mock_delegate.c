/* An accelerator for tests: a TFLite external delegate that takes the SOFTMAX operators of a model and computes them for
 * real, and fails on request in every way that a vendor's library was seen to fail.
 *
 * Options, all text:
 *   op         builtin code of the operators to take; 25 is SOFTMAX
 *   sleep_us   every inference takes so much longer, the processor idle, as with a device at the other end of a bus
 *   fail       create, prepare, invoke          an error with a message
 *              silent                           create fails, and the reason stands on standard error alone
 *              crash-create, crash-prepare, crash     a segmentation fault
 *              hang-create, hang-prepare, hang        for ever
 *              nan                              the first value of each answer is no number
 *              wrong                            the answer is turned round
 *   after      so many inferences go well before `fail` begins
 *   gate       a path: `fail` is in force only while something is there
 *   hold       a path: locked by the one process that may use the device, as with an Edge TPU
 *   noise      so many bytes on standard error with every inference
 *   stride     bytes of one tensor in the runtime's array; 112 in ai-edge-litert 2 and tflite-runtime 2.14
 *
 * The structures are the beginnings of TensorFlow Lite's C ABI, as far as they are used here.
 */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { OK = 0, FAILED = 1, FLOAT32 = 1, DELEGATE_CODE = 51, SOFTMAX_CODE = 25, MAX_NODES = 64 };

struct Context;
struct Delegate;
typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type; void *data; IntArray *dims; struct { float scale; int32_t zero_point; } params;
  int allocation_type; size_t bytes; const void *allocation; const char *name; struct Delegate *delegate;
} Tensor;
typedef struct { IntArray *inputs, *outputs, *intermediates, *temporaries; void *user_data, *builtin_data; } Node;
typedef struct {
  void *(*init)(struct Context *, const char *, size_t);
  void (*release)(struct Context *, void *);
  int (*prepare)(struct Context *, Node *);
  int (*invoke)(struct Context *, Node *);
  const char *(*profiling_string)(const struct Context *, const Node *);
  int32_t builtin_code; const char *custom_name; int version;
  void *external, *async_kernel; uint64_t inplace_operator;
} Registration;
typedef struct Context {
  size_t tensors_size; int (*GetExecutionPlan)(struct Context *, IntArray **); char *tensors; void *impl;
  int (*ResizeTensor)(struct Context *, Tensor *, IntArray *);
  void (*ReportError)(struct Context *, const char *, ...);
  int (*AddTensors)(struct Context *, int, int *);
  int (*GetNodeAndRegistration)(struct Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsets)(struct Context *, Registration, const IntArray *, struct Delegate *);
} Context;
typedef struct Delegate {
  void *data; int (*Prepare)(Context *, struct Delegate *); void *copy_from, *copy_to, *free_handle;
  int64_t flags; void *opaque;
} Delegate;

typedef struct {
  char fail[32], gate[512];
  long op, sleep_us, after, stride, noise;
  int held;
  long runs;
} Mock;

static Mock *the_mock; /* the latest; kernels find it here, so none is ever freed */

static int failing(const char *way) {
  if (strcmp(the_mock->fail, way) != 0) return 0;
  return the_mock->gate[0] == 0 || access(the_mock->gate, F_OK) == 0;
}

static void crash(void) {
  volatile int *nowhere = 0;
  *nowhere = 1;
}

static void hang(void) {
  for (;;) pause();
}

static Tensor *tensor(Context *context, int index) {
  return (Tensor *)(context->tensors + (size_t)index * the_mock->stride);
}

static int kernel_prepare(Context *context, Node *node) {
  (void)node;
  if (failing("crash-prepare")) crash();
  if (failing("hang-prepare")) hang();
  if (failing("prepare")) {
    context->ReportError(context, "mock: prepare failed");
    return FAILED;
  }
  return OK;
}

static int kernel_invoke(Context *context, Node *node) {
  Tensor *given = tensor(context, node->inputs->data[node->inputs->size - 1]);
  Tensor *answer = tensor(context, node->outputs->data[0]);
  const float *in = given->data;
  float *out = answer->data;
  int last = given->dims->data[given->dims->size - 1];
  long values = (long)(answer->bytes / sizeof(float)), row, i;
  int is_due = the_mock->runs++ >= the_mock->after;
  for (i = 0; i < the_mock->noise; i++) fputc(i + 1 < the_mock->noise ? '.' : '\n', stderr);
  if (the_mock->sleep_us) usleep((useconds_t)the_mock->sleep_us);
  if (is_due && failing("crash")) crash();
  if (is_due && failing("hang")) hang();
  if (is_due && failing("invoke")) {
    context->ReportError(context, "mock: device lost");
    return FAILED;
  }
  for (row = 0; row + last <= values; row += last) {
    float top = in[row], sum = 0;
    for (i = 1; i < last; i++) top = fmaxf(top, in[row + i]);
    for (i = 0; i < last; i++) sum += out[row + i] = expf(in[row + i] - top);
    for (i = 0; i < last; i++) out[row + i] /= sum;
    if (is_due && failing("nan")) out[row] = NAN;
    if (is_due && failing("wrong")) {
      for (i = 0; i < last / 2; i++) {
        float kept = out[row + i];
        out[row + i] = out[row + last - 1 - i];
        out[row + last - 1 - i] = kept;
      }
    }
  }
  return OK;
}

static int delegate_prepare(Context *context, Delegate *delegate) {
  IntArray *plan, *taken;
  Registration kernel;
  int i, count = 0, status;
  if (context->GetExecutionPlan(context, &plan) != OK) return FAILED;
  taken = malloc(sizeof(IntArray) + MAX_NODES * sizeof(int));
  for (i = 0; i < plan->size && count < MAX_NODES; i++) {
    Node *node;
    Registration *registration;
    if (context->GetNodeAndRegistration(context, plan->data[i], &node, &registration) != OK) continue;
    if (registration->builtin_code != the_mock->op) continue;
    if (tensor(context, node->inputs->data[0])->type != FLOAT32) continue;
    taken->data[count++] = plan->data[i];
  }
  taken->size = count;
  memset(&kernel, 0, sizeof kernel);
  kernel.prepare = kernel_prepare;
  kernel.invoke = kernel_invoke;
  kernel.builtin_code = DELEGATE_CODE;
  kernel.custom_name = "MockAccelerator";
  kernel.version = 1;
  status = count ? context->ReplaceNodeSubsets(context, kernel, taken, delegate) : OK;
  free(taken);
  return status;
}

static void read_option(Mock *mock, const char *key, const char *value, const char **wrong) {
  if (!strcmp(key, "fail")) snprintf(mock->fail, sizeof mock->fail, "%s", value);
  else if (!strcmp(key, "gate")) snprintf(mock->gate, sizeof mock->gate, "%s", value);
  else if (!strcmp(key, "op")) mock->op = atol(value);
  else if (!strcmp(key, "sleep_us")) mock->sleep_us = atol(value);
  else if (!strcmp(key, "after")) mock->after = atol(value);
  else if (!strcmp(key, "noise")) mock->noise = atol(value);
  else if (!strcmp(key, "stride")) mock->stride = atol(value);
  else if (!strcmp(key, "hold")) mock->held = open(value, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  else *wrong = "mock: unknown option";
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  Mock *mock = calloc(1, sizeof *mock);
  Delegate *delegate = calloc(1, sizeof *delegate);
  const char *wrong = NULL;
  size_t i;
  mock->op = SOFTMAX_CODE;
  mock->stride = 112;
  mock->held = -1;
  for (i = 0; i < count; i++) read_option(mock, keys[i], values[i], &wrong);
  the_mock = mock;
  if (!wrong && mock->held >= 0 && flock(mock->held, LOCK_EX | LOCK_NB) != 0)
    wrong = "mock: the device is in use by another process";
  if (!wrong && failing("crash-create")) crash();
  if (!wrong && failing("hang-create")) hang();
  if (!wrong && failing("create")) wrong = "mock: no device";
  if (!wrong && failing("silent")) {
    fprintf(stderr, "mock: the driver is of another version\n");
    wrong = "";
  }
  if (wrong) {
    report(wrong);
    if (mock->held >= 0) close(mock->held);
    free(delegate);
    return NULL;
  }
  delegate->data = mock;
  delegate->Prepare = delegate_prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) {
  Mock *mock;
  if (!delegate) return;
  mock = delegate->data;
  if (mock->held >= 0) close(mock->held);
  free(delegate);
}
