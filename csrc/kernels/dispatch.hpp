// Which instruction sets were built, which this machine has, which one runs.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "kernels/table.hpp"

namespace pylrp::kernels {

std::vector<std::string> built();      // best first
std::vector<std::string> supported();  // those of them that this CPU and operating system run
// The best supported one, or what PYLRP_ISA names. Throws pylrp::Error where PYLRP_ISA can't be had.
const Isa& active();

template <class T>
const Table<T>& table() {
  if constexpr (std::is_same_v<T, float>) {
    return active().f32;
  } else {
    return active().f64;
  }
}

// For operands in bfloat16: by the processor's instruction where it has one, or emulated (at its name).
const Bfloat16Table& bfloat16_table();
// For tests: emulates what an instruction would do, from now on, in the whole process.
void emulate_bfloat16(bool always);

// Products with whole rows of weights that are stored as W.
template <class T, class W>
const RowProducts<T, W>& row_products() {
  if constexpr (std::is_same_v<W, Bfloat16>) {
    return bfloat16_table().rows;
  } else {
    return table<T>().rows;
  }
}

}  // namespace pylrp::kernels
