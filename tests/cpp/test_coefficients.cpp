// Relevance by coefficients, R = a c: each layer against its own relevance() in R, and a graph that takes c against the
// same one whose layers don't.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/permutation.hpp"
#include "engine/coefficients.hpp"
#include "layer_run.hpp"
#include "layers/attention/attention.hpp"
#include "layers/matmul.hpp"
#include "net.hpp"

namespace pylrp {
namespace {

Rule of_treatment(Treatment treatment) {
  Rule rule;
  rule.treatment = treatment;
  return rule;
}
// R in proportion to contributions, biases included, without a stabilizer.
Rule exact_rule() { return {{{{{Part::kInput, {}}}, {BiasKind::kSigns, 1, 1}, 1, Mask::kAll, Guard::kSigned, 0}}}; }

// relevance() from R = z c in R, and from c in c: R_in is a c_in, and the same gets lost. Entries are not 0.
template <class T>
void check_layer(const Layer<T>& layer, const std::vector<Index>& sizes, Index output, const CompiledRule* rule) {
  CHECK(layer.coefficients(rule) != Coefficients::kNever);
  std::vector<std::unique_ptr<Fenced<T>>> inputs, of_r, of_c;
  RelevanceJob<T> in_r;
  Random random(5);
  const auto entry = [&] { return (random.chance(0.5) ? 1 : -1) * random(0.25, 1.0); };
  std::vector<Matrix<const T>> views;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    inputs.push_back(std::make_unique<Fenced<T>>(kBatch, sizes[k]));
    inputs.back()->fill(entry);
    views.push_back(inputs.back()->read());
    of_r.push_back(std::make_unique<Fenced<T>>(kRows, sizes[k], 2));
    of_c.push_back(std::make_unique<Fenced<T>>(kRows, sizes[k], 1));
    in_r.results.push_back(layer.hands_to(k, rule) ? of_r.back()->view() : Matrix<T>{});
  }
  Fenced<T> out(kBatch, output), c(kRows, output), r(kRows, output);
  layer.forward(views, out.view(), {}, {1});
  c.fill(entry);
  for (Index row = 0; row < kRows; ++row) {
    for (Index j = 0; j < output; ++j) {
      r.at(row, j) = c.at(row, j) * out.at(row % kBatch, j);
    }
  }
  in_r.inputs = views;
  in_r.output = out.read();
  in_r.batch = kBatch;
  in_r.rule = rule;
  RelevanceJob<T> in_c = in_r;
  std::vector<kernels::Absorbed> lost_r(kRows), lost_c(kRows), again(kRows);
  in_r.relevance = r.read();
  in_r.absorbed = lost_r.data();
  in_c.relevance = c.read();
  in_c.absorbed = lost_c.data();
  in_c.coefficients = true;
  std::unique_ptr<Prepared> prepared;
  if (rule != nullptr && layer.flow() == Flow::kRule) {
    prepared = layer.prepare(*rule, {}, {1});
    in_r.prepared = in_c.prepared = prepared.get();
  }
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    in_c.results[k] = in_r.results[k] ? of_c[k]->view() : Matrix<T>{};
  }
  const bool passes = layer.flow_under(rule) == Flow::kIdentity;
  if (!passes) {
    layer.relevance(in_r, {1});
  }
  layer.relevance(in_c, {1});
  const double tolerance = sizeof(T) == 4 ? 3e-4 : 1e-11;
  for (Index row = 0; row < kRows; ++row) {
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      for (Index j = 0; in_r.results[k] && j < sizes[k]; ++j) {
        const double expected = static_cast<double>(passes ? r.at(row, j) : of_r[k]->at(row, j));
        const double found = static_cast<double>(of_c[k]->at(row, j) * inputs[k]->at(row % kBatch, j));
        CHECK(std::abs(found - expected) <= tolerance * std::max(1.0, std::abs(expected)));
      }
    }
    const kernels::Absorbed &one = lost_r[static_cast<std::size_t>(row)],
                            &other = lost_c[static_cast<std::size_t>(row)];
    const auto near = [&](double a, double b) {
      return std::abs(a - b) <= 30 * tolerance * std::max(1.0, std::abs(a));
    };
    CHECK(near(one.bias, other.bias) && near(one.constant, other.constant) && near(one.softmax, other.softmax));
    CHECK(near(one.padding, other.padding) && near(one.batchnorm, other.batchnorm) && other.dead == 0);
  }
  // The same bits on more threads.
  std::vector<std::vector<T>> before;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    before.push_back(in_c.results[k] ? of_c[k]->entries() : std::vector<T>{});
  }
  in_c.absorbed = again.data();
  layer.relevance(in_c, {3});
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    CHECK(!in_c.results[k] || same_bits(before[k], of_c[k]->entries()));
    CHECK(inputs[k]->intact() && of_c[k]->intact());
  }
  CHECK(c.intact() && out.intact());
}

template <class T>
void check_weights() {
  const CompiledRule exact{exact_rule()};
  for (const Index positions : {Index{1}, Index{2}, Index{9}}) {
    check::context = "dense, positions " + std::to_string(positions);
    DenseData<T> data(1, 70, 45, 3, false);
    check_layer<T>(DenseLayer<T>(data.layer(), positions), {70 * positions}, 45 * positions, &exact);
  }
  check::context = "rules with a stabilizer, or parts";
  DenseData<T> data(1, 7, 5, 3, false);
  for (const char* name : {"epsilon", "z+", "gamma", "w^2", "z-box", "no bias"}) {
    const CompiledRule rule(rule_named(name));
    CHECK(DenseLayer<T>(data.layer(), 3).coefficients(&rule) == Coefficients::kNever);
  }
}

template <class T>
void check_normalisations() {
  const std::vector<GroupAxis> rows{{3, 34, 0, false}, {34, 1, 1, true}}, columns{{34, 3, 1, true}, {3, 1, 0, false}};
  for (const Treatment treatment : {Treatment::kDetach, Treatment::kDetachAll}) {
    const CompiledRule rule(of_treatment(treatment));
    for (const auto& axes : {rows, columns}) {
      for (const bool centred : {true, false}) {
        StandardizeSettings<T> settings;
        settings.axes = axes;
        settings.statistic.centred = centred;
        settings.statistic.weight = 1.0 / 34;
        settings.statistic.inside = 1e-3;
        for (Index i = 0; i < 34; ++i) {
          settings.scale.push_back(T(0.5) + T(0.03) * static_cast<T>(i % 7));
          settings.shift.push_back(centred ? T(0.1) * static_cast<T>(i % 5) : T(0));
        }
        if (!centred) {
          settings.shift.clear();
        }
        check::context = "normalisation";
        check_layer<T>(StandardizeLayer<T>(settings), {102}, 102, &rule);
      }
    }
  }
}

// Two heads side by side.
Heads two_heads(Index tokens, Index width) {
  Heads heads;
  heads.queries = heads.keys = tokens;
  heads.width = heads.value_width = width;
  heads.scale = 0.5;
  heads.q.at = heads.k.at = heads.v.at = heads.out.at = {0, width};
  heads.k.input = 1;
  heads.v.input = 2;
  heads.q.row = heads.k.row = heads.v.row = heads.out.row = 2 * width;
  heads.q.col = heads.k.col = heads.v.col = heads.out.col = 1;
  heads.covered = {true, true, true};
  return heads;
}

template <class T>
void check_products() {
  for (const Treatment treatment : {Treatment::kTaylor, Treatment::kStop, Treatment::kValueRight}) {
    check::context = "attention";
    const CompiledRule rule(of_treatment(treatment));
    check_layer<T>(AttentionLayer<T>(two_heads(70, 4), {}), {560, 560, 560}, 560, &rule);
  }
  for (const Treatment treatment : {Treatment::kHalf, Treatment::kValueLeft, Treatment::kValueRight}) {
    check::context = "matrix product";
    const CompiledRule rule(of_treatment(treatment));
    Products products;
    products.leading = {2};
    products.rows = 5;
    products.depth = 3;
    products.cols = 4;
    products.a = {{15}, 3, 1};
    products.b = {{0}, 4, 1};
    products.c = {{20}, 4, 1};
    check_layer<T>(MatMulLayer<T>(products), {30, 12}, 40, &rule);
  }
}

template <class T>
void check_others() {
  const CompiledRule exact{exact_rule()}, passing{Rule{}};
  check::context = "scaling and shift";
  check_layer<T>(AffineLayer<T>({2, T(-0.5), 1}, {0, T(0.25), 1}), {12}, 12, &exact);
  check_layer<T>(AffineLayer<T>({2, T(-0.5), 1}, {0, 0, 0}), {12}, 12, &exact);
  check::context = "interpolation, with a constant";
  const std::int32_t index[] = {0, 1, 1, 2, 3, -1, 0, 3};
  const T weight[] = {T(0.5), 1, T(0.25), -1, 2, 1, 1, T(0.5)};
  check_layer<T>(SparseLayer<T>(4, 4, 2, index, weight, T(0.5)), {4}, 4, &exact);
  for (const ActivationKind kind : {ActivationKind::kGELU, ActivationKind::kSiLU, ActivationKind::kTanh,
                                    ActivationKind::kReLU, ActivationKind::kLeakyReLU}) {
    check::context = "function";
    check_layer<T>(ActivationLayer<T>({kind, 0.25}), {40}, 40, &passing);
  }
  CHECK(ActivationLayer<T>({ActivationKind::kSigmoid}).coefficients(&passing) == Coefficients::kNever);
}

TEST(coefficients_are_relevance_over_value) {
  check_weights<float>();
  check_weights<double>();
  check_normalisations<float>();
  check_normalisations<double>();
  check_products<float>();
  check_products<double>();
  check_others<float>();
  check_others<double>();
}

TEST(coefficients_of_functions_at_0_are_limits) {
  const auto at_zero = [](const Activation& f) {
    const double zero = 0, one = 1;
    double made = 99, y = 0;
    RelevanceJob<double> job;
    job.inputs = {{&zero, 1, 1, 1}};
    job.output = {&y, 1, 1, 1};
    job.relevance = {&one, 1, 1, 1};
    job.results = {{&made, 1, 1, 1}};
    job.batch = 1;
    job.coefficients = true;
    ActivationLayer<double>(f).relevance(job, {1});
    return made;
  };
  CHECK(std::abs(at_zero({ActivationKind::kGELU}) - 0.5) < 1e-8);
  CHECK(std::abs(at_zero({ActivationKind::kSiLU}) - 0.5) < 1e-8);
  CHECK(std::abs(at_zero({ActivationKind::kTanh}) - 1) < 1e-8);
  CHECK(at_zero({ActivationKind::kReLU}) == 0 && at_zero({ActivationKind::kLeakyReLU, 0.25}) == 0);
}

constexpr Index kTokens = 9, kWidth = 12, kWide = 40;

// The block of a transformer twice, and a head on all tokens; a maximum between them reads a residual sum, too, and
// takes R only. Queries and keys get no relevance: of the one block they come from what the values come from, of the
// other from what is read last before it is the attention's turn.
template <class T>
struct Blocks {
  Net<T> net;
  std::vector<std::unique_ptr<DenseData<T>>> data;
  std::size_t top = 0, inside = 0, summed = 0;

  explicit Blocks(bool spied) : net({kTokens * kWidth}, spied) {
    std::size_t value = norm(0);
    for (int block = 0; block < 2; ++block) {
      const std::size_t aside = block == 1 ? value : net.add(max_over_tokens(), {value}, kTokens * kWidth);
      value = sum({value, attention(aside, value)});
      inside = linear(value, kWide);
      const std::size_t more = linear(net.activation(inside, {ActivationKind::kGELU}), kWidth);
      summed = block == 0 ? sum({value, more}) : sum({value, more, value});
      const std::size_t most = net.add(max_over_tokens(), {summed}, kTokens * kWidth);
      value = sum({norm(summed), most, aside});
    }
    top = linear(value, 3);
  }
  std::size_t linear(std::size_t from, Index out) {
    const Index in = net.size(from) / kTokens;
    data.push_back(std::make_unique<DenseData<T>>(1, in, out, static_cast<unsigned>(data.size()), false));
    return net.add(std::make_unique<DenseLayer<T>>(data.back()->layer(), kTokens), {from}, out * kTokens, exact());
  }
  std::size_t sum(std::vector<std::size_t> from) {
    return net.add(std::make_unique<AddLayer<T>>(), from, net.size(from[0]), exact());
  }
  std::size_t attention(std::size_t queries, std::size_t values) {
    auto layer = std::make_unique<AttentionLayer<T>>(two_heads(kTokens, kWidth / 2), std::vector<AddedToScores<T>>{});
    const std::size_t q = linear(queries, kWidth), k = linear(queries, kWidth), v = linear(values, kWidth);
    return net.add(std::move(layer), {q, k, v}, kTokens * kWidth,
                   &rules.emplace_back(of_treatment(Treatment::kValueRight)));
  }
  std::size_t norm(std::size_t from) {
    StandardizeSettings<T> settings;
    settings.axes = {{kTokens, kWidth, 0, false}, {kWidth, 1, 1, true}};
    settings.statistic.centred = true;
    settings.statistic.weight = 1.0 / kWidth;
    settings.statistic.inside = 1e-3;
    settings.scale.assign(kWidth, T(0.75));
    settings.shift.assign(kWidth, T(0.25));
    return net.add(std::make_unique<StandardizeLayer<T>>(settings), {from}, net.size(from),
                   &rules.emplace_back(of_treatment(Treatment::kDetach)));
  }

 private:
  const CompiledRule* exact() { return &rules.emplace_back(exact_rule()); }
  static std::unique_ptr<Layer<T>> max_over_tokens() {
    PoolAxis flat{{0}, {1}, {1}, 1, 1}, tokens;
    for (Index t = 0; t < kTokens; ++t) {
      tokens.begin.push_back(std::max<Index>(t - 1, 0));
      tokens.end.push_back(t + 1);
      tokens.count.push_back(1);
    }
    tokens.in = kTokens;
    return std::make_unique<PoolLayer<T>>(true, std::array<PoolAxis, 3>{flat, flat, tokens}, kWidth);
  }
  std::deque<CompiledRule> rules;
};

template <class T>
bool near(const Answer<T>& one, const Answer<T>& other, std::size_t value, double within) {
  double most = 0, off = 0;
  for (std::size_t i = 0; i < one.relevance[value].size(); ++i) {
    const double a = static_cast<double>(one.relevance[value][i]), b = static_cast<double>(other.relevance[value][i]);
    most = std::max(most, std::abs(a));
    off = std::max(off, std::abs(a - b));
  }
  return most > 0 ? off <= within * most : value != 0 && off == 0;  // queries get none
}

template <class T>
void check_graph(double within) {
  Blocks<T> by_r(true), by_c(false);
  const Inputs<T> inputs(by_r.net, 1, 2, 4);
  ChannelMask mask{by_r.inside, std::vector<bool>(kWide, true)};
  mask.channels[3] = mask.channels[17] = false;
  const Plan<T> plan_r = by_r.net.plan(), plan_c = by_c.net.plan();
  for (const auto& masks : {std::vector<ChannelMask>{}, std::vector<ChannelMask>{mask}}) {
    const Question<T> question{by_r.top, 2, {}, by_r.net.all_values(), masks};
    const Answer<T> expected = ask(by_r.net, plan_r, inputs, question);
    const Answer<T> found = ask(by_c.net, plan_c, inputs, question);
    for (const std::size_t value : by_r.net.all_values()) {
      check::context = "value " + std::to_string(value);
      CHECK(near(expected, found, value, within));
    }
    for (std::size_t i = 0; i < expected.ledger.size(); ++i) {
      CHECK(std::abs(expected.ledger[i] - found.ledger[i]) <= 1e3 * within);
    }
    CHECK(found.left.empty());
    check::context = "only the input's relevance, other numbers of threads";
    const Answer<T> alone = ask(by_c.net, plan_c, inputs, {by_r.top, 2, {}, {0}, masks});
    const Answer<T> threads = ask(by_c.net, plan_c, inputs, {by_r.top, 2, {}, {0}, masks, 3});
    CHECK(same_bits(alone.relevance[0], found.relevance[0]) && same_bits(threads.relevance[0], alone.relevance[0]));
    CHECK(same_bits(alone.ledger, found.ledger) && same_bits(threads.ledger, alone.ledger));
    CHECK(alone.left.empty());
  }
}

TEST(coefficients_through_a_graph) {
  check_graph<double>(1e-11);
  check_graph<float>(1e-4);
}

// Functions, normalisations, summands and products that are not kept: the same relevance, and the same ledger but for
// rounding.
template <class T>
void check_made_again(double within) {
  Blocks<T> blocks(false);
  const Inputs<T> inputs(blocks.net, 1, 2, 4);
  const Plan<T> plan = blocks.net.plan();
  Question<T> question{blocks.top, 2, {}, {0, blocks.inside}};
  const Answer<T> all = ask(blocks.net, plan, inputs, question);
  std::size_t kept = all.kept;
  const Index value = 2 * kTokens * kWidth * Index{sizeof(T)};
  for (const Index most : {20 * value, 12 * value, Index{0}}) {
    check::context = "at most " + std::to_string(most) + " bytes";
    question.most_bytes = most;
    const Answer<T> some = ask(blocks.net, plan, inputs, question);
    CHECK(some.kept < all.kept && some.kept <= kept && some.left.empty());
    kept = some.kept;
    CHECK(same_bits(some.relevance[0], all.relevance[0]));
    CHECK(same_bits(some.relevance[blocks.inside], all.relevance[blocks.inside]));
    for (std::size_t i = 0; i < all.ledger.size(); ++i) {
      CHECK(std::abs(all.ledger[i] - some.ledger[i]) <= within);
    }
    question.wanted = {blocks.inside, blocks.summed};
    CHECK(same_bits(ask(blocks.net, plan, inputs, question).relevance[0], all.relevance[0]));
    question.wanted = {};
  }
}

TEST(coefficients_with_values_made_again) {
  check_made_again<double>(1e-10);
  check_made_again<float>(1e-2);
}

TEST(coefficients_where_they_serve) {
  Blocks<float> blocks(false);
  const Graph<float>& graph = blocks.net.graph();
  const Plan<float> plan = blocks.net.plan();
  const std::vector<bool> reached(graph.values(), true);
  const CoefficientForm form = coefficient_form(graph, plan.rules(), reached, blocks.top);
  CHECK(!form.values[0] && !form.values[blocks.top] && form.nodes[blocks.net.node_of(blocks.top)]);
  CHECK(form.values[blocks.inside] && !form.values[blocks.summed]);  // a maximum reads it
  Net<float> dense({20}, false);                                     // one position: nothing to gain
  const std::size_t top = dense.dense(dense.relu(dense.dense(0, 8, "no bias")), 3, "no bias");
  const std::vector<bool> all(dense.graph().values(), true);
  const CoefficientForm none = coefficient_form(dense.graph(), dense.plan().rules(), all, top);
  CHECK(std::none_of(none.nodes.begin(), none.nodes.end(), [](bool takes) { return takes; }));
}

}  // namespace
}  // namespace pylrp
