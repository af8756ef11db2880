// Convolutions with a kernel of one and at least a tile of positions: where there are many, task by task through all
// steps (layers/conv/fused_1x1.cpp).
#include "conv_run.hpp"
#include "kernels/dispatch.hpp"
#include "products/lists.hpp"

namespace pylrp {
namespace {

ConvCase one_tap(const char* name, Axes positions, Index in, Index out) {
  return {name, {positions, {1, 1, 1}}, in, out, 1, false};
}
Index tile() { return kernels::table<float>().tile_rows; }

// Counts through all that may be there or not, for each rule on its own.
Options choice_of(unsigned n, Index batch, Index targets) {
  Options options(n);
  options.nonnegative = n % 2 == 0;
  options.with_bias = n / 2 % 2 == 0;
  options.kept = n / 4 % 2 == 0;
  options.positive = n / 8 % 2 == 0;
  options.batch = batch;
  options.targets = targets;
  options.threads = 1 + static_cast<int>(n % 4);
  return options;
}

TEST(conv_1x1_every_choice) {
  for (const NamedRule& named : conv_rules()) {
    for (unsigned n = 0; n < 16; ++n) {
      check_conv<float>(one_tap("choices", {1, 5, 7}, 6, 17), named, choice_of(n, 3, 2), n);
      check_conv<double>(one_tap("choices", {1, 5, 7}, 17, 6), named, choice_of(n, 2, 3), n);
    }
  }
}

unsigned choices = 0;
void check_rules(const ConvCase& c, Index batch, Index targets) {
  for (const NamedRule& named : conv_rules()) {
    const unsigned n = choices++ % 16;
    check_conv<float>(c, named, choice_of(n, batch, targets), choices);
    check_conv<double>(c, named, choice_of(15 - n, batch, targets), choices);
  }
}

// Around a tile, and those that a sample's tasks share unevenly.
TEST(conv_1x1_positions) {
  for (const Index count :
       {tile(), tile() + 1, 2 * tile() - 1, 2 * tile(), 3 * tile() + 1, 7 * tile() - 1, Index{97}}) {
    check_rules(one_tap("positions", {1, 1, count}, 5, 9), 2, 2);
  }
  check_rules(one_tap("three axes", {3, 4, 5}, 4, 5), 3, 1);
}

// Columns that are no multiple of a panel, or fit into half of one.
TEST(conv_1x1_channels) {
  for (const Index channels : {1, 15, 16, 17, 31, 32, 33, 65}) {
    check_rules(one_tap("channels", {1, 3, 5}, channels, 5), 1, 2);
    check_rules(one_tap("channels", {1, 3, 5}, 7, channels), 2, 1);
  }
}

// More than a block of the reduction; more positions than a task's arrays have room for.
TEST(conv_1x1_depth) {
  for (const Index channels : {256, 257, 300, 520}) {
    check_rules(one_tap("depth", {1, 1, 17}, channels, 3), 1, 2);
    check_rules(one_tap("depth", {1, 1, 17}, 3, channels), 2, 1);
  }
  check_rules(one_tap("many tasks", {1, 11, 17}, 520, 3), 1, 1);
  check_rules(one_tap("many tasks", {1, 11, 17}, 3, 520), 1, 1);
}

// So many positions, of one sample or of several, that all rules go task by task; and around that number.
TEST(conv_1x1_many_positions) {
  for (const auto& [batch, positions] : std::vector<std::array<Index, 2>>{{1, 447}, {1, 448}, {2, 224}, {5, 90}}) {
    check_rules(one_tap("many positions", {1, 1, positions}, 5, 9), batch, 2);
    check_rules(one_tap("many positions", {1, 1, positions}, 18, 5), batch, 1);
  }
}

// Lists of what is not zero, of each position or of two: tasks with an odd number of positions among them, channels
// that take several lists, and columns that are no whole panels.
TEST(conv_1x1_by_lists) {
  const LeftPath before = forced_left_path();
  const ConvCase c = one_tap("lists", {1, 1, 451}, 150, 35);
  std::vector<LeftWork> done;
  for (const LeftPath path : {LeftPath::kLists, LeftPath::kPairs}) {
    force_left_path(path);
    const LeftWork start = left_work();
    unsigned n = 0;
    for (const NamedRule& named : conv_rules()) {
      if (n++ % 2 == 0) {
        check_conv<float>(c, named, choice_of(n - 1, 1, 1), n);
      } else {
        check_conv<double>(c, named, choice_of(2 * n, 1, 1), n);
      }
    }
    const LeftWork end = left_work();
    done.push_back({end.tiles - start.tiles, end.lists - start.lists, end.done - start.done});
  }
  force_left_path(before);
  // A list of two has what is not zero in either.
  CHECK(done[0].lists > 0 && done[1].lists >= done[0].lists && done[1].done > done[0].done);
}

TEST(conv_1x1_same_bits_for_any_number_of_threads) {
  const ConvCase c = one_tap("threads", {1, 30, 31}, 33, 34);
  for (unsigned n = 0; n < 4; ++n) {
    for (const NamedRule& named : conv_rules()) {
      check::context = named.name + ", choice " + std::to_string(n);
      Options options = choice_of(5 * n, 1 + n % 3, 2 - n % 2);
      ConvData<float> data(c.shape(), false, options.batch, options.targets, n, options.nonnegative);
      const ConvLayer<float> layer = data.layer(options.with_bias);
      const CompiledRule rule(named.rule);
      std::vector<float> forward, relevance;
      std::vector<double> lost;
      for (const int threads : {1, 2, 3, 4}) {
        options.threads = threads;
        Fenced<float> output(options.batch, data.relevance.cols());
        layer.forward({data.input.read()}, output.view(), {}, {threads});
        Relevance<float> found(layer, data, rule, options.kept ? output.read() : Matrix<const float>{}, options);
        if (threads == 1) {
          forward = output.entries();
          relevance = found.result.entries();
          lost = found.lost();
        }
        CHECK(same_bits(forward, output.entries()) && same_bits(relevance, found.result.entries()));
        CHECK(same_bits(lost, found.lost()));
      }
    }
  }
}

TEST(conv_1x1_rows_are_independent) {
  for (const char* name : {"alpha-beta", "epsilon", "gamma", "w^2", "z-box"}) {
    for (const bool kept : {false, true}) {
      check::context = std::string(name) + (kept ? ", kept" : "");
      check_rows(one_tap("", {1, 9, 11}, 5, 18).shape(), name, kept, {{0, 0}, {0, 1}, {1, 1}, {2, 0}, {3, 1}});
      // Both samples together go task by task, one of them does not.
      check_rows(one_tap("", {1, 15, 16}, 18, 5).shape(), name, kept, {{0, 0}, {2, 1}});
    }
  }
}

// A position has the same neighbours or none: the numbers of few positions, which go the way of all convolutions.
TEST(conv_1x1_is_a_convolution) {
  const ConvCase many = one_tap("", {1, 1, 40}, 9, 11), few = one_tap("", {1, 1, 1}, 9, 11);
  unsigned n = 0;
  for (const NamedRule& named : conv_rules()) {
    check::context = named.name;
    const Options options = choice_of(++n, 1, 1);
    if (options.positive) {
      continue;
    }
    const CompiledRule rule(named.rule);
    ConvData<double> all(many.shape(), false, 1, 1, n, options.nonnegative);
    ConvData<double> one(few.shape(), false, 1, 1, n, options.nonnegative);  // the same weights
    Relevance<double> together(all.layer(options.with_bias), all, rule, {}, options);
    bool same = true;
    for (Index p = 0; p < 40; ++p) {
      std::copy_n(all.input.row(0) + 9 * p, 9, one.input.row(0));
      std::copy_n(all.low.row(0) + 9 * p, 9, one.low.row(0));
      std::copy_n(all.high.row(0) + 9 * p, 9, one.high.row(0));
      std::copy_n(all.relevance.row(0) + 11 * p, 11, one.relevance.row(0));
      Relevance<double> alone(one.layer(options.with_bias), one, rule, {}, options);
      for (Index k = 0; k < 9; ++k) {
        const double expected = alone.result.at(0, k);
        // A sum of 11 products; denominators as small as 1e-6 of their terms are unheard of in these numbers.
        same = same && near(together.result.at(0, 9 * p + k), expected, 1e-7 * (1 + std::abs(expected)));
      }
    }
    CHECK(same);
  }
}

}  // namespace
}  // namespace pylrp
