// Threads: the only scheduler of the core; pool.cpp has the threads.
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
  bool bfloat16 = false;           // products of dense layers and convolutions may round their operands to bfloat16

  // The same, but for the calling thread alone where the work is too little for more.
  Threads alone_if(bool little) const { return {little ? 1 : count, poll, workspace, bfloat16}; }
};

// Multiplications from which a call is worth a team. Measured with one sample, a matter of reading the weights:
// 784-1500- 1500-10 (3.4 million) takes 0.56 to 0.61 ms on one thread and 0.56 to 0.66 on two, 784-1800-1800-10
// (4.7) 1.0 and 0.64.
inline constexpr double kWorthTeam = 1 << 22;

// Runs body() on this thread, with helpers at hand for all its loops: they stay awake between them for a while.
void with_team(const Threads& threads, const std::function<void()>& body);

// Calls task(i) for i in [0, n), on this thread and on those that have the time: it ends when the tasks are done, and
// never waits for a thread that has none. Throws Interrupted where the poll says stop. An exception of a task (out of
// memory, say) is kept and thrown again on the calling thread.
void parallel_for(Index n, const Threads& threads, const std::function<void(Index)>& task);

}  // namespace pylrp
