// Loops on several threads, and everything that may go wrong in them.
#ifndef _WIN32
#include <sys/wait.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/cpus.hpp"
#include "base/error.hpp"
#include "base/parallel.hpp"
#include "base/waiting.hpp"
#include "check.hpp"

namespace pylrp {
namespace {

TEST(parallel_for_does_every_task_once) {
  for (const int threads : {1, 2, 3, 4}) {
    for (const Index n : {0, 1, 2, 3, 1000, 4094, 4095, 8189, 100000}) {  // beyond 4,094 in groups
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(n));
      parallel_for(n, {threads}, [&](Index i) { ++done[static_cast<std::size_t>(i)]; });
      CHECK(std::all_of(done.begin(), done.end(), [](const auto& count) { return count == 1; }));
    }
  }
  std::atomic<int> nested{0};
  parallel_for(3, {3}, [&](Index) { parallel_for(5, {2}, [&](Index) { ++nested; }); });
  CHECK(nested == 15);
}

// From the front by the caller, from the back by helpers: each has one stretch, which stays in its caches.
TEST(caller_and_helpers_work_from_both_ends) {
  const std::thread::id caller = std::this_thread::get_id();
  bool helped = false;
  with_team({3}, [&] {
    for (const Index n : {Index{2}, Index{7}, Index{100}, Index{4095}, Index{20000}}) {
      for (int round = 0; round < 20; ++round) {
        std::vector<char> own(static_cast<std::size_t>(n));
        parallel_for(n, {3}, [&](Index i) {
          own[static_cast<std::size_t>(i)] = std::this_thread::get_id() == caller ? 1 : 0;
          if (n <= 100) {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
          }
        });
        CHECK(std::is_sorted(own.rbegin(), own.rend()));
        helped = helped || own.back() == 0;
      }
    }
  });
  CHECK(helped);
}

// A loop within a task is the task's own business, on any thread; the others must not look for it when it is over.
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

// What a loop wrote is there for the next one, on any thread.
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

// Two tasks that wait for each other: only two threads can do them. A helper may be elsewhere: it gets some tries.
bool two_threads_work() {
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::atomic<int> begun{0};
    std::atomic<bool> met{false};
    parallel_for(2, {2}, [&](Index) {
      ++begun;
      for (int wait = 0; wait < 500 && begun < 2; ++wait) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      met = met || begun == 2;
    });
    if (met) {
      return true;
    }
  }
  return false;
}
TEST(a_helper_takes_part) { CHECK(two_threads_work()); }

// A helper that loses a slice now and then, of much work, is worth more than none.
TEST(a_helper_stays_while_it_brings_more_than_it_costs) {
  using std::chrono::milliseconds;
  Balance often;
  CHECK(often.outweighed(milliseconds(1), milliseconds(4)));   // nothing before has paid for it
  CHECK(!often.outweighed(milliseconds(7), milliseconds(4)));  // the caller would have worked for 7 itself
  CHECK(!often.outweighed(milliseconds(7), milliseconds(4)));
  CHECK(often.outweighed(milliseconds(1), milliseconds(8)));
  Balance rarely;
  for (int i = 0; i < 1000; ++i) {
    CHECK(!rarely.outweighed(milliseconds(1), milliseconds(0)));
  }
  CHECK(!rarely.outweighed(milliseconds(0), milliseconds(12)));
  CHECK(rarely.outweighed(milliseconds(0), milliseconds(12)));  // what is long ago has not saved up for more
  CHECK(!rarely.outweighed(milliseconds(0), milliseconds(0)));
}

#if defined(__linux__)
// When it is woken a helper is kept off the caller's processor, for that moment alone.
TEST(helpers_may_go_anywhere_once_awake) {
  cpu_set_t own;
  CHECK(sched_getaffinity(0, sizeof own, &own) == 0);
  std::atomic<int> others{0};
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // helpers are asleep by then
    parallel_for(4, Threads{2}, [&](Index) {
      cpu_set_t now;
      sched_getaffinity(0, sizeof now, &now);
      others += CPU_EQUAL(&own, &now) ? 0 : 1;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    });
  }
  CHECK(others == 0);
}
#endif

// A thread that is held up in the task of one caller is none that another caller waits for.
TEST(callers_do_not_wait_for_each_other) {
  std::atomic<int> begun{0};
  std::atomic<bool> released{false};
  std::thread other([&] {
    parallel_for(3, {3}, [&](Index) {
      ++begun;
      while (!released) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  });
  while (begun == 0) {
    std::this_thread::yield();
  }
  int done = 0;
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> tasks{0};
    parallel_for(10, {3}, [&](Index) { ++tasks; });
    done += tasks;
  }
  released = true;
  other.join();
  CHECK(done == 1000);
}

// More callers at once than the pool has slots.
TEST(many_callers) {
  constexpr std::size_t kCallers = 100;
  std::vector<std::thread> callers;
  std::vector<Index> sums(kCallers);
  for (std::size_t c = 0; c < kCallers; ++c) {
    callers.emplace_back([&sums, c] {
      with_team({3}, [&] {
        for (int round = 0; round < 30; ++round) {
          std::vector<Index> parts(20);
          parallel_for(20, {3}, [&](Index i) { parts[static_cast<std::size_t>(i)] = i; });
          sums[c] += std::accumulate(parts.begin(), parts.end(), Index{0});
        }
      });
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  CHECK(std::all_of(sums.begin(), sums.end(), [](Index sum) { return sum == 30 * 190; }));
}

TEST(quota_of_a_control_group) {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / ("pylrp-quota-" + std::to_string(getpid()));
  const auto file = [&](const std::string& name, const std::string& text) {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name) << text;
  };
  file("cpu.max", "max 100000\n");
  file("box/cpu.max", "150000 100000\n");
  file("box/in/cpu.max", "400000 100000\n");
  file("whole/cpu.max", "200000 100000\n");
  file("small/cpu.max", "1000 100000\n");
  file("broken/cpu.max", "much\n");
  const auto quota = [&](const std::string& groups) { return quota_threads(groups, root.string()); };
  CHECK(quota("0::/\n") == 0 && quota("") == 0 && quota("nonsense") == 0 && quota("0::/nowhere\n") == 0);
  CHECK(quota("0::/box\n") == 2 && quota("0::/whole\n") == 2 && quota("0::/small\n") == 1);
  CHECK(quota("0::/box/in\n") == 2);  // the parent's is less
  CHECK(quota("0::/broken\n") == 0);
  file("cpu,cpuacct/job/cpu.cfs_quota_us", "250000\n");
  file("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  file("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  file("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(quota("5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n") == 3 && quota("4:cpu,cpuacct:/\n") == 0);
  fs::remove_all(root);
}

#ifndef _WIN32
// A child has none of its parent's threads: it starts its own, also where others were in the middle of a loop.
TEST(fork_beside_a_caller) {
  CHECK(two_threads_work());
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over) {
      parallel_for(50, {3}, [](Index) { std::this_thread::sleep_for(std::chrono::microseconds(20)); });
    }
  });
  for (int round = 0; round < 5; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      _exit(two_threads_work() ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  over = true;
  other.join();
}

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
    _exit(work() ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace
}  // namespace pylrp
