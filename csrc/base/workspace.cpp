#include "base/workspace.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

namespace pylrp {

// Of the process. Locked before a workspace, never after.
class KeptMemory {
 public:
  static KeptMemory& of_process() {
    static KeptMemory* const all = new KeptMemory;  // networks give memory back until the very end
    return *all;
  }
  void add(Workspace* workspace) {
    const std::lock_guard<std::mutex> lock(mutex_);
    workspaces_.push_back(workspace);
  }
  void remove(Workspace* workspace) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    workspaces_.erase(std::find(workspaces_.begin(), workspaces_.end(), workspace));
  }
  // Gives back what is kept beyond this.
  void balance(std::size_t most) noexcept {
    if (kept <= most) {
      return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t is = kept; is > most && release_oldest(is - most) > 0; is = kept) {
    }
  }

  std::atomic<std::size_t> kept{0}, limit{std::size_t{1} << 30}, calls{0};

 private:
  std::size_t release_oldest(std::size_t bytes) noexcept {
    Workspace* oldest = nullptr;
    std::size_t ended = 0;
    for (Workspace* const workspace : workspaces_) {
      const std::lock_guard<std::mutex> lock(workspace->mutex_);
      if (workspace->kept_ > 0 && (oldest == nullptr || workspace->ended_ < ended)) {
        oldest = workspace;
        ended = workspace->ended_;
      }
    }
    return oldest == nullptr ? 0 : oldest->release(bytes);
  }
  std::mutex mutex_;
  std::vector<Workspace*> workspaces_;
};

std::size_t kept_memory() { return KeptMemory::of_process().kept; }
std::size_t kept_memory_limit() { return KeptMemory::of_process().limit; }
void limit_kept_memory(std::size_t bytes) {
  KeptMemory::of_process().limit = bytes;
  KeptMemory::of_process().balance(bytes);
}
void release_kept_memory() { KeptMemory::of_process().balance(0); }

Workspace::Workspace() { KeptMemory::of_process().add(this); }

Workspace::~Workspace() {
  KeptMemory::of_process().remove(this);
  KeptMemory::of_process().kept -= kept_;
}

std::size_t Workspace::held() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return held_;
}

std::size_t Workspace::used() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

void* Workspace::take(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (kept_ > 0) {
    KeptMemory::of_process().kept -= std::exchange(kept_, 0);
  }
  if (used_ == 0 && top_ > 0 && arenas_.size() == 1) {  // what one call has left; a process may have no second one
    arenas_[0]->settle();
  }
  void* const block = place(bytes);
  used_ += bytes;
  most_of_call_ = std::max(most_of_call_, used_);
  most_ = std::max(most_, used_);
  shrink_to(limit());
  return block;
}

void* Workspace::place(std::size_t bytes) {
  std::size_t fresh = 0;
  for (const auto& arena : arenas_) {
    if (void* const block = arena->take(bytes, &fresh)) {
      held_ += fresh;
      return block;
    }
  }
  // The first call may take any amount. Later a second arena is one for the rest of a larger call than those before.
  const bool known = arenas_.empty() && top_ > 0;
  auto arena = std::make_unique<Arena>(known ? std::max(bytes, Pages::in_parts() ? 2 * top_ : top_) : bytes, !known);
  if (known) {
    arena->set_top(top_);
  }
  void* const block = arena->take(bytes, &fresh);
  arenas_.push_back(std::move(arena));
  held_ += Pages::in_parts() ? fresh : arenas_.back()->bytes();
  return block;
}

// Gives back what is free, as far as that is needed.
void Workspace::shrink_to(std::size_t limit) noexcept {
  for (std::size_t i = arenas_.size(); held_ > limit && i-- > 0;) {
    held_ -= arenas_[i]->drop(held_ - limit);
    if (!Pages::in_parts() && arenas_[i]->empty()) {
      held_ -= arenas_[i]->bytes();
      arenas_.erase(arenas_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

void Workspace::give(void* block, std::size_t bytes) noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto arena = std::find_if(arenas_.begin(), arenas_.end(), [&](const auto& of) { return of->has(block); });
    (*arena)->give(block);
    used_ -= bytes;
    if (used_ > 0) {
      return;
    }
    end_call();
  }
  KeptMemory::of_process().balance(kept_memory_limit());
}

void Workspace::end_call() noexcept {
  most_of_calls_ = std::max(most_of_calls_, std::exchange(most_of_call_, 0));
  if (++calls_ == kCallsLooked) {
    most_ = most_of_calls_ <= most_ / 2 ? most_of_calls_ : most_;
    most_of_calls_ = 0;
    calls_ = 0;
  }
  // What is free in an arena that was not enough can't be joined with the next one's.
  std::size_t reached = top_;
  const bool fits = arenas_.size() == 1 && (Pages::in_parts() || arenas_[0]->bytes() <= limit());
  if (fits) {
    reached = std::max(reached, arenas_[0]->reached());
  } else {
    arenas_.clear();
    held_ = 0;
  }
  const std::size_t unit = limit() < 8 * kHugePage ? kPage : kHugePage;
  const std::size_t top = std::min(rounded_up(std::max(reached, most_), unit), rounded_up(limit(), kPage));
  if (top != top_ && !arenas_.empty()) {
    held_ -= arenas_[0]->set_top(top);
  }
  top_ = top;
  kept_ = held_;
  KeptMemory::of_process().kept += kept_;
  ended_ = ++KeptMemory::of_process().calls;
}

std::size_t Workspace::release(std::size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (kept_ == 0) {
    return 0;
  }
  std::size_t released = held_;
  if (bytes < held_ && Pages::in_parts()) {
    released = arenas_[0]->drop(bytes);
  } else {
    arenas_.clear();
  }
  held_ -= released;
  kept_ = held_;
  KeptMemory::of_process().kept -= released;
  return released;
}

}  // namespace pylrp
