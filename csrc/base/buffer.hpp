// Scratch memory: aligned, not initialised, freed with its owner.
#pragma once

#include <cstddef>
#include <utility>

#include "base/size.hpp"
#include "base/workspace.hpp"

namespace pylrp {

// While it lives, large blocks of this thread come from a workspace, but for those of tasks: what a layer needs for all
// of a call is as large as values are.
class Home {
 public:
  explicit Home(Workspace* workspace);
  ~Home();
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

 private:
  Workspace* const before_;
};

// Without a workspace, large blocks are kept for the thread's next call, up to 16 MB in all: fresh pages from the
// system have to be cleared and mapped, which cost up to a tenth of a product here. Aligned to a cache line; `bytes`
// becomes the size of the block, `workspace` where it comes from.
void* take_block(std::size_t* bytes, Workspace** workspace);
void give_block(void* block, std::size_t bytes, Workspace* workspace) noexcept;

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size, Workspace* workspace = nullptr) { reset(size, workspace); }
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

  // Drops what it held. A large block comes from `workspace`, or the thread's home, and goes back there. Throws Error
  // where no memory holds it.
  void reset(Index size, Workspace* workspace = nullptr) {
    release();
    bytes_ = static_cast<std::size_t>(checked_product({size, Index{sizeof(T)}}, "a buffer"));
    workspace_ = workspace;
    data_ = static_cast<T*>(take_block(&bytes_, &workspace_));
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
