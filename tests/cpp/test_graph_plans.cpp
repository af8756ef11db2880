// What the engine finds out about a graph before it computes: what it may fuse, what it must keep, what it knows of
// signs.
#include "check.hpp"
#include "net.hpp"

namespace pylrp {
namespace {

const Geometry kSame{{1, 4, 4}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};

// Convolution, something, convolution; relevance from the top unless said otherwise.
struct Two {
  Net<float> net{{32}};
  std::size_t conv, between, top;

  Two(const char* rule, const Activation& activation, const char* above) {
    conv = net.conv(0, kSame.shape(2, 5), rule);
    between = net.activation(conv, activation);
    top = net.conv(between, kSame.shape(5, 3), above);
  }
  Seen run(const Question<float>& question, bool nonnegative = false) {
    const Inputs<float> inputs(net, 1, 2, 1, nonnegative);
    ask(net, net.plan(), inputs, question);
    return net.seen(conv);
  }
  Seen run() { return run({top}); }
};

constexpr Activation kReLU{ActivationKind::kReLU};

TEST(plan_knows_that_outputs_are_positive) {
  // A ReLU whose zeros get no relevance.
  for (const char* above : {"epsilon", "z+", "gamma", "alpha-beta", "no bias"}) {
    check::context = above;
    const Seen seen = Two("gamma", kReLU, above).run();
    CHECK(seen.positive && seen.fused && seen.input && !seen.output);
  }
  // Rules that give relevance to inputs that are 0.
  for (const char* above : {"w^2", "flat", "z-box"}) {
    check::context = above;
    const Seen seen = Two("gamma", kReLU, above).run();
    CHECK(!seen.positive && seen.fused);
  }
  check::context = "other activations";
  CHECK(Two("gamma", {ActivationKind::kClip, 0, 6}, "z+").run().positive);
  CHECK(!Two("gamma", {ActivationKind::kClip, -1, 6}, "z+").run().positive);
  CHECK(!Two("gamma", {ActivationKind::kLeakyReLU, 0.25}, "z+").run().positive);
  check::context = "relevance that starts at the ReLU, or before it, has any sign";
  Two two("gamma", kReLU, "z+");
  CHECK(!two.run({two.between}).positive && !two.run({two.conv}).positive && two.run({two.top}).positive);
  check::context = "values and relevance that are asked for change nothing";
  CHECK(two.run({two.top, 1, two.net.all_values(), two.net.all_values()}).positive);
}

TEST(plan_looks_at_all_readers) {
  for (const int way : {0, 1, 2, 3}) {
    check::context = "way " + std::to_string(way);
    Net<float> net{{32}};
    const std::size_t conv = net.conv(0, kSame.shape(2, 5), "gamma");
    const std::size_t relu = net.relu(conv);
    // Read by a second node: the convolution itself, or its ReLU, whose zeros then get relevance or not.
    const std::size_t other = way == 0   ? net.activation(conv, {ActivationKind::kTanh})
                              : way == 1 ? net.conv(relu, kSame.shape(5, 5), "flat")
                              : way == 2 ? net.conv(relu, kSame.shape(5, 5), "z+")
                                         : net.activation(relu, {ActivationKind::kSigmoid});
    const std::size_t top = net.conv(net.sum({relu, other}), kSame.shape(5, 3), "z+");
    const Inputs<float> inputs(net, 1, 2, 1);
    ask(net, net.plan(), inputs, {top});
    CHECK(net.seen(conv).positive == (way == 2));
    CHECK(net.seen(conv).fused == (way > 0));
  }
}

// Zeros that get no relevance because what comes later gives none to its own zeros, or does.
TEST(plan_follows_zeros_upwards) {
  for (const bool vanishes : {false, true}) {
    const auto conv_is_positive = [&](auto between) {
      Net<float> net{{32}};
      const std::size_t conv = net.conv(0, kSame.shape(2, 2), "gamma");
      const std::size_t last = between(net, net.relu(conv));
      const std::size_t top = net.dense(last, 3, vanishes ? "z+" : "flat");
      const Inputs<float> inputs(net, 1, 2, 1);
      ask(net, net.plan(), inputs, {top});
      return net.seen(conv).positive;
    };
    using From = std::size_t;
    const PoolAxis flat{{0}, {1}, {1}, 1, 1}, halves{{0, 2}, {2, 4}, {2, 2}, 1, 4};
    const auto pool = [&](bool max) {
      return [&, max](Net<float>& net, From from) {
        return net.add(std::make_unique<PoolLayer<float>>(max, std::array<PoolAxis, 3>{flat, halves, halves}, 2),
                       {from}, 8);
      };
    };
    const auto activation = [&](ActivationKind kind) {
      return [kind](Net<float>& net, From from) { return net.activation(from, {kind, 0.5, 2}); };
    };
    check::context = vanishes ? "zeros get nothing at the top" : "zeros get something at the top";
    CHECK(conv_is_positive(pool(true)) == vanishes);  // the winner of a window of zeros
    CHECK(conv_is_positive(pool(false)));             // in proportion: nothing for zeros, whatever comes
    CHECK(conv_is_positive(activation(ActivationKind::kTanh)) == vanishes);
    CHECK(!conv_is_positive(activation(ActivationKind::kSigmoid)));  // its zeros are no zeros above
    CHECK(!conv_is_positive(activation(ActivationKind::kClip)));     // from 0.5 to 2
    CHECK(conv_is_positive([](Net<float>& net, From from) {
            return net.add(std::make_unique<ConcatLayer<float>>(16, std::vector<Index>{2, 2}), {from, from}, 64);
          }) == vanishes);
    CHECK(conv_is_positive([](Net<float>& net, From from) { return net.sum({from, from}); }));
    CHECK(conv_is_positive([](Net<float>& net, From from) {
            return net.add(std::make_unique<AffineLayer<float>>(std::vector<float>{2, 3}, std::vector<float>{0, 0}),
                           {from}, 32);
          }) == vanishes);
    CHECK(conv_is_positive([](Net<float>& net, From from) {
      return net.add(std::make_unique<AffineLayer<float>>(std::vector<float>{2, 3}, std::vector<float>{1, 0}), {from},
                     32);
    }));
    CHECK(!conv_is_positive([](Net<float>& net, From from) {
      return net.add(std::make_unique<AffineLayer<float>>(std::vector<float>{2, 3}, std::vector<float>{1, 0}), {from},
                     32, net.compiled(""));
    }));
    // A layer that passes everything on may hand relevance to zeros.
    CHECK(!conv_is_positive([](Net<float>& net, From from) { return net.dense(from, 32, ""); }));
  }
}

TEST(plan_keeps_outputs_where_rules_reuse_them) {
  const Two cases[] = {{"epsilon", kReLU, "z+"},
                       {"epsilon", kReLU, "flat"},
                       {"epsilon", {ActivationKind::kClip, 0, 0.5}, "z+"},
                       {"epsilon", {ActivationKind::kLeakyReLU, 0.5}, "z+"},
                       {"no bias", kReLU, "z+"},
                       {"alpha-beta", kReLU, "alpha-beta"},
                       {"alpha-beta", kReLU, "flat"},
                       {"alpha-beta", {ActivationKind::kClip, 0, 0.5}, "z+"}};
  struct Wanted {
    bool output, fused;
  };
  // Behind a ReLU the activation stands for it, unless its zeros get relevance; else it is kept beside it, where that
  // saves all products and not half of them.
  const Wanted wanted[] = {{true, true},  {true, false}, {true, false}, {true, false},
                           {false, true}, {true, true},  {false, true}, {false, true}};
  for (std::size_t n = 0; n < 8; ++n) {
    check::context = "case " + std::to_string(n);
    const Seen seen = const_cast<Two&>(cases[n]).run();
    CHECK(seen.output == wanted[n].output && seen.fused == wanted[n].fused);
  }
  check::context = "rules that read no input";
  Two first("w^2", kReLU, "flat");
  first.run();
  CHECK(!first.net.seen(first.conv).output);
  CHECK(!first.net.seen(first.top).input && !first.net.seen(first.top).output);
}

TEST(plan_overwrites_what_nobody_wants) {
  const auto in_place = [](bool wanted, bool kept, bool read_twice) {
    Net<float> net{{9}};
    const std::size_t dense = net.dense(0, 8, kept ? "epsilon" : "z+");
    const std::size_t tanh = net.activation(dense, {ActivationKind::kTanh});
    const std::size_t last = read_twice ? net.sum({tanh, dense}) : tanh;
    const std::size_t top = net.dense(last, 3, "flat");
    const Inputs<float> inputs(net, 1, 2, 1);
    ask(net, net.plan(), inputs, {top, 1, wanted ? std::vector<std::size_t>{dense} : std::vector<std::size_t>{}});
    return net.seen(tanh).in_place;
  };
  CHECK(in_place(false, false, false));
  CHECK(!in_place(true, false, false) && !in_place(false, true, false) && !in_place(false, false, true));
  Net<float> both{{9}};  // a concatenation needs no inputs for relevance, but both for its output
  const std::size_t dense = both.dense(0, 8, "z+");
  const std::size_t tanh = both.activation(dense, {ActivationKind::kTanh});
  const std::size_t joined =
      both.add(std::make_unique<ConcatLayer<float>>(1, std::vector<Index>{8, 8}), {tanh, dense}, 16);
  const std::size_t top = both.dense(joined, 3, "flat");
  const Inputs<float> x(both, 1, 2, 1);
  ask(both, both.plan(), x, {top});
  CHECK(!both.seen(tanh).in_place);
  Net<float> net{{9}};  // the caller's memory is not ours
  const std::size_t relu = net.relu(0);
  const Inputs<float> inputs(net, 1, 2, 1);
  ask(net, net.plan(), inputs, {relu});
  CHECK(!net.seen(relu).in_place);
}

TEST(plan_knows_inputs_that_are_not_negative) {
  Two two("z+", kReLU, "z+");
  two.run({two.top}, false);
  CHECK(!two.net.seen(two.conv).nonnegative && two.net.seen(two.top).nonnegative);
  two.run({two.top}, true);  // found by looking
  CHECK(two.net.seen(two.conv).nonnegative);
  Two leaky("z+", {ActivationKind::kLeakyReLU, 0.5}, "z+");
  leaky.run();
  CHECK(!leaky.net.seen(leaky.top).nonnegative);
}

// What a graph says is never negative, is not: whatever comes in, behind every kind of layer.
TEST(graph_knows_signs) {
  using Value = std::size_t;
  Net<double> net{{32}};
  std::vector<Value> all{0, net.relu(0)};
  const auto both = [&](auto make) {
    for (const Value from : {all[0], all[1]}) {
      all.push_back(make(from));
    }
  };
  using K = ActivationKind;
  for (const Activation& f : {Activation{K::kIdentity},
                              {K::kReLU},
                              {K::kLeakyReLU, 0.5},
                              {K::kELU, 1},
                              {K::kGELU},
                              {K::kGELUTanh},
                              {K::kSiLU},
                              {K::kHardSwish},
                              {K::kTanh},
                              {K::kSigmoid},
                              {K::kSoftplus},
                              {K::kClip, -1, 0.5},
                              {K::kClip, 0.25, 1},
                              {K::kClip, -2, -0.125},
                              {K::kHardSigmoid, 0.2, 0.5},
                              {K::kMish}}) {
    both([&](Value from) { return net.activation(from, f); });
  }
  const PoolAxis flat{{0}, {1}, {1}, 1, 1}, halves{{0, 2}, {2, 4}, {2, 2}, 1, 4};
  for (const bool max : {false, true}) {
    both([&](Value from) {
      return net.add(std::make_unique<PoolLayer<double>>(max, std::array<PoolAxis, 3>{flat, halves, halves}, 2), {from},
                     8);
    });
  }
  both([&](Value from) { return net.conv(from, kSame.shape(2, 2), "z+"); });
  both([&](Value from) { return net.dense(from, 8, "z+"); });
  both([&](Value from) { return net.sum({all[1], from}); });
  both([&](Value from) {
    return net.add(std::make_unique<ConcatLayer<double>>(2, std::vector<Index>{16, 16}), {all[1], from}, 64);
  });
  both([&](Value from) {
    return net.add(std::make_unique<AffineLayer<double>>(std::vector<double>{2, -1}, std::vector<double>{1, 0}), {from},
                   32);
  });
  both([&](Value from) { return net.add(std::make_unique<PReLULayer<double>>(std::vector<double>{0.5}), {from}, 32); });
  both([&](Value from) {
    return net.add(std::make_unique<LocalResponseNormLayer<double>>(2, 2, 1, 0.75, 1), {from}, 32);
  });
  for (const bool logarithm : {false, true}) {
    both([&](Value from) { return net.add(std::make_unique<SoftmaxLayer<double>>(2, logarithm), {from}, 32); });
  }
  const std::int32_t index[] = {3, -1, 4, 31};
  for (const double fill : {-1.0, 0.0, 1.0}) {
    both([&](Value from) {
      return net.add(std::make_unique<SparseLayer<double>>(32, 4, 1, index, nullptr, fill), {from}, 4);
    });
  }
  const double mean[] = {0.5, 0.5, 0.25, 0.75};
  both([&](Value from) {
    return net.add(std::make_unique<SparseLayer<double>>(32, 2, 2, index, mean, 0.0), {from}, 2);
  });
  const double cubic[] = {-0.25, 1.25, 0.5, 0.5};
  both([&](Value from) {
    return net.add(std::make_unique<SparseLayer<double>>(32, 2, 2, index, cubic, 0.0), {from}, 2);
  });
  Index known = 0;
  for (unsigned seed = 0; seed < 4; ++seed) {
    const Inputs<double> inputs(net, 1, 8, seed);
    const Plan<double> plan = net.plan();
    const ForwardValues<double> pass = plan.forward(inputs.views(), net.all_values(), kNoValue, {1});
    for (const Value value : net.all_values()) {
      const Matrix<const double> found = pass.values[value];
      bool right = true;
      for (Index i = 0; net.graph().nonnegative(value) && i < found.rows; ++i) {
        right = right && std::all_of(found.row(i), found.row(i) + found.cols, [](double v) { return v >= 0; });
      }
      check::context = "value " + std::to_string(value);
      CHECK(right);
      known += net.graph().nonnegative(value) ? 1 : 0;
    }
  }
  CHECK(known == 4 * 32);  // and those that could be known are
}

TEST(graph_says_what_it_is) {
  Net<float> net{{6, 4}};
  const std::size_t dense = net.dense(0, 5, "z+");
  const std::size_t twice = net.sum({dense, dense});
  const Graph<float>& graph = net.graph();
  CHECK(graph.inputs() == 2 && graph.values() == 4 && graph.nodes().size() == 2);
  CHECK(graph.size(0) == 6 && graph.size(1) == 4 && graph.size(dense) == 5 && graph.size(twice) == 5);
  CHECK(graph.readers(0) == std::vector<std::size_t>{0} && graph.readers(1).empty());
  CHECK((graph.readers(dense) == std::vector<std::size_t>{1, 1}) && graph.readers(twice).empty());
}

// Where relevance does not come it is zero; a rule without groups lets it pass.
TEST(relevance_stays_where_it_belongs) {
  Net<float> net{{6, 4}};
  const std::size_t left = net.dense(0, 5, "z+");
  const std::size_t right = net.dense(1, 5, "");
  const std::size_t passed = net.dense(left, 5, "");
  const std::size_t beyond = net.relu(passed);
  const Inputs<float> inputs(net, 2, 2, 1);
  const Answer<float> answer =
      ask(net, net.plan(), inputs, {passed, 2, {beyond, right}, {0, 1, left, right, passed, beyond}});
  const auto zero = [&](std::size_t value) {
    return std::all_of(answer.relevance[value].begin(), answer.relevance[value].end(), [](float r) { return r == 0; });
  };
  CHECK(zero(1) && zero(right) && zero(beyond) && !zero(0) && !zero(left));
  CHECK(same_bits(answer.relevance[passed], answer.relevance[left]));
  CHECK(net.seen(passed).relevances == 0 && net.seen(left).relevances == 1 && net.seen(right).forwards == 1);
  const int before = net.seen(left).forwards + net.seen(right).forwards;
  const Answer<float> at_input = ask(net, net.plan(), inputs, {1, 1, {}, {0, 1}});
  Fenced<float> top(2, 4);
  fill_top(top, 2);
  CHECK(same_bits(at_input.relevance[1], top.entries()));
  CHECK(net.seen(left).forwards + net.seen(right).forwards == before);  // nothing to compute
  CHECK(std::all_of(at_input.ledger.begin(), at_input.ledger.end(), [](double v) { return v == 0; }));
}

}  // namespace
}  // namespace pylrp
