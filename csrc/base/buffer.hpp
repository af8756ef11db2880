// Scratch memory: aligned to a cache line, not initialised, freed with its owner.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "base/view.hpp"

namespace pylrp {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size) { reset(size); }
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  // Drops what it held.
  void reset(Index size) {
    release();
    data_ = static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), kAlignment));
  }
  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  void release() {
    ::operator delete(data_, kAlignment);
    data_ = nullptr;
  }
  T* data_ = nullptr;
};

}  // namespace pylrp
