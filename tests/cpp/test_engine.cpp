// Several layers: the chain, the prepared plan, activations; then threads and everything that may go wrong in them.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>

#include "base/error.hpp"
#include "check.hpp"
#include "engine/network.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {
namespace {

// What stands between the layers, and their rules from the input up. Where a rule can reuse z = W a + b, the plan finds
// it in the activations (a ReLU, if relevance vanishes with its output) or must keep it beside them.
struct Kind {
  bool smooth;  // leaky ReLU and tanh, at the top too; else ReLU between the layers
  std::array<const char*, 3> rules;
};
constexpr Kind kQuestion{false, {"w^2", "z+", "epsilon"}};
constexpr Kind kKinds[] = {kQuestion,
                           {false, {"epsilon", "epsilon", "epsilon"}},
                           {false, {"epsilon", "w^2", "epsilon"}},
                           {true, {"epsilon", "z+", "epsilon"}}};

template <class T>
struct Network {
  std::vector<std::unique_ptr<Layer<T>>> layers;  // of each only weight and bias are used
  std::vector<CompiledRule> rules;
  std::vector<Stage<T>> stages;
  std::vector<typename Plan<T>::LayerRule> assigned;
  Fenced<T> input, top;
  std::vector<std::unique_ptr<Fenced<T>>> results;
  std::vector<double> ledger;

  explicit Network(const std::vector<Index>& widths, Index batch, const Kind& kind = kQuestion)
      : input(batch, widths.front()),
        top(batch, widths.back()),
        ledger((widths.size() - 1) * kLedgerColumns * static_cast<std::size_t>(batch)) {
    const std::size_t depth = widths.size() - 1;
    Random random(5);
    input.fill([&] { return random(0, 1); });
    for (std::size_t l = 0; l < depth; ++l) {
      layers.push_back(std::make_unique<Layer<T>>(1, widths[l], widths[l + 1], static_cast<unsigned>(l), false));
      rules.emplace_back(rule_named(kind.rules[l + 3 - depth]));  // with fewer layers those at the top
      results.push_back(std::make_unique<Fenced<T>>(batch, widths[l]));
    }
    for (std::size_t l = 0; l < depth; ++l) {
      stages.push_back({{layers[l]->weight.read(), layers[l]->bias.data()}, {}});
      if (kind.smooth) {
        stages[l].activations = {{ActivationKind::kLeakyReLU, 0.5}, {ActivationKind::kTanh}};
      } else if (l + 1 < depth) {
        stages[l].activations = {{ActivationKind::kReLU}};
      }
      assigned.push_back({&rules[l], {}});
    }
  }

  // Forward and backward; the relevance at the top is the output.
  typename Plan<T>::Pass explain(const Plan<T>& plan, const Threads& threads) {
    typename Plan<T>::Pass pass = plan.forward(input.read(), top.view(), threads);
    std::vector<Matrix<T>> views;
    for (auto& result : results) {
      views.push_back(result->view());
    }
    plan.relevance(pass, top.read(), views, ledger.data(), threads);
    return pass;
  }
  std::vector<T> numbers() {
    std::vector<T> all = top.entries();
    for (auto& result : results) {
      const std::vector<T> more = result->entries();
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  }
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Layer by layer, with the activations and the relevance above it that the library itself computed.
template <class T>
void check_network(Index batch, const Kind& kind) {
  const std::vector<Index> widths{71, 67, 53, 19};
  check::context = std::string(kind.rules[0]) + ", " + kind.rules[1] + ", batch " + std::to_string(batch) + ", bytes " +
                   std::to_string(sizeof(T));
  Network<T> net(widths, batch, kind);
  const Plan<T> plan(net.stages, net.assigned, {2});
  CHECK(plan.inputs() == 71 && plan.outputs() == 19 && plan.depth() == 3 && plan.width(1) == 67);
  const typename Plan<T>::Pass pass = net.explain(plan, {2});
  for (std::size_t l = 0; l < 3; ++l) {
    Layer<T> one(batch, widths[l], widths[l + 1], static_cast<unsigned>(l), false);  // the same weights and bias
    const Matrix<const T> above = l == 2 ? net.top.read() : net.results[l + 1]->read();
    const Matrix<const T> a = l == 2 ? net.top.read() : pass.activations[l + 1];
    bool forward = true, right = true;
    for (Index i = 0; i < batch; ++i) {
      std::copy_n(pass.activations[l].row(i), widths[l], one.input.row(i));
      std::copy_n(above.row(i), widths[l + 1], one.relevance.row(i));
      for (Index j = 0; j < widths[l + 1]; ++j) {
        Sum64 sum;
        sum.add(static_cast<double>(one.bias.at(0, j)));
        for (Index k = 0; k < widths[l]; ++k) {
          sum.add(static_cast<double>(one.weight.at(j, k)) * static_cast<double>(one.input.at(i, k)));
        }
        const double leaky = sum.value < 0 ? sum.value / 2 : sum.value;
        const double expected = kind.smooth ? std::tanh(leaky) : (l < 2 && sum.value < 0 ? 0 : sum.value);
        forward =
            forward && near(static_cast<double>(a.row(i)[j]), expected, bound<T>(sum, widths[l]) + kFew * kUnit<T>);
      }
    }
    CHECK(forward);
    const Reference expected = reference(one, net.rules[l].rule, true, false);
    Index looked_at = 0;
    const double* page = &net.ledger[l * static_cast<std::size_t>(kLedgerColumns * batch)];
    for (Index i = 0; i < batch; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (expected.unsure[at] > 0) {
        continue;
      }
      ++looked_at;
      const auto column = [&](LedgerColumn c) { return page[c * batch + i]; };
      Sum64 in, out;
      for (Index j = 0; j < widths[l + 1]; ++j) {
        in.add(static_cast<double>(above.row(i)[j]));
      }
      for (Index k = 0; k < widths[l]; ++k) {
        const Sum64& r = expected.relevance[static_cast<std::size_t>(i * widths[l] + k)];
        right = right && near(static_cast<double>(net.results[l]->at(i, k)), r.value, r.error);
        out.add(r.value, r.error);
      }
      CHECK(near(column(kIncoming), in.value, bound<double>(in, widths[l + 1])));
      CHECK(near(column(kOutgoing), out.value, bound<double>(out, widths[l])));
      CHECK(near(column(kBias), expected.absorbed[0][at].value, expected.absorbed[0][at].error));
      CHECK(near(column(kStabilizer), expected.absorbed[1][at].value, expected.absorbed[1][at].error));
      CHECK(near(column(kDead), expected.absorbed[2][at].value, expected.absorbed[2][at].error));
      CHECK(column(kPadding) == 0 && column(kBatchNorm) == 0);
      CHECK(near(column(kRounding), 0,
                 out.error + expected.absorbed[0][at].error + expected.absorbed[1][at].error +
                     expected.absorbed[2][at].error));
    }
    CHECK(right && 10 * looked_at >= 9 * batch);
    CHECK(net.results[l]->intact());
  }
  CHECK(net.top.intact() && net.input.intact());
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
  Network<double> net({30, 20, 10}, batch);
  const Plan<double> plan(net.stages, net.assigned, {1});
  const Plan<double>::Pass pass = net.explain(plan, {1});
  Fenced<double> first(batch, 30), second(batch, 20), passed(batch, 10);
  const CompiledRule pass_through{Rule{}};
  std::vector<ChainLayer<double>> chain(3);
  chain[0] = {net.stages[0].dense, &net.rules[0], {}, false, nullptr, pass.activations[0], {}, first.view()};
  chain[1] = {net.stages[1].dense, &net.rules[1], {}, false, nullptr, pass.activations[1], {}, second.view()};
  chain[2] = {{}, &pass_through, {}, false, nullptr, {}, {}, passed.view()};
  relevance_through_chain<double>(chain, net.top.read(), nullptr, {1});
  for (Index i = 0; i < batch; ++i) {
    for (Index j = 0; j < 10; ++j) {
      CHECK(passed.at(i, j) == net.top.at(i, j));
    }
    for (Index k = 0; k < 30; ++k) {
      CHECK(near(first.at(i, k), net.results[0]->at(i, k), 1e-10 * (1 + std::abs(first.at(i, k)))));
    }
  }
  CHECK(first.intact() && second.intact() && passed.intact());
}

TEST(activations) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
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
      {{ActivationKind::kSoftplus}, [](double x) { return std::max(x, 0.0) + std::log(1 + std::exp(-std::abs(x))); }},
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

// --- threads ---

TEST(same_bits_for_any_number_of_threads) {
  for (const Index batch : {1, 3, 30}) {
    check::context = "batch " + std::to_string(batch);
    // Wide enough for several chunks of rows, resp. for more panels than threads and two blocks of the reduction.
    Network<float> net(batch < 5 ? std::vector<Index>{901, 800, 70} : std::vector<Index>{300, 270, 70}, batch);
    std::vector<float> alone;
    std::vector<double> ledger;
    for (const int threads : {1, 2, 3, 4}) {
      const Plan<float> plan(net.stages, net.assigned, {threads});
      net.explain(plan, {threads});
      if (threads == 1) {
        alone = net.numbers();
        ledger = net.ledger;
      }
      CHECK(same_bits(alone, net.numbers()));
      CHECK(same_bits(ledger, net.ledger));
    }
  }
}

TEST(every_rule_same_bits_for_any_number_of_threads) {
  for (const NamedRule& named : test_rules()) {
    for (const Index batch : {2, 20}) {
      check::context = named.name + ", batch " + std::to_string(batch);
      const Index n_in = batch < 5 ? 1030 : 300, n_out = batch < 5 ? 640 : 270;
      Layer<float> layer(batch, n_in, n_out, 9, false);
      const LoweredRule lowered = lower(named.rule, false);
      Fenced<float> result(batch, n_in);
      for (const auto path : {relevance_by_rows<float>, relevance_by_products<float>}) {
        std::vector<float> alone;
        std::vector<double> alone_lost;
        for (const int threads : {1, 2, 3, 4}) {
          result.reset();
          std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(batch));
          path({{layer.weight.read(), layer.bias.data()},
                &lowered,
                {layer.low.data(), layer.high.data()},
                nullptr,
                layer.input.read(),
                {},
                layer.relevance.read(),
                result.view(),
                absorbed.data()},
               {threads});
          const std::vector<float> mine = result.entries();
          std::vector<double> lost;
          for (const kernels::Absorbed& a : absorbed) {
            lost.insert(lost.end(), {a.bias, a.stabilizer, a.dead});
          }
          if (threads == 1) {
            alone = mine;
            alone_lost = lost;
          }
          CHECK(same_bits(alone, mine));
          CHECK(same_bits(alone_lost, lost));
        }
      }
    }
  }
}

TEST(one_plan_used_by_several_threads_at_once) {
  const std::vector<Index> widths{600, 500, 50};  // enough work for regions of their own
  Network<float> net(widths, 9);
  const Plan<float> plan(net.stages, net.assigned, {2});
  net.explain(plan, {1});
  const std::vector<float> alone = net.numbers();
  std::vector<std::thread> workers;
  std::atomic<int> equal{0};
  for (int w = 0; w < 4; ++w) {
    workers.emplace_back([&, w] {
      Network<float> mine(widths, 9);  // its own input and results, the others' plan
      for (int round = 0; round < 5; ++round) {
        mine.explain(plan, {1 + w % 2});
        equal += same_bits(alone, mine.numbers()) ? 1 : 0;
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  CHECK(equal == 20);
}

TEST(parallel_for_does_every_task_once) {
  for (const int threads : {1, 2, 3, 4}) {
    for (const Index n : {0, 1, 2, 3, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(n));
      parallel_for(n, {threads}, [&](Index i) { ++done[static_cast<std::size_t>(i)]; });
      CHECK(std::all_of(done.begin(), done.end(), [](const auto& count) { return count == 1; }));
    }
  }
  std::atomic<int> nested{0};
  parallel_for(3, {3}, [&](Index) { parallel_for(5, {2}, [&](Index) { ++nested; }); });
  CHECK(nested == 15);
}

TEST(exceptions_reach_the_caller) {
  for (const int threads : {1, 2, 3, 4}) {
    for (const Index bad : {0, 1, 57, 999}) {
      std::string message;
      try {
        parallel_for(1000, {threads}, [&](Index i) {
          if (i == bad) {
            throw Error("task " + std::to_string(i));
          }
        });
      } catch (const Error& error) {
        message = error.what();
      }
      CHECK(message == "task " + std::to_string(bad));
    }
    bool out_of_memory = false;
    try {
      parallel_for(8, {threads}, [](Index) { throw std::bad_alloc(); });  // all at once
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
    CHECK(out_of_memory);
    int after = 0;  // and nothing is left behind
    parallel_for(1, {threads}, [&](Index) { ++after; });
    CHECK(after == 1);
  }
}

TEST(poll_stops_a_long_run) {
  for (const int threads : {1, 2, 4}) {
    std::atomic<int> done{0}, polls{0}, strangers{0};
    const std::thread::id caller = std::this_thread::get_id();
    const Poll poll = [&] {
      strangers += std::this_thread::get_id() == caller ? 0 : 1;
      return ++polls == 2;
    };
    bool stopped = false;
    try {
      parallel_for(2000, {threads, &poll}, [&](Index) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        ++done;
      });
    } catch (const Interrupted&) {
      stopped = true;
    }
    CHECK(stopped && polls == 2 && strangers == 0);
    CHECK(done > 0 && done < 2000);
  }
}

TEST(poll_that_says_no_lets_it_finish) {
  std::atomic<int> done{0};
  const Poll poll = [] { return false; };
  parallel_for(100, {2, &poll}, [&](Index) { ++done; });
  CHECK(done == 100);
}

TEST(default_number_of_threads) {
  CHECK(default_threads() >= 1);
  set_default_threads(3);
  CHECK(default_threads() == 3);
  set_default_threads(0);
  CHECK(default_threads() >= 1);
}

// A forked child of a process with a pool of threads: what the bindings do, without Python.
TEST(fork_after_a_parallel_region) {
  const auto work = [] {
    std::atomic<int> done{0};
    parallel_for(100, {2}, [&](Index) { ++done; });
    return done == 100;
  };
  CHECK(work());
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // ends a child that hangs
    forbid_threads();
    _exit(work() ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
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
