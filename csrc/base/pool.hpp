// The pool of threads: helpers that are started when first needed, kept, and asleep while there is nothing to do.
// parallel.cpp hands them loops; nobody else uses them.
#pragma once

#include <cstdint>

#include "base/view.hpp"

namespace pylrp {

class Pool;
struct Slot;

// The tasks of a loop, [0, count). run(i) must not throw.
struct Tasks {
  virtual void run(Index i, bool by_caller) noexcept = 0;
  virtual bool stopped() const noexcept = 0;  // what is left need not be done

 protected:
  ~Tasks() = default;
};

// A caller's helpers, for one loop after the other. Where none are free the caller works alone.
class Team {
 public:
  explicit Team(int helpers);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Runs all tasks, on this thread and on those that come in time. It waits for tasks that others have begun, never for
  // a thread without one.
  void run(Index count, Tasks* tasks);

  static bool in_task();  // this thread runs a task: a loop within it is its own business

 private:
  void call(Index left);  // helpers for so many groups of tasks, where some are free

  int helpers_;
  unsigned forks_;  // of the process, when the team was made: in a child the helpers are gone
  Pool* pool_ = nullptr;
  Slot* slot_ = nullptr;  // null: nobody can help
  std::uint64_t lease_ = 0;
};

}  // namespace pylrp
