// One convolution: the forward pass and relevance for every rule, against the reference in double.
#include <array>

#include "base/error.hpp"
#include "conv_run.hpp"

namespace pylrp {
namespace {

unsigned choices = 0;
void check_conv_both_types(const ConvCase& c) {
  for (const NamedRule& rule : conv_rules()) {
    check_conv<float>(c, rule, Options(choices), choices);
    ++choices;
    check_conv<double>(c, rule, Options(choices), choices);
    ++choices;
  }
}

const Geometry kSame{{1, 3, 4}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
const std::vector<std::pair<const char*, Geometry>> kGeometries{
    {"pixel by pixel", {{1, 4, 5}, {1, 1, 1}}},
    {"plain", {{1, 5, 6}, {1, 3, 3}}},
    {"padded", {{1, 4, 5}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
    {"strided", {{1, 7, 8}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
    {"strided with gaps", {{1, 7, 8}, {1, 2, 1}, {1, 3, 2}}},
    {"dilated", {{1, 7, 6}, {1, 3, 2}, {1, 1, 1}, {1, 2, 3}, {0, 2, 1}, {0, 2, 1}}},
    {"dilated and strided", {{1, 9, 8}, {1, 3, 3}, {1, 2, 3}, {1, 3, 2}, {0, 2, 2}, {0, 1, 2}}},
    {"ends that differ", {{1, 5, 5}, {1, 3, 4}, {1, 2, 1}, {1, 1, 1}, {0, 0, 3}, {0, 2, 0}}},
    {"mostly padding", {{1, 2, 1}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 3, 3}, {0, 3, 3}}},
    {"one axis", {{1, 1, 17}, {1, 1, 5}, {1, 1, 2}, {1, 1, 1}, {0, 0, 2}, {0, 0, 2}}},
    {"three axes", {{3, 4, 3}, {2, 3, 2}, {1, 2, 1}, {1, 1, 2}, {1, 1, 0}, {0, 1, 1}}},
    {"one window", {{1, 4, 3}, {1, 4, 3}}},
};

TEST(conv_geometries) {
  for (const auto& [name, geometry] : kGeometries) {
    check_conv_both_types({name, geometry, 3, 5, 1, false});
    check_conv_both_types({name, geometry, 3, 5, 1, true});
  }
}

// Channels that straddle panels and vectors, and those that do not.
TEST(conv_channels) {
  for (const Index channels : {1, 15, 16, 17, 31, 32, 33, 65}) {
    check_conv_both_types({"channels", kSame, channels, 5, 1, false});
    check_conv_both_types({"channels", kSame, 7, channels, 1, false});
    check_conv_both_types({"channels", kSame, channels, 2, 1, true});
  }
}

TEST(conv_groups) {
  for (const auto& [in, out, groups] : {std::array<Index, 3>{4, 6, 2}, {3, 6, 3}, {34, 4, 2}, {4, 66, 2}, {6, 3, 3}}) {
    for (const std::size_t at : {2u, 3u, 7u}) {
      check_conv_both_types({"groups", kGeometries[at].second, in, out, groups, false});
      check_conv_both_types({"groups", kGeometries[at].second, in, out, groups, true});
    }
  }
}

TEST(conv_depthwise) {
  for (const Index channels : {2, 16, 17, 33, 65}) {
    for (const auto& [name, geometry] : kGeometries) {
      if (channels == 17 || geometry.stride[1] > 1) {
        check_conv_both_types({std::string("depthwise, ") + name, geometry, channels, channels, channels, false});
        check_conv_both_types({std::string("depthwise, ") + name, geometry, channels, channels, channels, true});
      }
    }
  }
}

// More than a block of the reduction: by channels, and by taps.
TEST(conv_depth) {
  for (const Index channels : {256, 257, 300, 520}) {
    check_conv_both_types({"depth", {{1, 2, 2}, {1, 1, 1}}, channels, 3, 1, false});
    check_conv_both_types({"depth", {{1, 2, 2}, {1, 1, 1}}, 3, channels, 1, false});
  }
  check_conv_both_types({"depth", kSame, 300, 4, 1, false});
  check_conv_both_types({"depth", kSame, 100, 4, 1, false});
  check_conv_both_types({"taps", {{1, 18, 19}, {1, 17, 17}}, 1, 3, 1, false});
  check_conv_both_types({"taps", {{1, 18, 19}, {1, 17, 17}}, 2, 1, 1, true});
}

// Several blocks of rows, several slabs of panels, several tasks for each.
TEST(conv_of_many_rows_and_panels) {
  const Geometry large{{1, 17, 16}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const Geometry strided{{1, 40, 37}, {1, 3, 2}, {1, 2, 2}};
  unsigned n = 0;
  for (const char* rule : {"z+", "alpha-beta", "gamma", "epsilon"}) {
    const NamedRule named{rule, rule_named(rule)};
    Options options(++n);
    options.batch = 2;
    options.targets = 1;
    options.threads = 2;
    check_conv<float>({"large", large, 2, 290, 1, false}, named, options, n);
    check_conv<double>({"large", large, 90, 3, 1, n % 2 == 0}, named, options, n);
    check_conv<float>({"strided", strided, 5, 6, 1, n % 2 == 0}, named, options, n);
    check_conv<double>({"depthwise", strided, 17, 17, 17, n % 2 == 1}, named, options, n);
  }
}

// What a shift before a padded convolution becomes: a bias of its own at every position. The kernel of one would take
// another path with one bias for all, alpha-beta behind a ReLU would be found by subtraction.
TEST(conv_with_a_bias_at_every_position) {
  const Geometry padded{{1, 6, 7}, {1, 3, 3}, {1, 1, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const Geometry one{{1, 15, 16}, {1, 1, 1}};
  unsigned n = 0;
  for (const NamedRule& named : conv_rules()) {
    for (const bool kept : {false, true}) {
      Options options(++n);
      options.by_position = options.with_bias = true;
      options.kept = options.positive = kept;
      check_conv<float>({"padded", padded, 3, 5, 1, n % 4 < 2}, named, options, n);
      check_conv<double>({"grouped", padded, 4, 6, 2, n % 4 > 1}, named, options, n);
      check_conv<float>({"depthwise", padded, 6, 6, 6, n % 4 < 2}, named, options, n);
      check_conv<double>({"one position", one, 17, 18, 1, false}, named, options, n);
      check_conv<float>({"to few", padded, 2, 34, 1, false}, named, options, n);
    }
  }
}

// A block of rows meets many samples, and each has its own page.
TEST(conv_of_many_small_samples) {
  unsigned n = 0;
  for (const NamedRule& named : conv_rules()) {
    Options options(++n);
    options.batch = 97;
    options.targets = 1 + n % 3;
    check_conv<float>({"one pixel", {{1, 2, 2}, {1, 2, 2}}, 3, 2, 1, false}, named, options, n);
    check_conv<float>({"one pixel", {{1, 2, 2}, {1, 2, 2}}, 3, 2, 1, true}, named, options, n);
    check_conv<double>({"depthwise, 3 pixels", {{1, 1, 5}, {1, 1, 3}}, 3, 3, 3, false}, named, options, n);
    check_conv<double>({"strided", {{1, 1, 5}, {1, 1, 2}, {1, 1, 3}}, 2, 3, 1, true}, named, options, n);
  }
}

// Walks of different lengths, each in several blocks of rows: every block has its pages.
TEST(conv_pages_of_several_walks) {
  const Geometry by_three{{1, 1, 5}, {1, 1, 2}, {1, 1, 3}};  // walks of two, two and one position
  unsigned n = 0;
  for (const char* name : {"epsilon", "z+", "alpha-beta"}) {
    Options options(++n);
    options.batch = 1000;
    options.targets = 1 + n % 2;
    options.threads = 2;
    options.kept = false;
    check_conv<float>({"many samples", by_three, 2, 3, 1, true}, {name, rule_named(name)}, options, n);
    check_conv<double>({"many samples, depthwise", by_three, 3, 3, 3, true}, {name, rule_named(name)}, options, n);
  }
}

TEST(conv_same_bits_for_any_number_of_threads) {
  const Geometry plain{{1, 15, 14}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const Geometry strided{{1, 29, 28}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const ConvCase cases[] = {{"plain", plain, 33, 34, 1, false},
                            {"transposed", strided, 20, 34, 1, true},
                            {"grouped", plain, 66, 68, 2, false},
                            {"depthwise", strided, 290, 290, 290, false},
                            {"depthwise", strided, 290, 290, 290, true}};
  for (const ConvCase& c : cases) {
    unsigned n = 0;
    for (const NamedRule& named : conv_rules()) {
      check::context = c.name + ", " + named.name;
      Options options(++n);
      ConvData<float> data(c.shape(), c.transposed, options.batch, options.targets, n, options.nonnegative);
      const ConvLayer<float> layer = data.layer(options.with_bias);
      const CompiledRule rule(named.rule);
      std::array<std::vector<float>, 2> alone;
      std::vector<double> lost;
      for (const int threads : {1, 2, 3}) {
        options.threads = threads;
        Fenced<float> output(options.batch, data.relevance.cols());
        layer.forward({data.input.read()}, output.view(), {}, {threads});
        Relevance<float> found(layer, data, rule, options.kept ? output.read() : Matrix<const float>{}, options);
        if (threads == 1) {
          alone = {output.entries(), found.result.entries()};
          lost = found.lost();
        }
        CHECK(same_bits(alone[0], output.entries()) && same_bits(alone[1], found.result.entries()));
        CHECK(same_bits(lost, found.lost()));
      }
    }
  }
}

TEST(conv_rows_are_independent) {
  const Geometry small{{1, 6, 7}, {1, 3, 3}, {1, 2, 1}};
  for (const char* name : {"alpha-beta", "epsilon", "w^2"}) {
    for (const bool kept : {false, true}) {
      check::context = std::string(name) + (kept ? ", kept" : "");
      check_rows(small.shape(3, 18), name, kept, {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 0}, {2, 1}, {3, 0}, {3, 1}});
    }
  }
  // Shares that would take too much memory at once go in parts: here three targets of one sample, then the fourth.
  check::context = "in parts";
  const Geometry large{{1, 700, 900}, {1, 1, 2}};
  check_rows(large.shape(), "alpha-beta", false, {{0, 1}, {2, 0}, {3, 0}, {3, 1}});
}

TEST(conv_nothing_to_do) {
  for (const auto& [batch, targets] : {std::array<Index, 2>{0, 1}, {2, 0}, {0, 0}}) {
    for (const bool transposed : {false, true}) {
      ConvData<float> data(kSame.shape(2, 3), transposed, batch, targets, 1, false);
      const ConvLayer<float> layer = data.layer(true);
      Fenced<float> output(batch, data.relevance.cols());
      layer.forward({data.input.read()}, output.view(), {}, {2});
      for (const NamedRule& named : conv_rules()) {
        const CompiledRule rule(named.rule);
        Relevance<float> found(layer, data, rule, {}, Options(1));
        CHECK(found.result.intact() && output.intact());
      }
    }
  }
}

// Constant terms are sums of their own here.
TEST(conv_refuses_rules_that_are_too_wide) {
  ConvData<float> data(kSame.shape(2, 2), false, 1, 1, 1, false);
  const CompiledRule rule(rule_named("odd"));
  bool refused = false;
  try {
    const Relevance<float> found(data.layer(true), data, rule, {}, Options(1));
  } catch (const Error&) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace
}  // namespace pylrp
