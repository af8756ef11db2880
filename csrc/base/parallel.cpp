#include "base/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>

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

void parallel_for(Index n, const Threads& threads, const std::function<void(Index)>& task) {
  // Relaxed: the end of the region orders everything the tasks have done.
  constexpr auto relaxed = std::memory_order_relaxed;
  std::atomic<bool> stop{false};
  const auto stopped = [&] { return stop.load(relaxed); };
  std::atomic<bool> failed{false};
  std::exception_ptr failure;  // written once, by whoever turns `failed` first
  const auto guarded = [&](Index i) noexcept {
    try {
      task(i);
    } catch (...) {
      if (!failed.exchange(true)) {
        failure = std::current_exception();
      }
      stop.store(true, relaxed);
    }
  };
  bool interrupted = false;
#ifdef _OPENMP
  const int count = forked ? 1 : static_cast<int>(std::min<Index>(n, threads.count));
  if (count > 1) {
    std::atomic<Index> next{0};
    const auto take = [&] { return next.fetch_add(1, relaxed); };
#pragma omp parallel num_threads(count)
    {
      const bool caller = omp_get_thread_num() == 0;
      for (Index i = take(); i < n && !stopped(); i = take()) {
        guarded(i);
        if (caller && wants_stop(threads.poll)) {
          interrupted = true;
          stop.store(true, relaxed);
        }
      }
    }
    n = 0;  // done
  }
#endif
  for (Index i = 0; i < n && !stopped() && !interrupted; ++i) {
    guarded(i);
    interrupted = wants_stop(threads.poll);
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  if (interrupted) {
    throw Interrupted();
  }
}

}  // namespace pylrp
