/* pylrp's core for C: layer-wise relevance propagation through dense networks.
 *
 *   #include "pylrp.h"          link with -lpylrp; `make capi` builds it (docs/install.md#from-c)
 *
 * The library is shared, brings its C++ runtime along and shows nothing but these functions.
 *
 * A network is a chain of dense layers with a rule each. It refers to the caller's weights and biases and never copies
 * them: they must stay where they are, unchanged, until pylrp_network_free(). Everything else that is passed in is
 * copied, or read before the call returns. Handles may be used by several threads at a time as long as none of them
 * changes the network. Each handle is freed once, by its own function; after that, and after being freed twice, nothing
 * is defined, as with free(). Nor can a pointer be checked for the size that was said of it.
 *
 * Every function that can fail returns a pylrp_status; pylrp_last_error() then says what was wrong, for the calling
 * thread, until its next call. What failed left the handles as they were. No C++ exception leaves the library.
 * examples/relevance.c is a complete program.
 */
#ifndef PYLRP_H
#define PYLRP_H

#include <stddef.h>
#include <stdint.h>

/* Of this interface. It grows when something is added; what is there keeps its meaning. */
#define PYLRP_API_VERSION 1

#if defined(_WIN32)
#define PYLRP_EXPORT
#else
#define PYLRP_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pylrp_status {
  PYLRP_OK = 0,
  PYLRP_INVALID = 1,     /* an argument: shape, name, number, null */
  PYLRP_NOT_FINITE = 2,  /* NaN or infinite: an argument, or a relevance that overflowed */
  PYLRP_UNSUPPORTED = 3, /* a convention has no such rule */
  PYLRP_NO_MEMORY = 4,
  PYLRP_INTERRUPTED = 5, /* the caller's stop function said so */
  PYLRP_INTERNAL = 6     /* a defect of the library */
} pylrp_status;

typedef enum pylrp_dtype { PYLRP_FLOAT32 = 0, PYLRP_FLOAT64 = 1 } pylrp_dtype;

/* How a weight (n_out, n_in) lies in memory: a row, the weights of one output, after the other (C, NumPy), or a column
 * after the other (MATLAB, Fortran). */
typedef enum pylrp_order { PYLRP_BY_ROWS = 0, PYLRP_BY_COLUMNS = 1 } pylrp_order;

PYLRP_EXPORT int pylrp_api_version(void);             /* PYLRP_API_VERSION of the library that is linked */
PYLRP_EXPORT const char* pylrp_last_error(void);      /* text of the calling thread's last failure, or "" */
PYLRP_EXPORT const char* pylrp_instruction_set(void); /* what runs: "avx512", "avx2", ...; "" where none can */

/* ---- Rules ----------------------------------------------------------------------------------------------------------
 *
 * A rule is data: groups of terms that share a denominator.
 *
 *   z_g   = sum_t sign_t rho_t(W) x_t + rho_b(b)
 *   s_g   = coefficient_g mask_g R / stab(z_g)
 *   R_in += sum_t sign_t x_t (rho_t(W)^T s_g)
 *
 * The catalogue makes them by name: zero, epsilon, gamma, zplus, alphabeta, wsquare, flat, zbox, norm, pass. */

typedef enum pylrp_part { /* x_t: the input, its positive or negative part, ones, a z-box's bounds */
                          PYLRP_INPUT = 0,
                          PYLRP_POSITIVE = 1,
                          PYLRP_NEGATIVE = 2,
                          PYLRP_ONE = 3,
                          PYLRP_LOW = 4,
                          PYLRP_HIGH = 5
} pylrp_part;
typedef enum pylrp_map { /* rho(w) = positive * max(w, 0) + negative * min(w, 0), or w^2, or 1 (no bias: nothing) */
                         PYLRP_SIGNS = 0,
                         PYLRP_SQUARE = 1,
                         PYLRP_ONES = 2,
                         PYLRP_NONE = 3
} pylrp_map;
typedef enum pylrp_mask { /* which outputs a group serves, by the sign of W a + b */
                          PYLRP_ALL = 0,
                          PYLRP_WHERE_POSITIVE = 1,
                          PYLRP_WHERE_NEGATIVE = 2
} pylrp_mask;
typedef enum pylrp_guard { /* z < 0 ? z - eps : z + eps, or z == 0 ? eps : z */
                           PYLRP_SIGNED = 0,
                           PYLRP_WHERE_ZERO = 1
} pylrp_guard;

typedef struct pylrp_term {
  pylrp_part part;
  pylrp_map map; /* not PYLRP_NONE */
  double positive, negative;
  double sign;
} pylrp_term;

typedef struct pylrp_group {
  const pylrp_term* terms;
  size_t term_count;
  pylrp_map bias; /* PYLRP_SIGNS, PYLRP_SQUARE or PYLRP_NONE */
  double bias_positive, bias_negative;
  double coefficient;
  pylrp_mask mask;
  pylrp_guard guard;
  double stabilizer; /* eps >= 0; with 0 an output with z = 0 has no receiver */
} pylrp_group;

/* "epsilon", "gamma", "alpha", "beta", "stabilizer", or "bias" (0: not in the denominator). */
typedef struct pylrp_parameter {
  const char* name;
  double value;
} pylrp_parameter;

typedef struct pylrp_rule pylrp_rule;

/* convention: "zennit", "captum", "innvestigate" or "lrp_toolbox"; null is "zennit". What is not among the parameters
 * has the convention's default. */
PYLRP_EXPORT pylrp_status pylrp_rule_named(const char* name, const char* convention, const pylrp_parameter* parameters,
                                           size_t parameter_count, pylrp_rule** rule);
/* A rule of your own; no groups: relevance passes through unchanged, which needs equal widths. */
PYLRP_EXPORT pylrp_status pylrp_rule_from_groups(const pylrp_group* groups, size_t group_count, pylrp_rule** rule);
/* Its groups, valid as long as the rule; their number in *count. */
PYLRP_EXPORT const pylrp_group* pylrp_rule_groups(const pylrp_rule* rule, size_t* count);
PYLRP_EXPORT void pylrp_rule_free(pylrp_rule* rule); /* null is fine */

/* Names, for i = 0, 1, ...; null behind the last. */
PYLRP_EXPORT const char* pylrp_rule_name(size_t i);
PYLRP_EXPORT const char* pylrp_composite_name(size_t i);
PYLRP_EXPORT const char* pylrp_convention_name(size_t i);

/* ---- Networks ------------------------------------------------------------------------------------------------------
 */

typedef struct pylrp_network pylrp_network;

PYLRP_EXPORT pylrp_status pylrp_network_new(pylrp_dtype dtype, pylrp_network** network);
PYLRP_EXPORT void pylrp_network_free(pylrp_network* network); /* null is fine */

/* Adds a layer on top: weight (n_out, n_in), bias (n_out) or null, both of the network's dtype, without gaps. All
 * entries are looked at, and must be finite. The layer's rule is that of the composite "deep_taylor" until it is set.
 */
PYLRP_EXPORT pylrp_status pylrp_network_add_dense(pylrp_network* network, int64_t n_out, int64_t n_in,
                                                  const void* weight, pylrp_order order, const void* bias);
/* For networks that are used once: weights by columns that are added after this are looked at by pylrp_relevance(), as
 * it reads them anyhow (PYLRP_NOT_FINITE), not when they are added. That is a pass over memory less. */
PYLRP_EXPORT pylrp_status pylrp_network_check_later(pylrp_network* network);
PYLRP_EXPORT int64_t pylrp_network_depth(const pylrp_network* network);

/* low, high: n_in numbers of the network's dtype each, copied; null where the rule is no z-box. */
PYLRP_EXPORT pylrp_status pylrp_network_set_rule(pylrp_network* network, int64_t layer, const pylrp_rule* rule,
                                                 const void* low, const void* high);
/* Rules for all layers that are there, by the name of a composite: "deep_taylor" (the w^2 rule at the input, z+ above,
 * nothing added to a denominator), "deep_taylor_box", "epsilon", ... low, high: as above, for those with a box, where
 * null is 0 and 1. */
PYLRP_EXPORT pylrp_status pylrp_network_set_composite(pylrp_network* network, const char* name, const char* convention,
                                                      const void* low, const void* high);

/* Columns of the ledger: incoming = outgoing + all others, for each layer and sample. */
typedef enum pylrp_ledger_column {
  PYLRP_INCOMING = 0,
  PYLRP_OUTGOING = 1,
  PYLRP_BIAS = 2,       /* share of the bias in the denominators */
  PYLRP_STABILIZER = 3, /* taken by epsilon */
  PYLRP_PADDING = 4,    /* 0 in dense networks, as are PYLRP_BATCHNORM and PYLRP_MASKED */
  PYLRP_DEAD = 5,       /* of outputs with z = 0: there is no receiver */
  PYLRP_BATCHNORM = 6,
  PYLRP_MASKED = 7,
  PYLRP_ROUNDING = 8,
  PYLRP_LEDGER_COLUMNS = 9
} pylrp_ledger_column;

typedef struct pylrp_call {
  size_t size;   /* sizeof(pylrp_call): later versions add members at the end */
  int64_t batch; /* samples; all arrays have a sample a row: (batch, n), which is MATLAB's (n, batch) */
  /* The input of each layer, depth pointers; null where the layer's rule does not read it. */
  const void* const* acts;
  /* Where relevance starts: (batch, n_out of the last layer). */
  const void* out;
  /* Relevance at each layer's input is written here: depth pointers; all but the first may be null. */
  void* const* relevance;
  /* (depth, PYLRP_LEDGER_COLUMNS, batch), or null. */
  double* ledger;
  int threads; /* at most so many; 0: OMP_NUM_THREADS or what the process may use. The same bits for any number. */
  /* Asked about ten times a second on the calling thread; not 0: stop, PYLRP_INTERRUPTED. May be null. */
  int (*stop)(void* data);
  void* stop_data;
} pylrp_call;

PYLRP_EXPORT pylrp_status pylrp_relevance(const pylrp_network* network, const pylrp_call* call);

#ifdef __cplusplus
}
#endif
#endif
