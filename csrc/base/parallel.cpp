#include "base/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <optional>

#include "base/error.hpp"
#include "base/pool.hpp"

namespace pylrp {
namespace {

// Polling takes the interpreter's lock; ten times a second is enough for a person. The time of the last poll outlives
// the region: a call may consist of many short ones.
bool wants_stop(const Poll* poll) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds interval{100};
  static thread_local Clock::time_point last;
  if (poll == nullptr) {
    return false;
  }
  const Clock::time_point now = Clock::now();
  if (now - last < interval) {
    return false;
  }
  last = now;
  return (*poll)();
}

// One parallel_for.
class Loop final : public Tasks {
 public:
  Loop(const std::function<void(Index)>& task, const Poll* poll) : task_(task), poll_(poll) {}

  // Relaxed: the end of the loop orders everything the tasks have done, `failure_` too.
  void run(Index i, bool by_caller) noexcept override {
    try {
      task_(i);
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) {
        failure_ = std::current_exception();
      }
      stop_.store(true, std::memory_order_relaxed);
    }
    if (by_caller && wants_stop()) {
      interrupted_ = true;
      stop_.store(true, std::memory_order_relaxed);
    }
  }
  bool stopped() const noexcept override { return stop_.load(std::memory_order_relaxed); }
  void finish() const {
    if (failure_) {
      std::rethrow_exception(failure_);
    }
    if (interrupted_) {
      throw Interrupted();
    }
  }

 private:
  // A poll that throws counts as a task that does.
  bool wants_stop() noexcept {
    try {
      return pylrp::wants_stop(poll_);
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) {
        failure_ = std::current_exception();
      }
      return true;
    }
  }
  const std::function<void(Index)>& task_;
  const Poll* poll_;
  std::atomic<bool> stop_{false}, failed_{false};
  std::exception_ptr failure_;  // written once, by the thread that turns `failed_` first
  bool interrupted_ = false;
};

thread_local Team* team = nullptr;  // of this thread, while with_team() runs

// This thread's team for a block, where it may have one.
class Lead {
 public:
  explicit Lead(int count) {
    if (count > 1 && team == nullptr && !Team::in_task()) {
      team = &own_.emplace(count - 1);
    }
  }
  ~Lead() {
    if (own_) {
      team = nullptr;
    }
  }
  Lead(const Lead&) = delete;
  Lead& operator=(const Lead&) = delete;

 private:
  std::optional<Team> own_;
};

}  // namespace

void with_team(const Threads& threads, const std::function<void()>& body) {
  const Lead lead(threads.count);
  body();
}

void parallel_for(Index n, const Threads& threads, const std::function<void(Index)>& task) {
  Loop loop(task, threads.poll);
  if (n > 1 && threads.count > 1 && !Team::in_task()) {
    const Lead lead(static_cast<int>(std::min<Index>(n, threads.count)));
    team->run(n, &loop);
  } else {
    for (Index i = 0; i < n && !loop.stopped(); ++i) {
      loop.run(i, true);
    }
  }
  loop.finish();
}

}  // namespace pylrp
