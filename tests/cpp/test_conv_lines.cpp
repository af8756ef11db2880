// How the work of a convolution is cut: lines of depthwise ones, weights packed in tasks or once for all.
#include <set>

#include "conv_run.hpp"

namespace pylrp {
namespace {

unsigned choices = 0;
void check_rule(const ConvCase& c, const NamedRule& rule) {
  check_conv<float>(c, rule, Options(choices), choices);
  check_conv<double>(c, rule, Options(choices + 1), choices + 1);
  choices += 2;
}
const NamedRule& next_rule() { return conv_rules()[choices / 2 % conv_rules().size()]; }

// --- depthwise ---

TEST(depthwise_lines) {
  const std::vector<std::pair<const char*, Geometry>> geometries{
      {"kernel wider than the image", {{1, 2, 3}, {1, 5, 7}, {1, 1, 1}, {1, 1, 1}, {0, 2, 3}, {0, 2, 3}}},
      {"dilation wider than the image", {{1, 3, 3}, {1, 3, 3}, {1, 1, 1}, {1, 4, 5}, {0, 4, 5}, {0, 4, 5}}},
      {"padding wider than the kernel", {{1, 3, 5}, {1, 2, 3}, {1, 1, 1}, {1, 1, 1}, {0, 4, 6}, {0, 3, 5}}},
      {"kernel of more lines than go at once", {{1, 21, 6}, {1, 17, 5}, {1, 1, 1}, {1, 1, 1}, {0, 2, 2}, {0, 0, 1}}},
      {"bands of single lines", {{1, 33, 57}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
      {"strided", {{1, 19, 23}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 0, 1}}},
      {"strided by three and two", {{1, 17, 21}, {1, 5, 5}, {1, 3, 2}, {1, 1, 1}, {0, 2, 2}, {0, 2, 2}}},
      {"padding before only", {{1, 4, 6}, {1, 3, 4}, {1, 1, 1}, {1, 1, 1}, {0, 2, 3}, {0, 0, 0}}},
      {"padding behind only", {{1, 4, 6}, {1, 3, 4}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 2, 3}}},
      {"windows without input", {{1, 2, 2}, {1, 1, 2}, {1, 1, 3}, {1, 1, 1}, {0, 1, 5}, {0, 1, 7}}},
      {"strides wider than the kernel", {{1, 8, 11}, {1, 2, 2}, {1, 3, 4}, {1, 1, 1}, {0, 1, 1}, {0, 1, 0}}},
      {"stride and dilation", {{1, 9, 13}, {1, 3, 3}, {1, 2, 3}, {1, 2, 2}, {0, 2, 3}, {0, 1, 2}}},
      {"depth", {{4, 3, 5}, {3, 2, 3}, {2, 1, 2}, {1, 1, 2}, {1, 0, 2}, {2, 1, 1}}},
      {"depth only", {{7, 1, 1}, {3, 1, 1}, {2, 1, 1}, {2, 1, 1}, {1, 0, 0}, {3, 0, 0}}},
  };
  for (const Index channels : {3, 16, 35}) {
    for (const auto& [name, geometry] : geometries) {
      for (const bool transposed : {false, true}) {
        for (const char* rule : {"alpha-beta", "epsilon", "flat", "z-box"}) {
          check_rule({name, geometry, channels, channels, channels, transposed}, {rule, rule_named(rule)});
        }
      }
    }
  }
}

TEST(depthwise_anything) {
  Random random(3);
  for (int n = 0; n < 150; ++n) {
    const Geometry geometry = random_geometry(random);
    const Index channels = random.up_to(2, 20);
    check_rule({"geometry " + std::to_string(n), geometry, channels, channels, channels, n % 2 == 1}, next_rule());
  }
}

// Tasks of 28 positions begin and end within lines, and within the stretch where all taps are inside.
TEST(depthwise_tasks_within_lines) {
  constexpr Index kChannels = 150;
  const Geometry wide{{1, 5, 37}, {1, 3, 5}, {1, 1, 1}, {1, 1, 1}, {0, 1, 2}, {0, 1, 2}};
  const Geometry strided{{1, 9, 50}, {1, 3, 5}, {1, 2, 2}, {1, 1, 2}, {0, 1, 4}, {0, 0, 3}};
  const Geometry deep{{3, 3, 11}, {2, 2, 3}, {1, 1, 1}, {1, 1, 1}, {1, 0, 1}, {0, 1, 1}};
  unsigned n = 0;
  for (const Geometry& geometry : {wide, strided, deep}) {
    for (const char* rule : {"alpha-beta", "z-box", "epsilon"}) {
      for (const bool transposed : {false, true}) {
        Options options(++n);
        options.batch = 2;
        options.threads = 3;
        check_conv<float>({"tasks", geometry, kChannels, kChannels, kChannels, transposed}, {rule, rule_named(rule)},
                          options, n);
      }
    }
  }
}

// --- where the weights are packed ---

// By how many tasks each panel is packed; 0: once for all of them.
template <class T>
Index packs(const ConvCase& c, Index samples) {
  const ConvShape shape = c.shape();
  const Walk walk = walks_to_out(shape)[0];
  const TapWork<T> work{&walk, samples, shape.groups, shape.group_in(), shape.group_out(), {}, 1, {}, {}};
  return work.packs_in_tasks() ? work.blocks() : 0;
}
template <class T>
Index panels(Index count) {
  return count * kernels::table<T>().tile_cols - 3;
}

template <class T>
void check_packs() {
  const Geometry line{{1, 1, 50}, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {0, 0, 1}};
  const Geometry pixels{{1, 2, 3}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 1, 0}, {0, 0, 1}};
  const Geometry by_two{{1, 3, 5}, {1, 2, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 0, 1}};
  struct Case {
    ConvCase conv;
    Index batch;
  };
  const Case cases[] = {
      {{"one panel", line, 3, panels<T>(1), 1, false}, 4},
      {{"three panels, few rows", line, 3, panels<T>(3), 1, false}, 1},
      {{"three panels", line, 3, panels<T>(3), 1, false}, 3},
      {{"four panels", line, 2, panels<T>(4), 1, false}, 2},
      {{"eight panels", pixels, 5, panels<T>(8), 1, false}, 2},
      {{"eight panels, strided", by_two, 3, panels<T>(8), 1, false}, 3},
      {{"eight panels of a deep layer", pixels, 290, panels<T>(8), 1, false}, 1},
      {{"eight panels, by taps", {{1, 3, 4}, {1, 3, 3}}, 100, panels<T>(8), 1, false}, 3},
      {{"many samples of one position", {{1, 2, 2}, {1, 2, 2}}, 3, panels<T>(8), 1, false}, 300},
      {{"many rows", line, 1, panels<T>(8), 1, false}, 17},
      {{"more rows", line, 1, panels<T>(8), 1, false}, 33},
      {{"too many rows", line, 1, panels<T>(8), 1, false}, 49},
      {{"groups", line, 9, 4 * 3, 3, false}, 3},
      {{"groups of panels", pixels, 8, 4 * panels<T>(2), 4, false}, 2},
      {{"groups, strided", by_two, 16, 24, 8, false}, 3},
  };
  std::set<Index> met;  // which case is which is a matter of tuning
  unsigned n = 0;
  for (const Case& c : cases) {
    for (const char* rule : {"alpha-beta", "z-box", "epsilon", "gamma"}) {
      Options options(++n);
      options.batch = c.batch;
      options.targets = 1 + n % 2;
      options.threads = 1 + static_cast<int>(n % 3);
      const NamedRule named{rule, rule_named(rule)};
      check_conv<T>(c.conv, named, options, n);
      met.insert(packs<T>(c.conv, c.batch));
      ConvCase down = c.conv;  // the panels are those of the way down
      std::swap(down.in, down.out);
      if (n % 2 == 0 || c.batch < 10) {
        check_conv<T>(down, named, options, n);
      }
    }
  }
  CHECK(met == (is_built(ConvPath::kPackInTasks) ? std::set<Index>{0, 1, 2, 3} : std::set<Index>{0}));
}
TEST(weights_packed_alone_or_together_float32) { check_packs<float>(); }
TEST(weights_packed_alone_or_together_float64) { check_packs<double>(); }

// One sample's tasks pack alone, those of both do not; and the other way round. Their sums are the same.
TEST(packing_changes_no_bit) {
  const ConvCase large{
      "", {{1, 36, 36}, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {0, 0, 1}}, 2, panels<double>(8), 1, false};
  const ConvCase small{
      "", {{1, 1, 80}, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {0, 0, 1}}, 2, panels<double>(3), 1, false};
  const bool built = is_built(ConvPath::kPackInTasks);
  CHECK((packs<double>(large, 1) > 0) == built && packs<double>(large, 2) == 0);
  CHECK(packs<double>(small, 1) == 0 && (packs<double>(small, 2) > 0) == built);
  for (const char* name : {"alpha-beta", "epsilon"}) {
    check::context = name;
    check_rows(large.shape(), name, false, {{0, 1}, {3, 0}});
    check_rows(small.shape(), name, false, {{0, 0}, {1, 1}});
  }
}

// Steps through a walk are the places that its numbers say.
TEST(places_follow_each_other) {
  const Geometry geometry{{3, 4, 5}, {2, 3, 2}, {1, 2, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 0}};
  for (const auto walks : {walks_to_out, walks_to_in}) {
    for (const Walk& walk : walks(geometry.shape())) {
      Place place(walk, 0);
      for (Index n = 0; n < 3 * walk.count(); ++n, place.next(walk)) {
        const Place jumped(walk, n);
        const Index at = (place.row[0] * walk.rows[1] + place.row[1]) * walk.rows[2] + place.row[2];
        CHECK(place.sample * walk.count() + at == n && place.row[2] < walk.rows[2] && place.row[1] < walk.rows[1]);
        CHECK(jumped.sample == place.sample && jumped.row == place.row);
      }
    }
  }
}

}  // namespace
}  // namespace pylrp
