// Scratch memory: aligned, not initialised, freed with its owner.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>

#include "base/size.hpp"

namespace pylrp {

// How long a block is in use: while a step works, or until the call's end, as the values that relevance needs.
enum class Use { kWork, kHeld };

// Large blocks that a network keeps for its next run, up to 192 MB: its activations are of the same sizes each time.
// Cached plus live bytes stay within 1/16 above the peak of live bytes. Several threads may use it.
class Workspace {
 public:
  Workspace() = default;
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* take(std::size_t* bytes, Use use);  // sets the size it has; null: there is none that fits
  bool give(void* block, std::size_t bytes) noexcept;

 private:
  struct Block {
    void* data;
    std::size_t bytes;
  };
  void* take_at(std::size_t i, std::size_t* bytes);
  static constexpr std::size_t kMaxCachedBlocks = 256;
  std::mutex mutex_;
  Block blocks_[kMaxCachedBlocks];
  std::size_t count_ = 0, kept_ = 0, used_ = 0, most_used_ = 0;
};

// Without a workspace, large blocks are kept for the thread's next call, up to 16 MB in all: fresh pages from the
// system have to be cleared and mapped, which cost up to a tenth of a product here. Aligned to a cache line; `bytes`
// becomes the size of the block.
void* take_block(std::size_t* bytes, Workspace* workspace, Use use);
void give_block(void* block, std::size_t bytes, Workspace* workspace) noexcept;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size, Workspace* workspace = nullptr, Use use = Use::kWork) { reset(size, workspace, use); }
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(workspace_, other.workspace_);
    return *this;
  }

  // Drops what it held. A large block comes from `workspace` and goes back there. Throws Error where no memory holds
  // it.
  void reset(Index size, Workspace* workspace = nullptr, Use use = Use::kWork) {
    release();
    bytes_ = static_cast<std::size_t>(checked_product({size, Index{sizeof(T)}}, "a buffer"));
    data_ = static_cast<T*>(take_block(&bytes_, workspace, use));
    workspace_ = workspace;
  }
  T* data() const { return data_; }

 private:
  void release() noexcept {
    if (data_ != nullptr) {
      give_block(data_, bytes_, workspace_);
      data_ = nullptr;
    }
  }
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
  Workspace* workspace_ = nullptr;
};

}  // namespace pylrp
