// For tests: who is told of each large block that buffer.cpp gets from the system, and of each that goes back.
#pragma once

#include <cstddef>

namespace pylrp {

using BlockWatcher = void (*)(void* block, std::size_t bytes, bool comes);
void watch_blocks(BlockWatcher watch);  // null: nobody

}  // namespace pylrp
