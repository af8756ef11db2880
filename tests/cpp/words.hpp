// What tests of operands in bfloat16 share: a float's bits, and both ways to multiply words.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dispatch.hpp"

namespace pylrp {

inline float of_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// Both ways to multiply words: with the instruction, if there is one, and emulated.
template <class F>
void both_ways(F test) {
  for (const bool emulated : {false, true}) {
    kernels::emulate_bfloat16(emulated);
    test(kernels::bfloat16_table());
  }
  kernels::emulate_bfloat16(false);
}

}  // namespace pylrp
