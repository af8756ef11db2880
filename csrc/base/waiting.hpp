// Waiting for other threads, and noticing that another program has this thread's processor: for pool.cpp.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace pylrp {

// For a short time at full speed, then others on this processor may have it; then it is time to sleep.
class Patience {
 public:
  void renew() { steps_ = 0; }
  bool wait() {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::microseconds kSpin{100}, kAwake{200};
    constexpr int kLooks = 16;  // between looks at the clock
    if (steps_ == 0) {
      since_ = Clock::now();
      yields_ = false;
    } else if (yields_ || steps_ % kLooks == 0) {
      const Clock::duration time = Clock::now() - since_;
      if (time > kAwake) {
        return false;
      }
      yields_ = time > kSpin;
    }
    ++steps_;
    if (yields_) {
      std::this_thread::yield();
    } else {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    return true;
  }

 private:
  std::chrono::steady_clock::time_point since_;
  int steps_ = 0;
  bool yields_ = false;
};

// Whether a thread that helps brings more than it costs. While it works on a task its caller need not; where another
// program has its processor in the middle of one, the caller waits. A loss now and then is paid by the work since.
class Balance {
 public:
  using Duration = std::chrono::steady_clock::duration;
  static constexpr std::chrono::milliseconds kMost{20};  // what came long ago says nothing about now

  // After a task: how long the thread worked on it, and how long its caller waited while it could not. True where it
  // has cost more than it brought.
  bool outweighed(Duration work, Duration waited) {
    gained_ = std::min<Duration>(gained_ + work, kMost) - waited;
    if (gained_ >= Duration::zero()) {
      return false;
    }
    gained_ = {};
    return true;
  }

 private:
  Duration gained_{};
};

// How long this thread was without a processor in its last task: by the clock and by the processor's time.
class Loss {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kSlice{1};  // less does not count

  // The processor's clock takes half a microsecond or more to read, as long as many a loop: not for each. What this
  // thread slept or gave away before the task counts as lost, too, but no more than kFresh.
  void begin() {
    constexpr std::chrono::microseconds kFresh{300};
    const Clock::time_point now = Clock::now();
    if (!known_ || now - clock_ > kFresh) {
      clock_ = now;
      processor_ = processor();
      known_ = true;
    }
    begun_ = now;
  }
  // Awaited: the caller had nothing else to do at the task's end. Returns what was lost where helping does not pay.
  Clock::duration end(Clock::time_point now, bool awaited) {
    const Clock::duration took = now - begun_;
    Clock::duration lost{};
    if (took >= kSlice) {
      known_ = false;
      lost = (now - clock_) - (processor() - processor_);
      lost = lost > kSlice ? std::min(lost, took) : Clock::duration::zero();
    }
    return balance_.outweighed(took - lost, awaited ? lost : Clock::duration::zero()) ? lost : Clock::duration::zero();
  }

 private:
  static std::chrono::nanoseconds processor() {
#if defined(_WIN32)  // tells it in steps of 16 ms: there no time counts as lost
    return Clock::now().time_since_epoch();
#else
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
#endif
  }
  bool known_ = false;
  Clock::time_point clock_, begun_;
  std::chrono::nanoseconds processor_{};
  Balance balance_;
};

}  // namespace pylrp
