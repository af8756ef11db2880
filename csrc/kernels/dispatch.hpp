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

// Products with whole rows of weights that are stored as W.
template <class T, class W>
const RowProducts<T, W>& row_products() {
  return table<T>().rows;
}

}  // namespace pylrp::kernels
