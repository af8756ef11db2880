// Networks on several threads: equal bits for any number. test_parallel.cpp looks at the threads themselves.
#include <atomic>
#include <thread>

#include "check.hpp"
#include "dense_network.hpp"

namespace pylrp {
namespace {

TEST(same_bits_for_any_number_of_threads) {
  for (const Index batch : {1, 3, 30}) {
    check::context = "batch " + std::to_string(batch);
    // Wide enough for several chunks of rows, or for more panels than threads and two blocks of the reduction.
    Network<float> network(batch < 5 ? std::vector<Index>{901, 800, 70} : std::vector<Index>{300, 270, 70}, batch);
    const Answer<float> alone = network.explain(network.net.plan(1), 1);
    for (const int threads : {2, 3, 4}) {
      const Answer<float> together = network.explain(network.net.plan(threads), threads);
      CHECK(same_bits(network.numbers(alone), network.numbers(together)));
      CHECK(same_bits(alone.ledger, together.ledger));
    }
  }
}

TEST(every_rule_same_bits_for_any_number_of_threads) {
  for (const NamedRule& named : test_rules()) {
    for (const Index batch : {2, 20}) {
      check::context = named.name + ", batch " + std::to_string(batch);
      const Index n_in = batch < 5 ? 1030 : 300, n_out = batch < 5 ? 640 : 270;
      DenseData<float> layer(batch, n_in, n_out, 9, false);
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
  // Enough work for regions of their own, and values large enough for the graph's workspace.
  Network<float> network({40, 1800, 30}, 40, kQuestion, false);
  const Graph<float>& graph = network.net.graph();
  const Plan<float> plan = network.net.plan(2);
  const std::vector<float> alone = network.numbers(network.explain(plan, 1));
  std::vector<std::thread> workers;
  std::atomic<int> equal{0};
  for (int w = 0; w < 4; ++w) {
    workers.emplace_back([&, w] {
      const Inputs<float> mine(network.net, 1, 40, 5, true);  // its own input and results, the others' plan
      for (int round = 0; round < 5; ++round) {
        const Answer<float> answer = ask_plan(graph, plan, mine, network.question(1 + w % 2));
        equal += answer.clean && same_bits(alone, network.numbers(answer)) ? 1 : 0;
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  CHECK(equal == 20);
}

TEST(team_changes_no_bit) {
  Network<float> network({300, 270, 70}, 30);
  const Plan<float> plan = network.net.plan(3);
  const Answer<float> alone = network.explain(plan, 1);
  for (const int threads : {2, 3}) {
    with_team({threads}, [&] {
      const Answer<float> together = network.explain(plan, threads);
      CHECK(same_bits(network.numbers(alone), network.numbers(together)));
      CHECK(same_bits(alone.ledger, together.ledger));
    });
  }
}

}  // namespace
}  // namespace pylrp
