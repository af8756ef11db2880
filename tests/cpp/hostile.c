/* Everything about pylrp.h that a caller can get wrong without writing to memory that is not theirs: each call fails
 * with a code and a text, and the handles go on to work. tests/core/test_capi.py runs it, under valgrind too.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pylrp.h"

static int failures = 0;

static void expect(int line, pylrp_status found, pylrp_status wanted) {
  const int has_text = pylrp_last_error()[0] != '\0';
  if (found != wanted || has_text != (wanted != PYLRP_OK)) {
    printf("line %d: status %d, expected %d: %s\n", line, (int)found, (int)wanted, pylrp_last_error());
    ++failures;
  }
}
#define EXPECT(wanted, call) expect(__LINE__, call, wanted)

static const double W1[2][3] = {{1, -1, 0.5}, {0.25, 2, 0}};
static const double W2[1][2] = {{1, 1}};
static const double x[2][3] = {{1, 0.5, 0}, {0, 1, 1}};
static const double hidden[2][2] = {{0.5, 1.25}, {0, 2}};
static const double out[2][1] = {{1.75}, {2}};

static void rules(void) {
  pylrp_rule* rule = NULL;
  const pylrp_parameter nameless[] = {{NULL, 1}};
  const pylrp_parameter twice[] = {{"epsilon", 0.5}, {"epsilon", 0.25}};
  const pylrp_parameter odd[] = {{"epsilon", NAN}};
  char endless[100000];
  memset(endless, 'x', sizeof endless);
  endless[sizeof endless - 1] = '\0';
  EXPECT(PYLRP_INVALID, pylrp_rule_named("epsilon", NULL, NULL, 0, NULL));
  EXPECT(PYLRP_INVALID, pylrp_rule_named(NULL, NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("", NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named(endless, NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("%s%n", NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("\xff\xfe", NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("epsilon", "", NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("epsilon", NULL, NULL, 1, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("epsilon", NULL, nameless, 1, &rule));
  EXPECT(PYLRP_INVALID, pylrp_rule_named("epsilon", NULL, odd, 1, &rule));
  EXPECT(PYLRP_OK, pylrp_rule_named("epsilon", NULL, twice, 2, &rule));
  pylrp_rule_free(rule);
  {
    pylrp_term term = {PYLRP_INPUT, PYLRP_SIGNS, 1, 1, 1};
    pylrp_group group = {NULL, 1, PYLRP_NONE, 0, 0, 1, PYLRP_ALL, PYLRP_SIGNED, 0};
    pylrp_group many[1000];
    size_t i;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(NULL, 1, &rule));
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, NULL));
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.terms = &term;
    group.term_count = 0;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.term_count = 1;
    group.stabilizer = -1;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.stabilizer = 0;
    group.coefficient = INFINITY;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.coefficient = 1;
    term.sign = NAN;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    term.sign = 1;
    group.mask = (pylrp_mask)17;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.mask = PYLRP_ALL;
    group.bias = (pylrp_map)-3;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    group.bias = PYLRP_NONE;
    term.part = (pylrp_part)99;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    term.part = PYLRP_INPUT;
    term.map = PYLRP_NONE;
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(&group, 1, &rule));
    term.map = PYLRP_SIGNS;
    for (i = 0; i < sizeof many / sizeof many[0]; ++i) {
      many[i] = group;
    }
    EXPECT(PYLRP_INVALID, pylrp_rule_from_groups(many, 1000, &rule));
    EXPECT(PYLRP_OK, pylrp_rule_from_groups(&group, 1, &rule));
    pylrp_rule_free(rule);
  }
  pylrp_rule_free(NULL);
  if (pylrp_rule_groups(NULL, NULL) != NULL || pylrp_rule_name(SIZE_MAX) != NULL ||
      pylrp_composite_name(1000000) != NULL || pylrp_convention_name(4) != NULL) {
    ++failures;
  }
}

static void networks(void) {
  pylrp_network* network = NULL;
  pylrp_rule* rule = NULL;
  const double nothing = NAN;
  EXPECT(PYLRP_INVALID, pylrp_network_new(PYLRP_FLOAT64, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_new((pylrp_dtype)2, &network));
  EXPECT(PYLRP_OK, pylrp_network_new(PYLRP_FLOAT64, &network));
  EXPECT(PYLRP_OK, pylrp_rule_named("epsilon", NULL, NULL, 0, &rule));
  EXPECT(PYLRP_INVALID, pylrp_network_check_later(NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(NULL, 2, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, 2, 3, NULL, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, 0, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, -2, -3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, INT64_MAX, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, INT64_MIN, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, (int64_t)1 << 32, (int64_t)1 << 32, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, (int64_t)1 << 24, (int64_t)1 << 21, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, 2, 3, W1, (pylrp_order)2, NULL));
  EXPECT(PYLRP_NOT_FINITE, pylrp_network_add_dense(network, 1, 1, &nothing, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_NOT_FINITE, pylrp_network_add_dense(network, 1, 1, W1, PYLRP_BY_ROWS, &nothing));
  EXPECT(PYLRP_INVALID, pylrp_network_set_rule(network, 0, rule, NULL, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_rule(NULL, 0, rule, NULL, NULL));
  EXPECT(PYLRP_OK, pylrp_network_add_dense(network, 2, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_add_dense(network, 2, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_rule(network, 0, NULL, NULL, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_rule(network, INT64_MIN, rule, NULL, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_composite(network, NULL, NULL, NULL, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_composite(NULL, "epsilon", NULL, NULL, NULL));
  EXPECT(PYLRP_INVALID, pylrp_network_set_composite(network, "epsilon", "nobody", NULL, NULL));
  pylrp_rule_free(rule);
  pylrp_network_free(network);
  pylrp_network_free(NULL);
  if (pylrp_network_depth(NULL) != 0) {
    ++failures;
  }
}

static int always(void* data) { return *(const int*)data; }

static void calls(void) {
  pylrp_network* network = NULL;
  double R[2][3], again[2][3], ledger[2][PYLRP_LEDGER_COLUMNS][2];
  const double bad[2][1] = {{INFINITY}, {1}};
  const void* acts[] = {x, hidden};
  const void* holes[] = {NULL, NULL};
  void* relevance[] = {R, NULL};
  void* nowhere[] = {NULL, NULL};
  int yes = 1;
  const pylrp_call right = {sizeof(pylrp_call), 2, acts, out, relevance, &ledger[0][0][0], 0, NULL, NULL};
  pylrp_call call = right;
  EXPECT(PYLRP_OK, pylrp_network_new(PYLRP_FLOAT64, &network));
  EXPECT(PYLRP_INVALID, pylrp_relevance(network, &call)); /* no layers */
  EXPECT(PYLRP_OK, pylrp_network_add_dense(network, 2, 3, W1, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_OK, pylrp_network_add_dense(network, 1, 2, W2, PYLRP_BY_ROWS, NULL));
  EXPECT(PYLRP_OK, pylrp_relevance(network, &call));
  memcpy(again, R, sizeof R);
  EXPECT(PYLRP_INVALID, pylrp_relevance(NULL, &call));
  EXPECT(PYLRP_INVALID, pylrp_relevance(network, NULL));
#define WRONG(status, member, value) \
  call = right;                      \
  call.member = value;               \
  EXPECT(status, pylrp_relevance(network, &call))
  WRONG(PYLRP_INVALID, size, 0);
  WRONG(PYLRP_INVALID, size, sizeof(pylrp_call) + 8); /* of a later version */
  WRONG(PYLRP_INVALID, batch, -1);
  WRONG(PYLRP_INVALID, batch, (int64_t)1 << 42);
  WRONG(PYLRP_INVALID, batch, INT64_MAX / 64);
  WRONG(PYLRP_INVALID, batch, INT64_MAX);
  WRONG(PYLRP_INVALID, acts, NULL);
  WRONG(PYLRP_INVALID, acts, holes);
  WRONG(PYLRP_INVALID, out, NULL);
  WRONG(PYLRP_NOT_FINITE, out, bad);
  WRONG(PYLRP_INVALID, relevance, NULL);
  WRONG(PYLRP_INVALID, relevance, nowhere);
  WRONG(PYLRP_INVALID, threads, -1);
  WRONG(PYLRP_OK, threads, 1000000);
  WRONG(PYLRP_OK, batch, 0);
  call = right;
  call.stop = always;
  call.stop_data = &yes;
  (void)pylrp_relevance(network, &call); /* too short to be asked, or stopped */
  EXPECT(PYLRP_OK, pylrp_relevance(network, &right));
  if (memcmp(again, R, sizeof R) != 0) {
    printf("mistakes changed the network\n");
    ++failures;
  }
  pylrp_network_free(network);
}

int main(void) {
  if (pylrp_api_version() != PYLRP_API_VERSION) {
    return 2;
  }
  rules();
  networks();
  calls();
  printf("%d failures\n", failures);
  return failures ? 1 : 0;
}
