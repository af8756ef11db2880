// Memory of a network's calls, kept from one to the next.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "base/arena.hpp"

namespace pylrp {

// What all workspaces of the process keep while nobody uses them: at most so many bytes. Those that have not been used
// for longest give theirs back first.
std::size_t kept_memory();
std::size_t kept_memory_limit();
void limit_kept_memory(std::size_t bytes);
// All of it goes back to the system.
void release_kept_memory();

// The large blocks of a network's calls. Where nothing is in use, a call has ended: its memory stays, since the next
// one probably takes as much, and fresh pages have to be cleared and mapped. In use and kept together are within 1/4
// above the most that was in use at once; after some calls that need half of that or less, above theirs. Several
// threads may use it.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* take(std::size_t bytes);  // a multiple of kPage
  void give(void* block, std::size_t bytes) noexcept;
  // What it has from the system, and what of it is in use.
  std::size_t held() const;
  std::size_t used() const;

 private:
  friend class KeptMemory;
  static constexpr int kCallsLooked = 16;

  void* place(std::size_t bytes);
  void shrink_to(std::size_t limit) noexcept;
  void end_call() noexcept;
  // Where nothing is in use: gives so many bytes back, if it has them; returns how many.
  std::size_t release(std::size_t bytes) noexcept;
  // Of the first call less: blocks lie closely there, and its peak is that of a process that explains once.
  std::size_t limit() const { return most_ + most_ / (top_ > 0 ? 4 : 64); }

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Arena>> arenas_;  // one, but for the call that shows that it is too small
  std::size_t held_ = 0, used_ = 0;
  std::size_t most_ = 0;  // in use at once, ever, or in the last calls if they needed far less
  std::size_t most_of_call_ = 0;
  std::size_t most_of_calls_ = 0;  // since the last look at it
  int calls_ = 0;                  // since then
  std::size_t top_ = 0;            // of the arena; 0: not known yet
  std::size_t kept_ = 0;           // of `held_`, what counts as kept
  std::size_t ended_ = 0;          // when the last call did, in calls of the process
};

}  // namespace pylrp
