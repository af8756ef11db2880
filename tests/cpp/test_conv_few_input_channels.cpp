// The way back to an image of few channels: what every position sends to all its taps is gathered
// (layers/conv/few_input_channels.cpp).
#include "conv_run.hpp"

namespace pylrp {
namespace {

bool goes_there(const ConvCase& c) {
  const ConvShape shape = c.shape();
  return is_narrow(ConvWeights<double>{shape, c.transposed, nullptr, nullptr}) &&
         is_narrow(ConvWeights<float>{shape, c.transposed, nullptr, nullptr});
}
// Channels of the image for which it does with any vectors (NEON's hold 2 numbers), and enough of the other side's.
constexpr Index kFew = 1, kMany = 16;

TEST(narrow_limits) {
  const Index lanes = kernels::table<float>().tile_cols / 2;
  const Geometry small{{1, 6, 6}, {1, 3, 3}};
  const auto narrow = [](const Geometry& geometry, Index in, Index out, Index groups, bool transposed) {
    return is_narrow(ConvWeights<float>{geometry.shape(in, out, groups), transposed, nullptr, nullptr});
  };
  CHECK(narrow(small, lanes / 2, lanes, 1, false));
  CHECK(!narrow(small, lanes / 2 + 1, lanes, 1, false));  // most of a vector is filled
  CHECK(!narrow(small, lanes / 2, lanes - 1, 1, false));
  CHECK(!narrow(small, lanes / 2, lanes, 1, true));
  CHECK(!narrow(small, 2, 2 * lanes, 2, false));
  CHECK(!narrow({{1, 6, 6}, {1, 1, 1}, {1, 2, 2}}, 1, lanes, 1, false));
  CHECK(!narrow({{1, 40, 40}, {1, 33, 33}}, 1, lanes, 1, false));  // too much is sent
}

TEST(narrow_anything) {
  Random random(11);
  unsigned there = 0;
  for (unsigned n = 0; n < 240; ++n) {
    const Geometry geometry = random_geometry(random);
    const Index in = random.up_to(kFew, 4), out = random.up_to(kMany, 37);
    const ConvCase c{"geometry " + std::to_string(n), geometry, in, out, 1, false};
    const NamedRule& rule = conv_rules()[n % conv_rules().size()];
    there += goes_there(c) ? 1 : 0;
    check_conv<float>(c, rule, Options(2 * n), 2 * n);
    check_conv<double>(c, rule, Options(2 * n + 1), 2 * n + 1);
  }
  CHECK(there > 20);  // one channel goes there always, four with wide vectors
}

// Lines and tasks of positions end anywhere; what is sent by several rows does not fit at once.
TEST(narrow_in_parts) {
  const Geometry image{{1, 61, 67}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  for (const char* rule : {"alpha-beta", "gamma", "z-box", "w^2"}) {
    const ConvCase c{"in parts", image, kFew, kMany, 1, false};
    CHECK(goes_there(c));
    Options options(5);
    options.nonnegative = options.positive = false;
    options.batch = 3;
    options.targets = 4;
    options.threads = 3;
    check_conv<double>(c, {rule, rule_named(rule)}, options, 5);
  }
}

TEST(narrow_rows_are_independent) {
  const Geometry image{{1, 61, 67}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  for (const char* rule : {"alpha-beta", "gamma", "z-box"}) {
    for (const bool kept : {false, true}) {
      check_rows(image.shape(kFew, kMany), rule, kept, {{0, 0}, {2, 1}, {3, 1}});
    }
  }
}

}  // namespace
}  // namespace pylrp
