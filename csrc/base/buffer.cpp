#include "base/buffer.hpp"

#include <new>
#include <utility>

#include "base/pages.hpp"
#include "base/pool.hpp"

namespace pylrp {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kLarge = std::size_t{256} << 10;
constexpr std::size_t kSmall = std::size_t{1} << 10;              // smaller blocks are the allocator's business
constexpr std::size_t kLeastOfWorkspace = std::size_t{16} << 10;  // whole pages, and a search under a lock
constexpr std::size_t kMostSmall = kLarge / 8 * 7;                // the largest of a thread's small blocks
constexpr std::size_t kBudget = std::size_t{16} << 20;            // of a thread, in use and kept together

constexpr std::align_val_t kAlignment{kLine};

// Blocks that a thread has given back, freed with the thread.
class ThreadBlockCache {
 public:
  ~ThreadBlockCache() {
    for (int i = 0; i < count_; ++i) {
      block_to_system(blocks_[i].data, blocks_[i].bytes);
    }
  }
  // The smallest that is large enough and at most twice as large; sets its size. null: others have been freed for a new
  // one.
  void* take(std::size_t* bytes) noexcept {
    int best = count_;
    for (int i = 0; i < count_; ++i) {
      if (blocks_[i].bytes >= *bytes && blocks_[i].bytes <= 2 * *bytes &&
          (best == count_ || blocks_[i].bytes < blocks_[best].bytes)) {
        best = i;
      }
    }
    if (best == count_) {
      make_room(*bytes);
      used_ += *bytes;
      return nullptr;
    }
    const Block block = blocks_[best];
    blocks_[best] = blocks_[--count_];
    kept_ -= block.bytes;
    used_ += block.bytes;
    *bytes = block.bytes;
    return block.data;
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
      block_to_system(blocks_[0].data, blocks_[0].bytes);
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
thread_local Workspace* home = nullptr;

}  // namespace

Home::Home(Workspace* workspace) : before_(std::exchange(home, workspace)) {}
Home::~Home() { home = before_; }

void* take_block(std::size_t* bytes, Workspace** workspace) {
  if (*bytes < kSmall) {
    return ::operator new(*bytes, kAlignment);
  }
  if (*workspace == nullptr && !Team::in_task()) {
    *workspace = home;
  }
  if (*bytes < kLeastOfWorkspace) {
    *workspace = nullptr;
  }
  if (*workspace != nullptr) {
    *bytes = rounded_up(*bytes, kPage);
    return (*workspace)->take(*bytes);
  }
  if (*bytes <= kMostSmall) {
    return small_blocks.take(bytes);
  }
  *bytes = rounded_up(*bytes, kLarge);
  void* const block = cache.take(bytes);
  return block != nullptr ? block : block_from_system(*bytes);
}

void give_block(void* block, std::size_t bytes, Workspace* workspace) noexcept {
  if (bytes < kSmall) {
    ::operator delete(block, kAlignment);
    return;
  }
  if (workspace != nullptr) {
    workspace->give(block, bytes);
  } else if (bytes <= kMostSmall) {
    small_blocks.give(block, bytes);
  } else if (!cache.give(block, bytes)) {
    block_to_system(block, bytes);
  }
}

}  // namespace pylrp
