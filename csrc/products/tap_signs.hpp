// Two products over taps that go into one sum, one left operand with the positive and another one with the negative
// weights, become one product whose weights pick by their sign which of the two they meet (kernels/signs.hpp).
#pragma once

#include <cstdint>

#include "products/taps.hpp"

namespace pylrp {

// Joins such products of the work, where lists of both operands take less time than the two apart.
template <class T>
void join_signs(TapWork<T>* work);
template <class T>
bool has_signs(const TapWork<T>& work);  // of which some are joined
// How many rows of a block share a list then: 1, 2.
template <class T>
Index choose_signs(const Block& block, const Image<T>& image, Index channels);
// The list of a pair of rows: of the first and the second what positive and negative weights meet.
template <class T>
Index compress_signs(Index k, const T* const* x, T* values, std::uint16_t* steps);
// Of some panels' weights, for lists by sign: (steps, panels, 2 vectors).
template <class T>
void read_signs(Index steps, Index panels, const T* const* panel, std::uint16_t* signs);

}  // namespace pylrp
