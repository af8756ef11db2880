// Threads: the only scheduler of the core, and the only OpenMP pragma (in parallel.cpp).
// Task i always does the same work whatever the number of threads, so results are equal bit by bit.
#pragma once

#include <functional>

#include "base/buffer.hpp"
#include "base/view.hpp"

namespace pylrp {

// Asked now and then by the calling thread of a long run; true means stop.
using Poll = std::function<bool()>;

// What a call may use.
struct Threads {
  int count = 1;  // at most so many threads
  const Poll* poll = nullptr;
  Workspace* workspace = nullptr;  // for blocks as large as values

  // The same, but for the calling thread alone where the work is too little for more.
  Threads alone_if(bool little) const { return {little ? 1 : count, poll, workspace}; }
};

int default_threads();  // set_default_threads, else OMP_NUM_THREADS, else the CPUs we may use
void set_default_threads(int count);
int openmp_version();  // _OPENMP, 0 without

// A forked child of a process that already ran a parallel region must not enter one (libgomp would hang).
void forbid_threads();

// Multiplications from which a call is worth a team: less is done before the other threads are awake.
inline constexpr Index kWorthTeam = Index{1} << 22;

// Runs body() on this thread, with a team at hand for all its loops: one parallel region instead of one a loop.
void with_team(const Threads& threads, const std::function<void()>& body);

// Calls task(i) for i in [0, n), on several threads. Throws Interrupted where the poll says stop.
// An exception of a task (out of memory, say) is kept and thrown again on the calling thread.
void parallel_for(Index n, const Threads& threads, const std::function<void(Index)>& task);

}  // namespace pylrp
