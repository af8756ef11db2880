// Generalised gamma by three products instead of eight, where the forward pass has kept its output. For layers/dense.
#pragma once

#include "rules/lower.hpp"

namespace pylrp {

// With u = W a + b, which is the first of the sums, and v = |W| |a|:
//   denominators   (1 + g/2) u + g/2 (v + |b|) where u > 0, (1 + g/2) u - g/2 (v + |b|) where u < 0: nothing cancels
//   R = a (2 + g) W^T (s_0 + s_1) / 2 + |a| g |W|^T (s_0 - s_1) / 2
// False if the rule is none of this kind, or g > 1: its rounding grows with g.
bool gamma_by_magnitude(const Rule& rule, LoweredRule* result);

}  // namespace pylrp
