// The backward pass to an image of few channels: what every position sends to all its taps is gathered
// (layers/conv/few_input_channels.cpp).
#include "conv_run.hpp"

namespace pylrp {
namespace {

template <class T>
bool gathers(const ConvCase& c) {
  return lists<T>(c, rule_named("z+"), ConvPath::kFewInputChannels);
}
bool gathers_both(const ConvCase& c) { return gathers<double>(c) && gathers<float>(c); }
const bool kBuilt = is_built(ConvPath::kFewInputChannels);
// Channels of the image for which it does with any vectors (NEON's hold 2 numbers), and enough of the other side's.
constexpr Index kFew = 1, kMany = 16;

TEST(few_channels_limits) {
  const Index lanes = kernels::table<float>().tile_cols / 2;
  const Geometry small{{1, 6, 6}, {1, 3, 3}};
  const auto few = [](const Geometry& geometry, Index in, Index out, Index groups, bool transposed) {
    return gathers<float>({"", geometry, in, out, groups, transposed});
  };
  CHECK(few(small, lanes / 2, lanes, 1, false) == kBuilt);
  CHECK(!few(small, lanes / 2 + 1, lanes, 1, false));  // most of a vector is filled
  CHECK(!few(small, lanes / 2, lanes - 1, 1, false));
  CHECK(!few(small, lanes / 2, lanes, 1, true));
  CHECK(!few(small, 2, 2 * lanes, 2, false));
  CHECK(!few({{1, 6, 6}, {1, 1, 1}, {1, 2, 2}}, 1, lanes, 1, false));
  CHECK(!few({{1, 40, 40}, {1, 33, 33}}, 1, lanes, 1, false));  // too much is sent
}

TEST(few_channels_anything) {
  Random random(11);
  unsigned gathered = 0;
  for (unsigned n = 0; n < 240; ++n) {
    const Geometry geometry = random_geometry(random);
    const Index in = random.up_to(kFew, 4), out = random.up_to(kMany, 37);
    const ConvCase c{"geometry " + std::to_string(n), geometry, in, out, 1, false};
    const NamedRule& rule = conv_rules()[n % conv_rules().size()];
    gathered += gathers_both(c) ? 1 : 0;
    check_conv<float>(c, rule, Options(2 * n), 2 * n);
    check_conv<double>(c, rule, Options(2 * n + 1), 2 * n + 1);
  }
  CHECK(gathered > 20 || !kBuilt);  // one channel always, four with wide vectors
}

// Lines and tasks of positions end anywhere; what is sent by several rows does not fit at once.
TEST(few_channels_in_parts) {
  const Geometry image{{1, 61, 67}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  for (const char* rule : {"alpha-beta", "gamma", "z-box", "w^2"}) {
    const ConvCase c{"in parts", image, kFew, kMany, 1, false};
    CHECK(gathers_both(c) == kBuilt);
    Options options(5);
    options.nonnegative = options.positive = false;
    options.batch = 3;
    options.targets = 4;
    options.threads = 3;
    check_conv<double>(c, {rule, rule_named(rule)}, options, 5);
  }
}

TEST(few_channels_rows_are_independent) {
  const Geometry image{{1, 61, 67}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  for (const char* rule : {"alpha-beta", "gamma", "z-box"}) {
    for (const bool kept : {false, true}) {
      check_rows(image.shape(kFew, kMany), rule, kept, {{0, 0}, {2, 1}, {3, 1}});
    }
  }
}

}  // namespace
}  // namespace pylrp
