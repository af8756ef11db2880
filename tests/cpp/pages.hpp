// Two pages of memory, each followed by one that nobody may read or write: for test_kernels_shares.cpp.
#pragma once

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#undef near  // words of 16-bit Windows
#undef far
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstddef>
#include <new>

namespace pylrp {

class GuardedPages {
 public:
#ifdef _WIN32
  GuardedPages() {
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    page_ = system.dwPageSize;
    memory_ = static_cast<char*>(VirtualAlloc(nullptr, 4 * page_, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
    DWORD before = 0;
    if (memory_ == nullptr || VirtualProtect(first_end(), page_, PAGE_NOACCESS, &before) == 0 ||
        VirtualProtect(second_end(), page_, PAGE_NOACCESS, &before) == 0) {
      throw std::bad_alloc();
    }
  }
  ~GuardedPages() { VirtualFree(memory_, 0, MEM_RELEASE); }
#else
  GuardedPages() : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* const memory = mmap(nullptr, 4 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw std::bad_alloc();
    }
    memory_ = static_cast<char*>(memory);
    if (mprotect(first_end(), page_, PROT_NONE) != 0 || mprotect(second_end(), page_, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
  }
  ~GuardedPages() { munmap(memory_, 4 * page_); }
#endif
  GuardedPages(const GuardedPages&) = delete;
  GuardedPages& operator=(const GuardedPages&) = delete;

  char* first_end() const { return memory_ + page_; }
  char* second_end() const { return memory_ + 3 * page_; }

 private:
  std::size_t page_ = 0;
  char* memory_ = nullptr;
};

}  // namespace pylrp
