// The interpreter's lock, released and taken also where the interpreter is about to end: for the other bindings.
//
// Python kills a thread that asks for the lock after that (before 3.14: by unwinding its stack, which aborts the
// process where a destructor or a noexcept function is on it). Threads that Python does not wait for, its daemons, may
// be in a call then. So from Python's `atexit` on they stay asleep instead.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

namespace pylrp::bindings {

// While it lives this thread may wait for the lock. After `atexit` its making does not return, but on the thread that
// ends the interpreter.
class LockRequest {
 public:
  LockRequest();
  ~LockRequest();
  LockRequest(const LockRequest&) = delete;
  LockRequest& operator=(const LockRequest&) = delete;
};

// pybind11's gil_scoped_release, and the way back.
class Unlocked {
 public:
  Unlocked() { release_.emplace(); }
  ~Unlocked() {
    const LockRequest request;
    release_.reset();
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  std::optional<pybind11::gil_scoped_release> release_;
};

// pybind11's gil_scoped_acquire. A thread that has the lock asks for nothing.
class Locked {
 public:
  Locked() {
    std::optional<LockRequest> request;
    if (PyGILState_Check() == 0) {
      request.emplace();
    }
    acquire_.emplace();
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  std::optional<pybind11::gil_scoped_acquire> acquire_;
};

void register_lock();  // at Python's `atexit`

}  // namespace pylrp::bindings
