#include "base/buffer.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "base/block_watcher.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pylrp {
namespace {

constexpr std::size_t kLine = 64, kHuge = std::size_t{2} << 20;
constexpr std::size_t kLarge = std::size_t{256} << 10;
constexpr std::size_t kSmall = std::size_t{1} << 10;    // smaller blocks are the allocator's business
constexpr std::size_t kMostSmall = kLarge / 8 * 7;      // the largest of a thread's small blocks
constexpr std::size_t kBudget = std::size_t{16} << 20;  // of a thread, in use and kept together

std::size_t rounded(std::size_t bytes) { return (bytes + kLarge - 1) / kLarge * kLarge; }
// A huge page's alignment would leave gaps of that size between blocks: a quarter of what the values of a network take.
constexpr std::align_val_t kAlignment{kLine};

std::atomic<BlockWatcher> watcher{nullptr};

// Large blocks are pages of their own: malloc would put most of them between others, and could not give them back.
void* from_system(std::size_t bytes) {
#ifdef __linux__
  void* const block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) {
    throw std::bad_alloc();
  }
  // Fewer page faults and translations where whole huge pages fit; only advice.
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(block);
  const std::uintptr_t first = (at + kHuge - 1) / kHuge * kHuge, last = (at + bytes) / kHuge * kHuge;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#else
  void* const block = ::operator new(bytes, kAlignment);
#endif
  if (const BlockWatcher watch = watcher) {
    watch(block, bytes, true);
  }
  return block;
}
void to_system(void* block, std::size_t bytes) noexcept {
  if (const BlockWatcher watch = watcher) {
    watch(block, bytes, false);
  }
#ifdef __linux__
  munmap(block, bytes);
#else
  ::operator delete(block, kAlignment);
#endif
}

// Blocks that a thread has given back, freed with the thread.
class ThreadBlockCache {
 public:
  ~ThreadBlockCache() {
    for (int i = 0; i < count_; ++i) {
      to_system(blocks_[i].data, blocks_[i].bytes);
    }
  }
  // null: there is none of this size; the others have been freed for a new one.
  void* take(std::size_t bytes) noexcept {
    for (int i = 0; i < count_; ++i) {
      if (blocks_[i].bytes == bytes) {
        void* const data = blocks_[i].data;
        kept_ -= bytes;
        used_ += bytes;
        blocks_[i] = blocks_[--count_];
        return data;
      }
    }
    make_room(bytes);
    used_ += bytes;
    return nullptr;
  }
  bool give(void* data, std::size_t bytes) noexcept {
    used_ -= bytes < used_ ? bytes : used_;  // it may have been taken by another thread
    if (bytes > kBudget) {
      return false;
    }
    make_room(bytes);
    blocks_[count_++] = {data, bytes};
    kept_ += bytes;
    return true;
  }

 private:
  static constexpr int kMaxCachedBlocks = 16;
  struct Block {
    void* data;
    std::size_t bytes;
  };
  void make_room(std::size_t bytes) noexcept {
    while (count_ > 0 && (count_ == kMaxCachedBlocks || used_ + kept_ + bytes > kBudget)) {  // the oldest go first
      kept_ -= blocks_[0].bytes;
      to_system(blocks_[0].data, blocks_[0].bytes);
      --count_;
      for (int i = 0; i < count_; ++i) {
        blocks_[i] = blocks_[i + 1];
      }
    }
  }
  Block blocks_[kMaxCachedBlocks];
  int count_ = 0;
  std::size_t kept_ = 0, used_ = 0;
};

thread_local ThreadBlockCache cache;

// Blocks from kSmall to kMostSmall that a thread has given back: an aligned block that malloc cuts out of a larger one
// costs up to some microseconds, and each task of a layer wants several. Four sizes from one power of two to the next.
class SmallBlockCache {
 public:
  ~SmallBlockCache() {
    for (Class& of : classes_) {
      while (of.count > 0) {
        ::operator delete(of.blocks[--of.count], kAlignment);
      }
    }
  }
  // Rounds the size up to that of the block.
  void* take(std::size_t* bytes) {
    Class& of = classes_[class_of(bytes)];
    if (of.count > 0) {
      kept_ -= *bytes;
      return of.blocks[--of.count];
    }
    return ::operator new(*bytes, kAlignment);
  }
  void give(void* block, std::size_t bytes) noexcept {
    Class& of = classes_[class_of(&bytes)];
    if (of.count == kMaxOfClass || kept_ + bytes > kMaxKept) {
      ::operator delete(block, kAlignment);
      return;
    }
    of.blocks[of.count++] = block;
    kept_ += bytes;
  }

 private:
  static constexpr int kMaxOfClass = 4, kClasses = 32;
  static constexpr std::size_t kMaxKept = std::size_t{1} << 20;
  struct Class {
    void* blocks[kMaxOfClass];
    int count = 0;
  };
  static std::size_t class_of(std::size_t* bytes) noexcept {
    std::size_t of = 0, step = kSmall / 4, size = kSmall;
    while (size < *bytes) {
      size += step;
      if (++of % 4 == 0) {
        step *= 2;
      }
    }
    *bytes = size;
    return of;
  }
  Class classes_[kClasses];
  std::size_t kept_ = 0;
};

thread_local SmallBlockCache small_blocks;

constexpr std::size_t kWorkspace = std::size_t{192} << 20;

}  // namespace

Workspace::~Workspace() {
  for (std::size_t i = 0; i < count_; ++i) {
    to_system(blocks_[i].data, blocks_[i].bytes);
  }
}

void* Workspace::take_at(std::size_t i, std::size_t* bytes) {
  const Block block = blocks_[i];
  blocks_[i] = blocks_[--count_];
  kept_ -= block.bytes;
  used_ += block.bytes;
  *bytes = block.bytes;
  return block.data;
}

void* Workspace::take(std::size_t* bytes, Use use) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::size_t best = count_;
  for (std::size_t i = 0; i < count_; ++i) {
    if (blocks_[i].bytes >= *bytes && (best == count_ || blocks_[i].bytes < blocks_[best].bytes)) {
      best = i;
    }
  }
  most_used_ = std::max(most_used_, used_ + *bytes);
  const std::size_t limit = most_used_ + most_used_ / 16;
  const bool room = used_ + kept_ + *bytes <= limit;
  const std::size_t quarter_more = *bytes + *bytes / 4, twice = 2 * *bytes;
  // Without room a larger block is taken rather than that others go and fresh pages come: pages are cleared and mapped
  // at every call then. A value that is held may not have more than twice its size: the rest would lie idle that long.
  if (best < count_ && (blocks_[best].bytes <= (room ? quarter_more : twice) || (!room && use == Use::kWork))) {
    return take_at(best, bytes);
  }
  while (count_ > 0 && used_ + kept_ + *bytes > limit) {
    --count_;
    kept_ -= blocks_[count_].bytes;
    to_system(blocks_[count_].data, blocks_[count_].bytes);
  }
  used_ += *bytes;
  return nullptr;
}

bool Workspace::give(void* block, std::size_t bytes) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  used_ -= bytes;
  if (count_ == kMaxCachedBlocks || kept_ + bytes > kWorkspace) {
    return false;
  }
  blocks_[count_++] = {block, bytes};
  kept_ += bytes;
  return true;
}

void watch_blocks(BlockWatcher watch) { watcher = watch; }

void* take_block(std::size_t* bytes, Workspace* workspace, Use use) {
  if (*bytes < kSmall) {
    return ::operator new(*bytes, kAlignment);
  }
  if (*bytes <= kMostSmall) {
    return small_blocks.take(bytes);
  }
  *bytes = rounded(*bytes);
  void* block = workspace != nullptr ? workspace->take(bytes, use) : cache.take(*bytes);
  if (block == nullptr) {
    block = from_system(*bytes);
  }
  return block;
}

void give_block(void* block, std::size_t bytes, Workspace* workspace) noexcept {
  if (bytes < kSmall) {
    ::operator delete(block, kAlignment);
    return;
  }
  if (bytes <= kMostSmall) {
    small_blocks.give(block, bytes);
    return;
  }
  if (!(workspace != nullptr ? workspace->give(block, bytes) : cache.give(block, bytes))) {
    to_system(block, bytes);
  }
}

}  // namespace pylrp
