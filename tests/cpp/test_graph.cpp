// Graphs: the engine against layers called one after the other by hand, and against itself where it takes shortcuts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "check.hpp"
#include "rich_net.hpp"

namespace pylrp {
namespace {

using Chosen = std::vector<std::size_t>;

// Layer by layer, each with all it may want, nothing known, kept or prepared.
Answer<double> by_hand(Net<double>& net, const Inputs<double>& inputs, const Question<double>& question) {
  const Graph<double>& graph = net.graph();
  const Index batch = inputs.batch(), rows = question.targets * batch;
  std::vector<std::vector<double>> values(net.values()), relevance(net.values());
  const auto view = [&](std::vector<double>& of, std::size_t value, Index count) {
    return Matrix<double>{of.data(), count, net.size(value), net.size(value)};
  };
  const auto read = [&](std::vector<double>& of, std::size_t value, Index count) {
    return Matrix<const double>{of.data(), count, net.size(value), net.size(value)};
  };
  const std::vector<Matrix<const double>> given = inputs.views();
  for (std::size_t value = 0; value < net.values(); ++value) {
    values[value].resize(static_cast<std::size_t>(batch * net.size(value)));
    if (value < given.size()) {
      for (Index i = 0; i < batch; ++i) {
        std::copy_n(given[value].row(i), given[value].cols, view(values[value], value, batch).row(i));
      }
      continue;
    }
    const GraphNode<double>& node = graph.nodes()[net.node_of(value)];
    std::vector<Matrix<const double>> from;
    for (const std::size_t input : node.inputs) {
      from.push_back(read(values[input], input, batch));
    }
    node.layer->forward(from, view(values[value], value, batch), {}, {1});
  }
  Answer<double> answer;
  answer.rows = rows;
  answer.values = values;
  answer.ledger.assign(graph.nodes().size() * kLedgerColumns * static_cast<std::size_t>(rows), 0.0);
  for (std::size_t value = 0; value < net.values(); ++value) {
    relevance[value].resize(static_cast<std::size_t>(rows * net.size(value)));
  }
  Fenced<double> top(rows, net.size(question.start));
  fill_top(top, batch);
  relevance[question.start] = top.entries();
  std::vector<bool> reached(net.values());
  reached[question.start] = true;
  for (std::size_t value = net.values(); value-- > given.size();) {
    if (!reached[value]) {
      continue;
    }
    const std::size_t n = net.node_of(value);
    const GraphNode<double>& node = graph.nodes()[n];
    const auto page = [&](Ledger::Column column, Index row) -> double& {
      return answer
          .ledger[(n * kLedgerColumns + column) * static_cast<std::size_t>(rows) + static_cast<std::size_t>(row)];
    };
    for (Index i = 0; i < rows; ++i) {
      double* const r = view(relevance[value], value, rows).row(i);
      page(Ledger::incoming, i) = std::accumulate(r, r + net.size(value), 0.0);
      for (const auto& mask : question.masks) {
        for (Index j = 0; mask.value == value && j < net.size(value); ++j) {
          if (!mask.channels[static_cast<std::size_t>(j) % mask.channels.size()]) {
            page(Ledger::masked, i) += r[j];
            r[j] = 0;
          }
        }
      }
    }
    RelevanceJob<double> job;
    std::vector<std::vector<double>> results;
    for (const std::size_t input : node.inputs) {
      reached[input] = true;
      job.inputs.push_back(read(values[input], input, batch));
      results.emplace_back(static_cast<std::size_t>(rows * net.size(input)));
    }
    for (std::size_t k = 0; k < results.size(); ++k) {
      job.results.push_back(view(results[k], node.inputs[k], rows));
    }
    std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(rows));
    job.relevance = read(relevance[value], value, rows);
    job.batch = batch;
    job.rule = net.rule(n);
    job.bounds = net.bounds(n);
    job.absorbed = absorbed.data();
    if (node.layer->flow() == Flow::kIdentity || (job.rule != nullptr && job.rule->any().passes())) {
      results[0] = relevance[value];
    } else {
      node.layer->relevance(job, {1});
    }
    for (Index i = 0; i < rows; ++i) {
      for (std::size_t k = 0; k < results.size(); ++k) {
        for (Index j = 0; j < net.size(node.inputs[k]); ++j) {
          const std::size_t at = static_cast<std::size_t>(i * net.size(node.inputs[k]) + j);
          page(Ledger::outgoing, i) += results[k][at];
          relevance[node.inputs[k]][at] += results[k][at];
        }
      }
      const kernels::Absorbed& lost = absorbed[static_cast<std::size_t>(i)];
      page(Ledger::bias, i) = lost.bias;
      page(Ledger::stabilizer, i) = lost.stabilizer;
      page(Ledger::padding, i) = lost.padding;
      page(Ledger::dead, i) = lost.dead;
      page(Ledger::batchnorm, i) = lost.batchnorm;
    }
  }
  answer.relevance = relevance;
  return answer;
}

bool all_near(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 1;
  for (const double v : b) {
    most = std::max(most, std::abs(v));
  }
  bool same = a.size() == b.size();
  for (std::size_t n = 0; same && n < a.size(); ++n) {
    same = near(a[n], b[n], 1e-10 * most);
  }
  return same;
}

// Every value, every relevance, every page. Pages of activations stay empty: what goes in comes out.
void check_by_hand(Net<double>& net, const Plan<double>& plan, const Inputs<double>& inputs,
                   const Question<double>& question) {
  const Answer<double> expected = by_hand(net, inputs, question), found = ask(net, plan, inputs, question);
  const std::string what = check::context;
  for (const std::size_t value : question.wanted) {
    check::context = what + ", value " + std::to_string(value);
    CHECK(all_near(found.values[value], expected.values[value]));
  }
  for (const std::size_t value : question.asked) {
    check::context = what + ", relevance of value " + std::to_string(value);
    CHECK(all_near(found.relevance[value], expected.relevance[value]));
  }
  for (std::size_t n = 0; n < net.graph().nodes().size(); ++n) {
    check::context = what + ", page of node " + std::to_string(n);
    const bool same = net.graph().nodes()[n].layer->flow() == Flow::kIdentity;
    bool right = true;
    for (Index row = 0; row < found.rows; ++row) {
      double size = 1;
      for (int column = Ledger::incoming; column < Ledger::rounding; ++column) {
        size += std::abs(expected.page(n, static_cast<Ledger::Column>(column), row));
      }
      for (int column = Ledger::incoming; column < Ledger::rounding; ++column) {
        const auto c = static_cast<Ledger::Column>(column);
        const double wanted =
            same && (c == Ledger::incoming || c == Ledger::outgoing) ? found.page(n, c, row) : expected.page(n, c, row);
        right = right && near(found.page(n, c, row), wanted, 1e-10 * size);
      }
      right = right && near(found.page(n, Ledger::rounding, row), 0, 1e-10 * size);
    }
    CHECK(right);
  }
  check::context = what;
}

TEST(graph_as_by_hand) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    for (const Index batch : {1, 3}) {
      for (const Index targets : {1, 2}) {
        const Inputs<double> inputs(rich.net, 2, batch, 3);
        check::context = std::string(bottom) + ", " + middle + ", " + above + ", batch " + std::to_string(batch) +
                         ", " + std::to_string(targets) + " targets";
        Question<double> question = rich.question(rich.top);
        question.targets = targets;
        question.wanted = batch == 1 ? Chosen{rich.top} : rich.net.all_values();
        check_by_hand(rich.net, plan, inputs, question);
        // By hand every rule had its full form; here masks were decided where a ReLU's zeros get nothing.
        CHECK(rich.net.seen(rich.first).positive == (std::string(middle) != "flat"));
      }
    }
  }
}

TEST(graph_from_inner_values) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    const Inputs<double> inputs(rich.net, 2, 2, 4);
    for (std::size_t start = 0; start < rich.net.values(); ++start) {
      check::context = std::string(bottom) + ", from value " + std::to_string(start);
      Question<double> question = rich.question(start);
      question.wanted = start % 2 == 0 ? Chosen{rich.top} : Chosen{};
      check_by_hand(rich.net, plan, inputs, question);
    }
  }
}

TEST(graph_with_masks) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    const Inputs<double> inputs(rich.net, 2, 2, 5);
    std::vector<bool> some(17);
    some[3] = some[16] = true;
    const std::vector<std::vector<ChannelMask>> cases{
        {{rich.first, some}},
        {{rich.pooled, some}, {rich.added, std::vector<bool>(17, true)}},
        {{rich.top, {true, false, true, false, false, false, true}}},
        {{rich.added_relu, some}},
        {{rich.first_relu, some}, {rich.strided, {true, true, false, true, true, true, true, true}}},
        {{rich.joined, std::vector<bool>(34)}}};
    for (std::size_t n = 0; n < cases.size(); ++n) {
      check::context = std::string(bottom) + ", masks " + std::to_string(n);
      Question<double> question = rich.question(rich.top);
      question.targets = 2;
      question.masks = cases[n];
      check_by_hand(rich.net, plan, inputs, question);
    }
  }
}

// What is lost on all pages and what arrives at the inputs is what started.
TEST(graph_conserves) {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<double> rich(bottom, middle, above);
    const Plan<double> plan = rich.net.plan();
    const Inputs<double> inputs(rich.net, 2, 3, 6);
    for (const bool masked : {false, true}) {
      check::context = std::string(bottom) + (masked ? ", masked" : "");
      Question<double> question = rich.question(rich.top);
      const auto all_but = [](std::size_t channel) {
        std::vector<bool> stay(17, true);
        stay[channel] = false;
        return stay;
      };
      if (masked) {
        question.masks = {{rich.pooled, all_but(5)}, {rich.added_relu, all_but(6)}, {rich.first_relu, all_but(7)}};
      }
      const Answer<double> answer = ask(rich.net, plan, inputs, question);
      for (Index i = 0; i < 3; ++i) {
        Sum64 left;
        const auto take = [&](const std::vector<double>& values, Index size, double sign) {
          for (Index j = 0; j < size; ++j) {
            left.add(sign * values[static_cast<std::size_t>(i * size + j)]);
          }
        };
        take(answer.relevance[rich.top], 7, 1);
        take(answer.relevance[0], 108, -1);
        take(answer.relevance[1], 10, -1);
        for (std::size_t n = 0; n < rich.net.graph().nodes().size(); ++n) {
          for (const Ledger::Column lost :
               {Ledger::bias, Ledger::stabilizer, Ledger::padding, Ledger::dead, Ledger::batchnorm, Ledger::masked}) {
            left.add(-answer.page(n, lost, i));
          }
        }
        CHECK(near(left.value, 0, 1e-10 * left.size));
      }
    }
  }
}

// --- shortcuts ---

template <class T>
bool same_answer(const Answer<T>& a, const Answer<T>& b, const Chosen& values) {
  bool same = same_bits(a.ledger, b.ledger);
  for (const std::size_t value : values) {
    same = same && same_bits(a.relevance[value], b.relevance[value]);
  }
  return same;
}

// Where a value is wanted its activation cannot be fused with it or overwrite it; where its relevance is asked for that
// of an activation cannot be the same memory. The numbers are the same.
template <class T>
void check_shortcuts() {
  for (const auto& [bottom, middle, above] : kRules) {
    Rich<T> rich(bottom, middle, above);
    const Plan<T> plan = rich.net.plan();
    const Inputs<T> inputs(rich.net, 2, 3, 7);
    Question<T> question{rich.top, 1, rich.net.all_values(), rich.net.all_values()};
    const Answer<T> all = ask(rich.net, plan, inputs, question);
    CHECK(!rich.net.seen(rich.first).fused && !rich.net.seen(rich.added).fused && !rich.net.seen(rich.side).in_place);
    const std::string at_side = bottom;
    const bool kept = at_side == "epsilon" || at_side == "gamma";  // z of the dense layer at the side
    for (std::size_t value = 0; value < rich.net.values(); ++value) {
      check::context =
          std::string(bottom) + ", value " + std::to_string(value) + ", bytes " + std::to_string(sizeof(T));
      question.wanted = question.asked = {value};
      const Answer<T> one = ask(rich.net, plan, inputs, question);
      CHECK(same_bits(one.values[value], all.values[value]));
      CHECK(same_answer(one, all, {value}));
    }
    question.wanted = question.asked = {};
    CHECK(same_answer(ask(rich.net, plan, inputs, question), all, {}));
    CHECK(rich.net.seen(rich.added).fused && rich.net.seen(rich.side).in_place != kept);
    // Only the forward pass.
    const ForwardValues<T> pass = plan.forward(inputs.views(), {rich.top}, kNoValue, {1});
    CHECK(std::memcmp(pass.values[rich.top].data, all.values[rich.top].data(), 3 * 7 * sizeof(T)) == 0);
    CHECK(rich.net.seen(rich.first).fused && rich.net.seen(rich.added).fused && rich.net.seen(rich.side).in_place);
    for (std::size_t value = 2; value < rich.top; ++value) {
      CHECK(!pass.values[value] && pass.memory[value] == nullptr);  // nothing else is left
    }
  }
}
TEST(graph_shortcuts_float32) { check_shortcuts<float>(); }
TEST(graph_shortcuts_float64) { check_shortcuts<double>(); }

TEST(graph_several_targets_are_one_by_one) {
  for (const auto& [bottom, middle, above] : kRules) {
    for (const Index batch : {1, 3}) {
      Rich<float> rich(bottom, middle, above);
      const Plan<float> plan = rich.net.plan();
      const Inputs<float> inputs(rich.net, 2, batch, 8);
      Question<float> question = rich.question(rich.top);
      question.targets = 3;
      const Answer<float> together = ask(rich.net, plan, inputs, question);
      question.targets = 1;
      for (Index t = 0; t < 3; ++t) {
        const Answer<float> one = ask(rich.net, plan, inputs, question, t);
        for (const std::size_t value : question.asked) {
          check::context = std::string(bottom) + ", target " + std::to_string(t) + ", value " + std::to_string(value);
          const auto begin = together.relevance[value].begin() + t * batch * rich.net.size(value);
          CHECK(same_bits(one.relevance[value], std::vector<float>(begin, begin + batch * rich.net.size(value))));
        }
        bool same = true;
        for (std::size_t n = 0; n < rich.net.graph().nodes().size(); ++n) {
          for (int c = 0; c < kLedgerColumns; ++c) {
            for (Index i = 0; i < batch; ++i) {
              const auto column = static_cast<Ledger::Column>(c);
              same = same && one.page(n, column, i) == together.page(n, column, t * batch + i);
            }
          }
        }
        CHECK(same);
      }
    }
  }
}

TEST(graph_same_bits_for_any_number_of_threads) {
  for (const auto& [bottom, middle, above] : kRules) {
    check::context = bottom;
    Rich<float> rich(bottom, middle, above);
    const Inputs<float> inputs(rich.net, 2, 20, 9);  // enough for regions of several threads
    Question<float> question = rich.question(rich.top);
    question.wanted = {rich.top};
    const Answer<float> alone = ask(rich.net, rich.net.plan(1), inputs, question);
    for (const int threads : {2, 3}) {
      question.threads = threads;
      const Answer<float> together = ask(rich.net, rich.net.plan(threads), inputs, question);
      CHECK(same_bits(alone.values[rich.top], together.values[rich.top]));
      CHECK(same_answer(alone, together, question.asked));
    }
  }
}

}  // namespace
}  // namespace pylrp
