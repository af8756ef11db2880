#include "base/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>

#include "base/error.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace pylrp {
namespace {

std::atomic<int> user_threads{0};
std::atomic<bool> forked{false};

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

// The threads of one parallel region, which serve the caller's loops one after the other. A loop ends when its tasks
// are done: on a busy machine it does not wait for a thread that has not got a processor yet, as a region's end would.
class Team {
 public:
  // Calls work() on this thread and on those that come in time; it returns when no task is left to take.
  void run(const std::function<void()>& work) {
    work_ = &work;
    busy = true;          // a loop within a task is done by its own thread
    round_.fetch_add(1);  // odd: there is a loop
    work();
    round_.fetch_add(1);
    busy = false;
    for (int idle = 0; inside_.load() > 0; ++idle) {
      wait(idle);
    }
  }
  void serve() {
    busy = true;
    std::uint64_t served = 0;
    for (int idle = 0; !closed_.load(); ++idle) {
      const std::uint64_t round = round_.load();
      if (round % 2 == 1 && round != served) {
        inside_.fetch_add(1);
        if (round_.load() == round) {  // the caller now waits for us
          (*work_)();
        }
        inside_.fetch_sub(1);
        served = round;
        idle = 0;
      } else {
        wait(idle);
      }
    }
    busy = false;
  }
  void close() { closed_.store(true); }

  static thread_local bool busy;  // this thread is in a loop

 private:
  // Some microseconds at full speed, then others may have the processor, then we sleep.
  static void wait(int idle) {
    constexpr int kSpins = 4000, kYields = 400;
    if (idle < kSpins) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else if (idle < kSpins + kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  std::atomic<std::uint64_t> round_{0};
  std::atomic<int> inside_{0};
  std::atomic<bool> closed_{false};
  const std::function<void()>* work_ = nullptr;
};
thread_local bool Team::busy = false;
thread_local Team* team = nullptr;  // of the caller

void run_tasks(Index n, const Threads& threads, const std::function<void(Index)>& task) {
  // Relaxed: the end of the loop orders everything the tasks have done.
  constexpr auto relaxed = std::memory_order_relaxed;
  std::atomic<bool> stop{false}, failed{false};
  std::exception_ptr failure;  // written once, by whoever turns `failed` first
  bool interrupted = false;
  std::atomic<Index> next{0};
  const std::thread::id self = std::this_thread::get_id();
  const std::function<void()> work = [&] {
    const bool caller = std::this_thread::get_id() == self;
    for (Index i = next.fetch_add(1, relaxed); i < n && !stop.load(relaxed); i = next.fetch_add(1, relaxed)) {
      try {
        task(i);
      } catch (...) {
        if (!failed.exchange(true)) {
          failure = std::current_exception();
        }
        stop.store(true, relaxed);
      }
      if (caller && wants_stop(threads.poll)) {
        interrupted = true;
        stop.store(true, relaxed);
      }
    }
  };
  if (team != nullptr && !Team::busy && threads.count > 1 && n > 1) {
    team->run(work);
  } else {
    work();
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  if (interrupted) {
    throw Interrupted();
  }
}

}  // namespace

void set_default_threads(int count) { user_threads = count; }

void forbid_threads() { forked = true; }

int default_threads() {
  if (user_threads > 0) {
    return user_threads;
  }
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

int openmp_version() {
#ifdef _OPENMP
  return _OPENMP;
#else
  return 0;
#endif
}

void with_team(const Threads& threads, const std::function<void()>& body) {
#ifdef _OPENMP
  if (threads.count > 1 && !forked && team == nullptr) {
    Team shared;
    std::exception_ptr failure;
#pragma omp parallel num_threads(threads.count)
    {
      if (omp_get_thread_num() == 0) {
        team = &shared;
        try {
          body();
        } catch (...) {
          failure = std::current_exception();
        }
        team = nullptr;
        shared.close();
      } else {
        shared.serve();
      }
    }
    if (failure) {
      std::rethrow_exception(failure);
    }
    return;
  }
#endif
  body();
}

void parallel_for(Index n, const Threads& threads, const std::function<void(Index)>& task) {
  if (n > 1 && threads.count > 1 && team == nullptr && !forked && !Team::busy) {
    with_team({static_cast<int>(std::min<Index>(n, threads.count)), threads.poll},
              [&] { run_tasks(n, threads, task); });
  } else {
    run_tasks(n, threads, task);
  }
}

}  // namespace pylrp
