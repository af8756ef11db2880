// What the pool asks of the operating system besides threads: signals and fork. pool.cpp and the bindings use it.
#pragma once

#if defined(_WIN32)

namespace pylrp {

// Windows has no signals that threads share, and no fork.
class SignalsBlocked {
 public:
  SignalsBlocked() {}
  ~SignalsBlocked() {}
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
};
inline void after_fork_in_child(void (*)()) {}
inline long process_number() { return 0; }

// At its end Windows stops all other threads wherever they are, some before destructors run: nobody can join them.
constexpr bool kThreadsOutliveStatics = false;

}  // namespace pylrp

#else

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace pylrp {

// While it lives this thread, and those that it starts, get only the signals that say that they have gone wrong.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) {
      sigdelset(&all, own);
    }
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};
inline void after_fork_in_child(void (*act)()) { pthread_atfork(nullptr, nullptr, act); }
inline long process_number() { return getpid(); }
constexpr bool kThreadsOutliveStatics = true;

}  // namespace pylrp

#endif
