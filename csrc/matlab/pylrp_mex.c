/* The MEX function behind pylrp_relevance.m, which settles what its arguments mean; over pylrp.h, in C.
 *
 *   [R, layers, ledger] = pylrp_mex(W, acts, out, rules, biases, threads)
 *
 *   W        cell, W{l} is n_out x n_in, double or single; all other arrays are of the same class
 *   acts     cell, acts{l} is n_in x samples, or []
 *   out      n_out of the last layer x samples
 *   rules    cell, rules{l} = {name, convention, parameter names, parameter values, low, high}; or one
 *            {composite, convention, low, high}
 *   biases   cell, biases{l} has n_out entries, or []; or {}
 *   threads  0: as many as there are
 *   R        n_in x samples;  layers  cell {R, ..., out};  ledger  samples x 9 x layers
 *
 * Columns are samples, so that an array of MATLAB is what the core calls (samples, n) by rows: nothing is copied, and
 * weights are read by columns as they lie. Errors leave by mexErrMsgIdAndTxt, which does not come back: before it,
 * fail() frees what is held. Arrays are made first, for making one may leave the same way.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mex.h"
#include "pylrp.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#include <signal.h>
#endif

#define ANY ((size_t)-1)

enum { W_ARG, ACTS_ARG, OUT_ARG, RULES_ARG, BIASES_ARG, THREADS_ARG, ARGUMENTS };

typedef struct state {
  pylrp_network* network;
  pylrp_rule* rule;
  size_t depth;
  mxClassID class_id;
} state;

/* ---- Ctrl-C: both interpreters keep a note of it, found by name so that nothing has to be linked ---- */

typedef bool (*interrupt_function)(void);
static volatile sig_atomic_t* octave_interrupts;
static interrupt_function matlab_interrupt;

/* Once: a search goes through every library of the process. */
static void find_interrupt(void) {
  static bool searched;
  if (searched) {
    return;
  }
  searched = true;
#if defined(_WIN32)
  HMODULE ut = GetModuleHandleA("libut.dll");
  matlab_interrupt = ut ? (interrupt_function)(void*)GetProcAddress(ut, "utIsInterruptPending") : NULL;
#else
  void* function = dlsym(RTLD_DEFAULT, "utIsInterruptPending");
  memcpy(&matlab_interrupt, &function, sizeof function);
  octave_interrupts = (volatile sig_atomic_t*)dlsym(RTLD_DEFAULT, "octave_interrupt_state");
#endif
}

static int stop(void* unused) {
  (void)unused;
  return (octave_interrupts && *octave_interrupts > 0) || (matlab_interrupt && matlab_interrupt());
}

/* ---- Errors ---- */

static void drop(state* s) {
  pylrp_rule_free(s->rule);
  pylrp_network_free(s->network);
  s->rule = NULL;
  s->network = NULL;
}

static void fail(state* s, const char* id, const char* format, ...) {
  static char text[1200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  drop(s);
  mexErrMsgIdAndTxt(id, "%s", text);
}

static const char* const ids[] = {"pylrp:ok",       "pylrp:invalid",     "pylrp:notFinite", "pylrp:unsupported",
                                  "pylrp:noMemory", "pylrp:interrupted", "pylrp:internal"};

static void must(state* s, pylrp_status status) {
  if (status != PYLRP_OK) {
    fail(s, ids[status], "%s", pylrp_last_error());
  }
}

/* ---- Arguments ---- */

/* A full real matrix of the class of W{1}; rows and columns where they are not ANY. */
static const void* matrix(state* s, const mxArray* array, const char* name, size_t l, size_t rows, size_t cols) {
  char label[64];
  if (l > 0) {
    snprintf(label, sizeof label, "%s{%zu}", name, l);
  } else {
    snprintf(label, sizeof label, "%s", name);
  }
  if (array == NULL || !(mxIsDouble(array) || mxIsSingle(array))) {
    fail(s, "pylrp:invalid", "%s is %s, expected double or single%s", label, array ? mxGetClassName(array) : "missing",
         array && (mxIsNumeric(array) || mxIsLogical(array)) ? ": use double(...)" : "");
  }
  if (mxIsComplex(array) || mxIsSparse(array) || mxGetNumberOfDimensions(array) != 2) {
    fail(s, "pylrp:invalid", "%s is %s, expected a real, full matrix%s", label,
         mxIsSparse(array) ? "sparse" : (mxIsComplex(array) ? "complex" : "an array of several dimensions"),
         mxIsSparse(array) ? ": use full(...)" : (mxIsComplex(array) ? ": use real(...)" : ""));
  }
  if (mxGetClassID(array) != s->class_id) {
    fail(s, "pylrp:invalid", "W{1} is %s, %s is %s: convert all arrays to one of single and double",
         s->class_id == mxDOUBLE_CLASS ? "double" : "single", label, mxGetClassName(array));
  }
  if (cols == ANY && rows != ANY && mxGetM(array) != rows) {
    fail(s, "pylrp:invalid", "%s has %zu rows, expected %zu", label, (size_t)mxGetM(array), rows);
  }
  if ((rows != ANY && mxGetM(array) != rows) || (cols != ANY && mxGetN(array) != cols)) {
    fail(s, "pylrp:invalid", "%s is %zux%zu, expected %zux%zu%s", label, (size_t)mxGetM(array), (size_t)mxGetN(array),
         rows, cols, mxGetM(array) == cols && mxGetN(array) == rows ? ": transpose it" : "");
  }
  return mxGetData(array);
}

static const mxArray* item(const mxArray* cell, size_t i) {
  return cell && mxIsCell(cell) && i < mxGetNumberOfElements(cell) ? mxGetCell(cell, i) : NULL;
}

/* Says where the first entry stands that is not finite, if there is one; entries count from 1 here. */
static void name_not_finite(state* s, const mxArray* array, const char* name, size_t l) {
  const size_t count = array ? mxGetNumberOfElements(array) : 0, rows = array ? mxGetM(array) : 0;
  size_t i;
  for (i = 0; i < count; ++i) {
    const double value = mxIsSingle(array) ? ((const float*)mxGetData(array))[i] : mxGetPr(array)[i];
    if (!mxIsFinite(value)) {
      char label[64];
      snprintf(label, sizeof label, l > 0 ? "%s{%zu}" : "%s", name, l);
      fail(s, "pylrp:notFinite", "%s(%zu, %zu) is %s: every entry must be a finite number", label, i % rows + 1,
           i / rows + 1, mxIsNaN(value) ? "NaN" : "infinite");
    }
  }
}

/* mxDuplicateArray of an argument leaves its sizes in memory, in Octave 7. */
static mxArray* copy_of(const mxArray* array) {
  const size_t rows = mxGetM(array), cols = mxGetN(array);
  mxArray* made = mxCreateNumericMatrix(rows, cols, mxGetClassID(array), mxREAL);
  if (rows * cols > 0) {
    memcpy(mxGetData(made), mxGetData(array), rows * cols * mxGetElementSize(array));
  }
  return made;
}

static bool is_empty(const mxArray* array) { return array == NULL || mxGetNumberOfElements(array) == 0; }

/* A short text; false where it is none. */
static bool text_of(const mxArray* array, char* to, size_t size) {
  return array && mxIsChar(array) && mxGetString(array, to, (mwSize)size) == 0;
}

static void set_rule(state* s, const mxArray* rule, size_t l, size_t n_in) {
  enum { MOST = 8 };
  char name[64], convention[32], names[MOST][32];
  pylrp_parameter parameters[MOST];
  const mxArray* given = item(rule, 2);
  const mxArray* values = item(rule, 3);
  const size_t count = given ? mxGetNumberOfElements(given) : 0;
  size_t i;
  if (!text_of(item(rule, 0), name, sizeof name) || !text_of(item(rule, 1), convention, sizeof convention) ||
      count > MOST ||
      (count && (!values || !mxIsDouble(values) || mxIsComplex(values) || mxIsSparse(values) ||
                 mxGetNumberOfElements(values) != count))) {
    fail(s, "pylrp:invalid", "rules{%zu} is no rule: see help pylrp_relevance", l + 1);
  }
  for (i = 0; i < count; ++i) {
    if (!text_of(item(given, i), names[i], sizeof names[i])) {
      fail(s, "pylrp:invalid", "a parameter's name in rules{%zu} is no text", l + 1);
    }
    parameters[i].name = names[i];
    parameters[i].value = mxGetPr(values)[i];
  }
  const mxArray* low = item(rule, 4);
  const mxArray* high = item(rule, 5);
  const void* lows = is_empty(low) ? NULL : matrix(s, low, "low of rule", l + 1, n_in, 1);
  const void* highs = is_empty(high) ? NULL : matrix(s, high, "high of rule", l + 1, n_in, 1);
  const pylrp_status made = pylrp_rule_named(name, convention, parameters, count, &s->rule);
  if (made != PYLRP_OK) {
    fail(s, ids[made], "rules{%zu}: %s", l + 1, pylrp_last_error());
  }
  if (pylrp_network_set_rule(s->network, (int64_t)l, s->rule, lows, highs) != PYLRP_OK) {
    char prefix[32]; /* layers count from 1 here */
    const int length = snprintf(prefix, sizeof prefix, "layer %zu: ", l);
    const char* text = pylrp_last_error();
    fail(s, "pylrp:invalid", "rules{%zu}: %s", l + 1,
         strncmp(text, prefix, (size_t)length) == 0 ? text + length : text);
  }
  pylrp_rule_free(s->rule);
  s->rule = NULL;
}

static void set_rules(state* s, const mxArray* rules, const mxArray* W) {
  char name[64], convention[32];
  size_t l;
  if (text_of(item(rules, 0), name, sizeof name)) {
    const size_t n_in = mxGetN(mxGetCell(W, 0));
    const void* low = is_empty(item(rules, 2)) ? NULL : matrix(s, item(rules, 2), "low", 0, n_in, 1);
    const void* high = is_empty(item(rules, 3)) ? NULL : matrix(s, item(rules, 3), "high", 0, n_in, 1);
    if (!text_of(item(rules, 1), convention, sizeof convention)) {
      fail(s, "pylrp:invalid", "the convention is no text");
    }
    must(s, pylrp_network_set_composite(s->network, name, convention, low, high));
    return;
  }
  if (mxGetNumberOfElements(rules) != s->depth) {
    fail(s, "pylrp:invalid", "there are %zu weights and %zu rules", s->depth, (size_t)mxGetNumberOfElements(rules));
  }
  for (l = 0; l < s->depth; ++l) {
    set_rule(s, item(rules, l), l, mxGetN(mxGetCell(W, l)));
  }
}

static void check_weights(state* s, const mxArray* W) {
  size_t l;
  for (l = 0; l < s->depth; ++l) {
    const mxArray* weight = item(W, l);
    matrix(s, weight, "W", l + 1, ANY, ANY);
    if (is_empty(weight)) {
      fail(s, "pylrp:invalid", "W{%zu} is empty: %zux%zu", l + 1, (size_t)mxGetM(weight), (size_t)mxGetN(weight));
    }
    if (l > 0 && mxGetN(weight) != mxGetM(item(W, l - 1))) {
      fail(s, "pylrp:invalid", "W{%zu} is %zux%zu, W{%zu} has %zu rows: W{l} has a row a neuron, a column an input",
           l + 1, (size_t)mxGetM(weight), (size_t)mxGetN(weight), l, (size_t)mxGetM(item(W, l - 1)));
    }
  }
}

static void add_layers(state* s, const mxArray* W, const mxArray* biases) {
  size_t l;
  must(s, pylrp_network_new(s->class_id == mxDOUBLE_CLASS ? PYLRP_FLOAT64 : PYLRP_FLOAT32, &s->network));
  must(s, pylrp_network_check_later(s->network));
  for (l = 0; l < s->depth; ++l) {
    const mxArray* weight = item(W, l);
    const void* data = matrix(s, weight, "W", l + 1, ANY, ANY);
    const mxArray* bias = item(biases, l);
    const size_t n_out = mxGetM(weight);
    const void* b = NULL;
    if (!is_empty(bias)) {
      const bool row = mxGetM(bias) == 1 && mxGetNumberOfElements(bias) == n_out;
      b = matrix(s, bias, "biases", l + 1, row ? 1 : n_out, row ? n_out : 1);
    }
    const size_t n_in = mxGetN(weight);
    const pylrp_status status =
        pylrp_network_add_dense(s->network, (int64_t)n_out, (int64_t)n_in, data, PYLRP_BY_COLUMNS, b);
    if (status == PYLRP_NOT_FINITE) {
      name_not_finite(s, bias, "biases", l + 1);
    }
    must(s, status);
  }
}

static size_t checked_depth(state* s, int nlhs, int nrhs, const mxArray* prhs[]) {
  if (nrhs != ARGUMENTS || nlhs > 3) {
    fail(s, "pylrp:invalid", "pylrp_mex takes %d arguments and gives up to 3; call pylrp_relevance", (int)ARGUMENTS);
  }
  if (!mxIsCell(prhs[W_ARG]) || !mxIsCell(prhs[ACTS_ARG]) || !mxIsCell(prhs[RULES_ARG]) ||
      !mxIsCell(prhs[BIASES_ARG])) {
    fail(s, "pylrp:invalid", "W, acts, rules and biases must be cells, one entry a layer");
  }
  const size_t depth = mxGetNumberOfElements(prhs[W_ARG]);
  const size_t biases = mxGetNumberOfElements(prhs[BIASES_ARG]);
  if (depth == 0) {
    fail(s, "pylrp:invalid", "W is empty: there must be at least one layer");
  }
  if (mxGetNumberOfElements(prhs[ACTS_ARG]) != depth) {
    fail(s, "pylrp:invalid", "there are %zu weights and %zu activations; acts{l} is the input of layer l%s", depth,
         (size_t)mxGetNumberOfElements(prhs[ACTS_ARG]),
         mxGetNumberOfElements(prhs[ACTS_ARG]) == depth + 1 ? ", the network's output goes into out: acts(1:end-1)"
                                                            : "");
  }
  if (biases != 0 && biases != depth) {
    fail(s, "pylrp:invalid", "there are %zu weights and %zu biases", depth, biases);
  }
  return depth;
}

static int checked_threads(state* s, const mxArray* array) {
  const double value =
      array && mxIsDouble(array) && mxGetNumberOfElements(array) == 1 && !mxIsComplex(array) && !mxIsSparse(array)
          ? mxGetPr(array)[0]
          : -1;
  if (!(value >= 0 && value <= 4096 && value == (double)(int)value)) {
    fail(s, "pylrp:invalid", "threads must be a whole number of at least 1");
  }
  return (int)value;
}

/* The call; what can still be wrong is said in MATLAB's terms. */
static void explain(state* s, const pylrp_call* call, const mxArray* prhs[]) {
  const pylrp_status status = pylrp_relevance(s->network, call);
  size_t l;
  if (status == PYLRP_NOT_FINITE) {
    for (l = 0; l < s->depth; ++l) {
      name_not_finite(s, item(prhs[W_ARG], l), "W", l + 1);
      name_not_finite(s, item(prhs[ACTS_ARG], l), "acts", l + 1);
    }
    name_not_finite(s, prhs[OUT_ARG], "out", 0);
  }
  for (l = 0; status == PYLRP_INVALID && l < s->depth; ++l) {
    if (call->acts[l] == NULL) {
      fail(s, "pylrp:invalid", "acts{%zu} is empty: only layers whose rule is w2, flat or pass need no input", l + 1);
    }
  }
  must(s, status);
}

void mexFunction(int nlhs, mxArray* plhs[], int nrhs, const mxArray* prhs[]) {
  state s = {NULL, NULL, 0, mxDOUBLE_CLASS};
  size_t l;
  s.depth = checked_depth(&s, nlhs, nrhs, prhs);
  const mxArray* const W = prhs[W_ARG];
  const mxArray* const first = item(W, 0);
  if (first && mxIsSingle(first)) {
    s.class_id = mxSINGLE_CLASS;
  }
  check_weights(&s, W);
  const size_t batch = mxGetN(prhs[OUT_ARG]);
  const int threads = checked_threads(&s, prhs[THREADS_ARG]);
  const void* out = matrix(&s, prhs[OUT_ARG], "out", 0, mxGetM(mxGetCell(W, s.depth - 1)), ANY);

  /* All arrays, before any handle. */
  const void** acts = (const void**)mxMalloc(s.depth * sizeof(void*));
  void** relevance = (void**)mxMalloc(s.depth * sizeof(void*));
  mxArray* layers = nlhs > 1 ? mxCreateCellMatrix(1, s.depth + 1) : NULL;
  mxArray* ledger = NULL;
  if (nlhs > 2) {
    const mwSize dims[3] = {batch, PYLRP_LEDGER_COLUMNS, s.depth};
    ledger = mxCreateNumericArray(3, dims, mxDOUBLE_CLASS, mxREAL);
  }
  for (l = 0; l < s.depth; ++l) {
    const mxArray* a = item(prhs[ACTS_ARG], l);
    const size_t n_in = mxGetN(mxGetCell(W, l));
    acts[l] = is_empty(a) && batch > 0 ? NULL : matrix(&s, a, "acts", l + 1, n_in, batch);
    relevance[l] = NULL;
    if (l == 0 || layers) {
      mxArray* made = mxCreateNumericMatrix(n_in, batch, s.class_id, mxREAL);
      relevance[l] = mxGetData(made);
      if (l == 0) {
        plhs[0] = made;
      } else {
        mxSetCell(layers, l, made);
      }
    }
  }
  if (layers) {
    mxSetCell(layers, s.depth, copy_of(prhs[OUT_ARG]));
  }

  find_interrupt();
  if (!mexIsLocked()) {
    mexLock(); /* the core's threads must not wake up in memory that `clear` gave back */
  }
  add_layers(&s, W, prhs[BIASES_ARG]);
  set_rules(&s, prhs[RULES_ARG], W);
  pylrp_call call = {sizeof call, (int64_t)batch, acts, out, relevance, NULL, threads, stop, NULL};
  call.ledger = ledger ? mxGetPr(ledger) : NULL;
  explain(&s, &call, prhs);
  drop(&s);
  mxFree((void*)acts);
  mxFree(relevance);
  if (layers) {
    mxSetCell(layers, 0, mxDuplicateArray(plhs[0]));
    plhs[1] = layers;
  }
  if (ledger) {
    plhs[2] = ledger;
  }
}
