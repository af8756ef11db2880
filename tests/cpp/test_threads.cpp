// Threads, and everything that may go wrong in them.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <new>
#include <thread>

#include "base/error.hpp"
#include "check.hpp"
#include "dense_network.hpp"

namespace pylrp {
namespace {

TEST(same_bits_for_any_number_of_threads) {
  for (const Index batch : {1, 3, 30}) {
    check::context = "batch " + std::to_string(batch);
    // Wide enough for several chunks of rows, resp. for more panels than threads and two blocks of the reduction.
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

// A loop within a task is the task's own business, whoever does it; the others must not look for it when it is over.
__attribute__((noinline)) void overwrite_the_stack() {
  volatile char over[8192];
  std::fill(std::begin(over), std::end(over), '\0');
}
TEST(loops_within_loops) {
  for (const bool in_team : {false, true}) {
    std::atomic<int> outer{0}, inner{0};
    const auto body = [&] {
      for (int round = 0; round < 50; ++round) {
        parallel_for(4, {3}, [&](Index) {
          ++outer;
          parallel_for(6, {3}, [&](Index) {
            ++inner;
            std::this_thread::sleep_for(std::chrono::microseconds(50));
          });
          overwrite_the_stack();
          std::this_thread::sleep_for(std::chrono::microseconds(150));
        });
      }
    };
    in_team ? with_team({3}, body) : body();
    CHECK(outer == 200 && inner == 1200);
  }
}

TEST(team_serves_one_loop_after_the_other) {
  for (const int threads : {1, 2, 3, 4}) {
    std::vector<std::atomic<int>> done(500);
    bool body_ran_here = false;
    const std::thread::id caller = std::this_thread::get_id();
    with_team({threads}, [&] {
      body_ran_here = std::this_thread::get_id() == caller;
      for (Index n = 0; n < 500; ++n) {  // most are over before anyone comes
        parallel_for(n, {threads}, [&](Index i) { ++done[static_cast<std::size_t>(i)]; });
      }
      with_team({threads}, [&] { parallel_for(500, {threads}, [&](Index i) { ++done[std::size_t(i)]; }); });
      parallel_for(500, {1}, [&](Index i) { ++done[static_cast<std::size_t>(i)]; });
    });
    bool right = body_ran_here;
    for (std::size_t i = 0; i < 500; ++i) {
      right = right && done[i] == 501 - static_cast<int>(i);
    }
    CHECK(right);
  }
}

// What a loop wrote is there for the next one, whoever wrote it.
TEST(team_hands_results_on) {
  constexpr Index kSize = 256;
  std::vector<Index> a(kSize), b(kSize);
  with_team({3}, [&] {
    for (Index round = 0; round < 300; ++round) {
      parallel_for(kSize, {3},
                   [&](Index i) { b[static_cast<std::size_t>(i)] = a[static_cast<std::size_t>((i + 1) % kSize)] + 1; });
      std::swap(a, b);
    }
  });
  CHECK(std::all_of(a.begin(), a.end(), [](Index v) { return v == 300; }));
}

TEST(team_lets_exceptions_through) {
  for (const int threads : {1, 2, 4}) {
    int caught = 0, after = 0;
    std::string message;
    try {
      with_team({threads}, [&] {
        for (int round = 0; round < 20; ++round) {
          try {
            parallel_for(100, {threads}, [&](Index i) {
              if (i % 7 == 3) {
                throw Error("task");
              }
            });
          } catch (const Error&) {
            ++caught;
          }
        }
        std::atomic<int> done{0};
        parallel_for(100, {threads}, [&](Index) { ++done; });
        after = done;
        throw Error("body");
      });
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(caught == 20 && after == 100 && message == "body");
    std::atomic<int> done{0};  // and nothing is left behind
    parallel_for(100, {threads}, [&](Index) { ++done; });
    CHECK(done == 100);
  }
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

}  // namespace
}  // namespace pylrp
