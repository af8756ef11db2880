// A counting semaphore (C++20 has one): what a thread of the pool sleeps on. post() takes no lock, but on
// Windows.
#pragma once

#if defined(__APPLE__)
#include <dispatch/dispatch.h>
#elif defined(_WIN32)
#include <condition_variable>
#include <mutex>
#else
#include <semaphore.h>

#include <cerrno>
#endif

namespace pylrp {

class Semaphore {
 public:
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;
#if defined(__APPLE__)  // has no unnamed POSIX semaphores
  Semaphore() : semaphore_(dispatch_semaphore_create(0)) {}
  ~Semaphore() { dispatch_release(semaphore_); }
  void post() { dispatch_semaphore_signal(semaphore_); }
  void wait() { dispatch_semaphore_wait(semaphore_, DISPATCH_TIME_FOREVER); }

 private:
  dispatch_semaphore_t semaphore_;
#elif defined(_WIN32)  // no fork there, after which a lock may be held for ever
  Semaphore() = default;
  void post() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_one();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return count_ > 0; });
    --count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
#else
  Semaphore() { sem_init(&semaphore_, 0, 0); }
  ~Semaphore() { sem_destroy(&semaphore_); }
  void post() { sem_post(&semaphore_); }
  void wait() {
    while (sem_wait(&semaphore_) != 0 && errno == EINTR) {
    }
  }

 private:
  sem_t semaphore_;
#endif
};

}  // namespace pylrp
