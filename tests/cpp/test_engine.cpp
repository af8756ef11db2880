// Dense layers one above the other: the plan, the chain; activations.
#include <algorithm>
#include <functional>
#include <limits>

#include "base/error.hpp"
#include "check.hpp"
#include "dense_network.hpp"
#include "engine/chain.hpp"

namespace pylrp {
namespace {

// Layer by layer, with the activations and the relevance above it that the library itself computed.
template <class T>
void check_network(Index batch, const Kind& kind) {
  const std::vector<Index> widths{71, 67, 53, 19};
  check::context = std::string(kind.rules[0]) + ", " + kind.rules[1] + ", batch " + std::to_string(batch) + ", bytes " +
                   std::to_string(sizeof(T));
  Network<T> network(widths, batch, kind);
  Question<T> question = network.question(2);
  question.asked = network.net.all_values();
  const Plan<T> plan = network.net.plan(2);
  const Answer<T> answer = ask(network.net, plan, network.x, question);
  for (std::size_t l = 0; l < 3; ++l) {
    DenseData<T> one(batch, widths[l], widths[l + 1], static_cast<unsigned>(l), false);  // the same weights and bias
    const std::vector<T>& from = answer.values[network.inputs[l]];
    const std::vector<T>& to = answer.values[l == 2 ? network.top : network.inputs[l + 1]];
    const std::vector<T>& above = answer.relevance[network.outputs[l]];
    for (Index i = 0; i < batch; ++i) {
      std::copy_n(from.begin() + i * widths[l], widths[l], one.input.row(i));
      std::copy_n(above.begin() + i * widths[l + 1], widths[l + 1], one.relevance.row(i));
    }
    const std::size_t node = network.net.node_of(network.outputs[l]);
    const Reference expected = reference<T>(one.wires(true), one, network.net.rule(node)->rule(), Care::kCount);
    bool forward = true, right = true;
    for (std::size_t n = 0; n < expected.output.size(); ++n) {
      const Sum64& z = expected.output[n];
      const double leaky = z.value < 0 ? z.value / 2 : z.value;
      const double wanted = kind.smooth ? std::tanh(leaky) : (l < 2 && z.value < 0 ? 0 : z.value);
      forward = forward && near(static_cast<double>(to[n]), wanted, z.error + kFew * kUnit<T>);
    }
    CHECK(forward);
    Index looked_at = 0;
    for (Index i = 0; i < batch; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (expected.unsure[at] > 0) {
        continue;
      }
      ++looked_at;
      const auto column = [&](Ledger::Column c) { return answer.page(node, c, i); };
      Sum64 in, out;
      for (Index j = 0; j < widths[l + 1]; ++j) {
        in.add(static_cast<double>(one.relevance.at(i, j)));
      }
      for (Index k = 0; k < widths[l]; ++k) {
        const std::size_t entry = static_cast<std::size_t>(i * widths[l] + k);
        const Sum64& r = expected.relevance[entry];
        right = right && near(answer.relevance[network.inputs[l]][entry], r);
        out.add(r.value, r.error);
      }
      CHECK(near(column(Ledger::incoming), in.value, bound<double>(in, widths[l + 1])));
      CHECK(near(column(Ledger::outgoing), out.value, bound<double>(out, widths[l])));
      CHECK(near(column(Ledger::bias), expected.absorbed[0][at]));
      CHECK(near(column(Ledger::stabilizer), expected.absorbed[1][at]));
      CHECK(near(column(Ledger::dead), expected.absorbed[2][at]));
      CHECK(column(Ledger::padding) == 0 && column(Ledger::batchnorm) == 0 && column(Ledger::masked) == 0);
      CHECK(near(column(Ledger::rounding), 0,
                 out.error + expected.absorbed[0][at].error + expected.absorbed[1][at].error +
                     expected.absorbed[2][at].error));
    }
    CHECK(right && 10 * looked_at >= 9 * batch);
  }
  // What is not wanted may be overwritten or never be: the same numbers.
  const Answer<T> fewer = ask(network.net, plan, network.x, network.question(2, false));
  CHECK(same_bits(network.numbers(answer), network.numbers(fewer)) && same_bits(answer.ledger, fewer.ledger));
}
TEST(network_layer_by_layer) {
  for (const Index batch : {1, 4, 5, 15, 29}) {
    for (const Kind& kind : kKinds) {
      check_network<float>(batch, kind);
      check_network<double>(batch, kind);
    }
  }
}

// The chain without anything prepared, kept or known gives the same up to rounding; and a layer may pass R through.
TEST(chain_without_preparation) {
  const Index batch = 6;
  Network<double> network({30, 20, 10}, batch);
  const Answer<double> answer = network.explain(network.net.plan(), 1);
  Fenced<double> first(batch, 30), second(batch, 20), passed(batch, 10), top(batch, 10);
  fill_top(top, batch);
  const CompiledRule pass_through{Rule{}};
  const auto values = [&](std::size_t l, Index width) {
    return Matrix<const double>{answer.values[network.inputs[l]].data(), batch, width, width};
  };
  std::vector<ChainLayer<double>> chain(3);
  for (std::size_t l : {0u, 1u}) {
    chain[l].dense = network.net.dense_data(l).layer();
    chain[l].rule = network.net.rule(network.net.node_of(network.outputs[l]));
    chain[l].input = values(l, l == 0 ? 30 : 20);
    chain[l].result = l == 0 ? first.view() : second.view();
  }
  chain[2] = {{}, &pass_through, {}, false, nullptr, {}, {}, passed.view()};
  std::vector<double> ledger(3 * kLedgerColumns * static_cast<std::size_t>(batch), 99.0);
  relevance_through_chain<double>(chain, top.read(), ledger.data(), {1});
  CHECK(same_bits(passed.entries(), top.entries()));
  for (Index i = 0; i < batch; ++i) {
    for (Index k = 0; k < 30; ++k) {
      const double r = answer.relevance[0][static_cast<std::size_t>(i * 30 + k)];
      CHECK(near(first.at(i, k), r, 1e-10 * (1 + std::abs(r))));
    }
    for (std::size_t l : {0u, 1u}) {
      for (int column = 0; column < kLedgerColumns; ++column) {
        const double wanted =
            answer.page(network.net.node_of(network.outputs[l]), static_cast<Ledger::Column>(column), i);
        const double found =
            ledger[(l * kLedgerColumns + static_cast<std::size_t>(column)) * static_cast<std::size_t>(batch) +
                   static_cast<std::size_t>(i)];
        CHECK(near(found, wanted, 1e-10 * (1 + std::abs(wanted))));
      }
    }
  }
  relevance_through_chain<double>(chain, top.read(), nullptr, {1});
  CHECK(first.intact() && second.intact() && passed.intact());
}

TEST(activations) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto softplus = [](double x) { return std::max(x, 0.0) + std::log(1 + std::exp(-std::abs(x))); };
  const auto cases = std::vector<std::pair<Activation, std::function<double(double)>>>{
      {{ActivationKind::kIdentity}, [](double x) { return x; }},
      {{ActivationKind::kReLU}, [](double x) { return std::max(x, 0.0); }},
      {{ActivationKind::kLeakyReLU, 0.125}, [](double x) { return x > 0 ? x : x / 8; }},
      {{ActivationKind::kELU, 2}, [](double x) { return x > 0 ? x : 2 * (std::exp(x) - 1); }},
      {{ActivationKind::kGELU}, [](double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; }},
      {{ActivationKind::kGELUTanh},
       [](double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))); }},
      {{ActivationKind::kSiLU}, [&](double x) { return x * sigmoid(x); }},
      {{ActivationKind::kHardSwish}, [](double x) { return x * std::min(std::max(x + 3, 0.0), 6.0) / 6; }},
      {{ActivationKind::kTanh}, [](double x) { return std::tanh(x); }},
      {{ActivationKind::kSigmoid}, sigmoid},
      {{ActivationKind::kSoftplus}, softplus},
      {{ActivationKind::kClip, -0.5, 2}, [](double x) { return std::min(std::max(x, -0.5), 2.0); }},
      {{ActivationKind::kHardSigmoid, 0.2, 0.5}, [](double x) { return std::min(std::max(0.2 * x + 0.5, 0.0), 1.0); }},
      {{ActivationKind::kMish}, [&](double x) { return x * std::tanh(softplus(x)); }},
  };
  for (const auto& [activation, expected] : cases) {
    check::context = "kind " + std::to_string(static_cast<int>(activation.kind));
    const Index rows = 9, cols = 5000;  // several tasks
    Fenced<float> x(rows, cols, 1), y(rows, cols, 1);
    Random random(2);
    x.fill([&] { return random(-8, 8); });
    x.at(3, 5) = std::numeric_limits<float>::quiet_NaN();
    x.at(3, 6) = 0;
    activate<float>(activation, x.read(), y.view(), {3});
    bool right = true;
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) {
        const double v = static_cast<double>(x.at(i, j));
        // each of a few functions is off by an ulp of a number of the size of x at most
        right = right && (std::isnan(v) ? std::isnan(y.at(i, j))
                                        : near(static_cast<double>(y.at(i, j)), expected(v),
                                               kFew * kUnit<float> * (1 + std::abs(v))));
      }
    }
    CHECK(right);
    CHECK(x.intact() && y.intact());
    activate<float>(activation, x.read(), x.view(), {1});  // in place, one thread: the same bits
    bool same = true;
    for (Index i = 0; i < rows; ++i) {
      same = same && std::memcmp(x.row(i), y.row(i), cols * sizeof(float)) == 0;
    }
    CHECK(same);
  }
}

// Behind a ReLU one of gamma's groups is enough, and one product each way.
TEST(rules_get_simpler_where_signs_are_known) {
  const CompiledRule gamma(rule_named("gamma")), below(Rule{{rule_named("gamma").groups[1]}});
  CHECK(gamma.any().masked && gamma.form(true).masked && gamma.form(true).groups.size() == 2);
  for (const bool nonnegative : {false, true}) {
    const LoweredRule& form = gamma.form(nonnegative, true);
    CHECK(!form.masked && form.groups.size() == 1 && form.groups[0].mask == Mask::kAll);
    CHECK(form.back.size() == (nonnegative ? 1 : 2));
  }
  CHECK(gamma.form(true, true).sums.size() == 1 && gamma.form(true).sums.size() > 1);
  // Where nothing would be left the full form stays: a rule without groups lets relevance pass.
  CHECK(!below.form(true, true).passes() && below.form(true, true).masked);
}

TEST(rules_that_are_too_wide_are_refused) {
  Rule rule;
  for (int g = 0; g < kernels::kMaxGroups + 1; ++g) {
    rule.groups.push_back(rule_named("epsilon").groups[0]);
  }
  bool refused = false;
  try {
    lower(rule, false);
  } catch (const Error&) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace
}  // namespace pylrp
