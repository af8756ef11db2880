// On which processor a thread wakes up: for pool.cpp.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#endif

namespace pylrp {

// Keeps a thread that is woken off the processor of the one that wakes it: the two are to work at the same time, and
// the system may let the one wait behind the other though another processor is idle. Once awake it may go anywhere.
#if defined(__linux__)
class Placement {
 public:
  void begin() { thread_.store(static_cast<int>(syscall(SYS_gettid))); }  // by the thread itself

  // By the thread that wakes it.
  void keep_off_here() {
    const int here = sched_getcpu(), thread = thread_.load();
    int none = kAnywhere;
    if (thread == 0 || here < 0 || here >= CPU_SETSIZE || !kept_off_.compare_exchange_strong(none, kBusy)) {
      return;
    }
    cpu_set_t set;
    bool done = sched_getaffinity(thread, sizeof set, &set) == 0 && CPU_ISSET(here, &set);
    if (done) {
      CPU_CLR(here, &set);
      done = CPU_COUNT(&set) > 0 && sched_setaffinity(thread, sizeof set, &set) == 0;
    }
    kept_off_.store(done ? here : kAnywhere);
  }

  // By the thread itself.
  void go_anywhere() {
    const int there = kept_off_.load();
    if (there < 0) {
      return;
    }
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
      CPU_SET(there, &set);
      sched_setaffinity(0, sizeof set, &set);
    }
    kept_off_.store(kAnywhere);
  }

 private:
  static constexpr int kAnywhere = -1, kBusy = -2;
  std::atomic<int> thread_{0}, kept_off_{kAnywhere};
};
#else
class Placement {
 public:
  void begin() {}
  void keep_off_here() {}
  void go_anywhere() {}
};
#endif

}  // namespace pylrp
