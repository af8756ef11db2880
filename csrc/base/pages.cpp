#include "base/pages.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "base/block_watcher.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#endif

namespace pylrp {
namespace {

std::atomic<BlockWatcher> watcher{nullptr};

void tell(void* block, std::size_t bytes, bool comes) {
  if (const BlockWatcher watch = watcher) {
    watch(block, bytes, comes);
  }
}

#ifdef __linux__

// Addresses for the largest call, as long as nobody knows how large it is; what is left over goes back after it.
constexpr std::size_t kMostAddresses = sizeof(void*) > 4 ? std::size_t{1} << 34 : std::size_t{1} << 26;
// Memory may be used in steps of this: each is a call of the system.
constexpr std::size_t kOpened = 8 * kHugePage;
// From so much on it comes in huge pages from the first call on: fewer faults and translations, but up to one more than
// is used.
constexpr std::size_t kHugeFrom = 32 * kHugePage;
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; those before refuse it
#endif

char* map(std::size_t bytes, int access) {
  void* const block = mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return block == MAP_FAILED ? nullptr : static_cast<char*>(block);
}

std::size_t addresses_for(std::size_t least) {
  rlimit limit{};
  const bool limited = getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return limited ? least : std::max(least, kMostAddresses);
}

#endif

}  // namespace

void watch_blocks(BlockWatcher watch) { watcher = watch; }

#ifdef __linux__

// Large blocks are pages of their own: malloc would put most of them between others, and could not give them back.
void* block_from_system(std::size_t bytes) {
  char* const block = map(bytes, PROT_READ | PROT_WRITE);
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  // Where whole huge pages fit; only advice.
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(block);
  const std::uintptr_t first = (at + kHugePage - 1) / kHugePage * kHugePage,
                       last = (at + bytes) / kHugePage * kHugePage;
  if (first < last) {
    madvise(block + (first - at), last - first, MADV_HUGEPAGE);
  }
  tell(block, bytes, true);
  return block;
}

void block_to_system(void* block, std::size_t bytes) noexcept {
  tell(block, bytes, false);
  munmap(block, bytes);
}

bool Pages::in_parts() { return true; }

Pages::Pages(std::size_t least, bool more) {
  least = rounded_up(least, kHugePage);
  char* all = nullptr;
  std::size_t bytes = more ? addresses_for(least) : least;
  // A huge page more, so that the first one may begin where huge pages do.
  while ((all = map(bytes + kHugePage, PROT_NONE)) == nullptr && bytes > least) {
    bytes = std::max(least, rounded_up(bytes / 2, kHugePage));
  }
  if (all == nullptr) {
    throw std::bad_alloc();
  }
  const std::size_t before = kHugePage - reinterpret_cast<std::uintptr_t>(all) % kHugePage;
  munmap(all, before);
  if (before < kHugePage) {
    munmap(all + before + bytes, kHugePage - before);
  }
  data_ = all + before;
  bytes_ = bytes;
  tell(data_, bytes_, true);
}

Pages::~Pages() {
  tell(data_, bytes_, false);
  munmap(data_, bytes_);
}

void Pages::open(std::size_t bytes) {
  if (bytes > open_) {
    const std::size_t to = std::min(bytes_, rounded_up(bytes, kOpened));
    if (mprotect(data_ + open_, to - open_, PROT_READ | PROT_WRITE) != 0) {
      throw std::bad_alloc();
    }
    open_ = to;
  }
  if (bytes >= kHugeFrom && advised_ < open_) {
    madvise(data_ + advised_, open_ - advised_, MADV_HUGEPAGE);
    advised_ = open_;
  }
}

void Pages::settle(std::size_t bytes) noexcept {
  bytes = std::min(bytes, open_) / kHugePage * kHugePage;
  if (bytes > settled_) {
    madvise(data_, bytes, MADV_HUGEPAGE);
    madvise(data_ + settled_, bytes - settled_, MADV_COLLAPSE);
    settled_ = bytes;
  }
}

void Pages::drop(std::size_t at, std::size_t bytes) noexcept { madvise(data_ + at, bytes, MADV_DONTNEED); }

void Pages::cut(std::size_t bytes) noexcept {
  bytes = rounded_up(bytes, kHugePage);
  if (bytes < bytes_) {
    tell(data_, bytes_, false);
    munmap(data_ + bytes, bytes_ - bytes);
    bytes_ = bytes;
    open_ = std::min(open_, bytes);
    advised_ = std::min(advised_, bytes);
    tell(data_, bytes_, true);
  }
}

#else

constexpr std::align_val_t kAlignment{64};

void* block_from_system(std::size_t bytes) {
  void* const block = ::operator new(bytes, kAlignment);
  tell(block, bytes, true);
  return block;
}

void block_to_system(void* block, std::size_t bytes) noexcept {
  tell(block, bytes, false);
  ::operator delete(block, kAlignment);
}

bool Pages::in_parts() { return false; }

Pages::Pages(std::size_t least, bool)
    : data_(static_cast<char*>(block_from_system(least))), bytes_(least), open_(least) {}

Pages::~Pages() { block_to_system(data_, bytes_); }

void Pages::open(std::size_t) {}
void Pages::settle(std::size_t) noexcept {}
void Pages::drop(std::size_t, std::size_t) noexcept {}
void Pages::cut(std::size_t) noexcept {}

#endif

}  // namespace pylrp
