/* pylrp's C interface, start to end: a small network, its relevance by the two equations of deep Taylor decomposition
 * (z+ above, w^2 at the input), the same by the epsilon rule with biases, and the ledger.
 *
 *   make capi
 *   cc -Ibuild/c/include examples/relevance.c -Lbuild/c/lib -lpylrp -Wl,-rpath,build/c/lib -lm -o build/relevance
 *   build/relevance
 *
 * It stops with an error where the relevance does not add up.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pylrp.h"

enum { INPUTS = 4, HIDDEN = 3, CLASSES = 2, SAMPLES = 2 };

static const double W1[HIDDEN][INPUTS] = {{1, -1, 0.5, 0}, {-0.5, 2, 0, 1}, {0.25, 0.25, -1, 1}};
static const double b1[HIDDEN] = {0.1, -0.2, 0};
static const double W2[CLASSES][HIDDEN] = {{1, 0.5, -1}, {-1, 1, 0.5}};
static const double b2[CLASSES] = {0, 0.3};

static void must(pylrp_status status) {
  if (status != PYLRP_OK) {
    fprintf(stderr, "error %d: %s\n", (int)status, pylrp_last_error());
    exit(1);
  }
}

static double sum(const double* values, int n) {
  double total = 0;
  for (int i = 0; i < n; ++i) {
    total += values[i];
  }
  return total;
}

int main(void) {
  const double x[SAMPLES][INPUTS] = {{1, 0.5, 0, 0.25}, {0, 1, 1, 0.5}};
  double hidden[SAMPLES][HIDDEN], out[SAMPLES][CLASSES];
  for (int s = 0; s < SAMPLES; ++s) {
    for (int j = 0; j < HIDDEN; ++j) {
      double z = b1[j];
      for (int i = 0; i < INPUTS; ++i) {
        z += W1[j][i] * x[s][i];
      }
      hidden[s][j] = z > 0 ? z : 0; /* after the ReLU: that is what goes into the next layer */
    }
    for (int c = 0; c < CLASSES; ++c) {
      out[s][c] = c == 1 ? b2[c] : 0; /* explain class 1: all other entries are 0 */
      for (int j = 0; c == 1 && j < HIDDEN; ++j) {
        out[s][c] += W2[c][j] * hidden[s][j];
      }
    }
  }

  pylrp_network* network = NULL;
  must(pylrp_network_new(PYLRP_FLOAT64, &network));
  must(pylrp_network_add_dense(network, HIDDEN, INPUTS, W1, PYLRP_BY_ROWS, b1));
  must(pylrp_network_add_dense(network, CLASSES, HIDDEN, W2, PYLRP_BY_ROWS, b2));

  double R[SAMPLES][INPUTS], R_hidden[SAMPLES][HIDDEN], ledger[2][PYLRP_LEDGER_COLUMNS][SAMPLES];
  const void* acts[] = {x, hidden};
  void* relevance[] = {R, R_hidden};
  pylrp_call call = {sizeof call, SAMPLES, acts, out, relevance, &ledger[0][0][0], 0, NULL, NULL};

  must(pylrp_relevance(network, &call)); /* deep_taylor, the composite of a new network */
  printf("deep Taylor  %8.4f of %8.4f arrive\n", sum(R[0], INPUTS), sum(out[0], CLASSES));

  const pylrp_parameter parameters[] = {{"epsilon", 0.01}};
  pylrp_rule* rule = NULL;
  must(pylrp_rule_named("epsilon", "zennit", parameters, 1, &rule));
  must(pylrp_network_set_rule(network, 0, rule, NULL, NULL));
  must(pylrp_network_set_rule(network, 1, rule, NULL, NULL));
  pylrp_rule_free(rule); /* the network keeps what it needs */
  must(pylrp_relevance(network, &call));
  for (int s = 0; s < SAMPLES; ++s) {
    double taken = 0; /* by biases and epsilon, in both layers */
    for (int l = 0; l < 2; ++l) {
      for (int column = PYLRP_BIAS; column < PYLRP_LEDGER_COLUMNS; ++column) {
        taken += ledger[l][column][s];
      }
    }
    printf("epsilon      %8.4f of %8.4f arrive, %8.4f are taken on the way\n", sum(R[s], INPUTS), sum(out[s], CLASSES),
           taken);
    if (fabs(sum(out[s], CLASSES) - sum(R[s], INPUTS) - taken) > 1e-12) {
      return 1;
    }
  }

  /* A mistake is a code and a text. */
  if (pylrp_network_add_dense(network, 5, 7, W1, PYLRP_BY_ROWS, NULL) != PYLRP_INVALID) {
    return 1;
  }
  printf("a mistake:   %s\n", pylrp_last_error());
  pylrp_network_free(network);
  return 0;
}
