// Alpha-beta behind a ReLU, with the output at hand: the second sum is what the first leaves of the output
// (layers/conv/sum_by_subtraction.cpp).
#include <functional>

#include "conv_run.hpp"
#include "kernels/quads.hpp"

namespace pylrp {
namespace {

const Geometry kPlain{{1, 9, 10}, {1, 3, 3}}, kGrouped{{1, 6, 7}, {1, 3, 2}};

struct Shapes {
  const char* name;
  Geometry geometry;
  Index in, out, groups;
};
const std::vector<Shapes>& shapes() {
  static const std::vector<Shapes> all{
      {"plain", kPlain, 3, 8, 1},
      {"padded", {{1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 5, 17, 1},
      {"strided", {{1, 15, 14}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 4, 9, 1},
      {"strided pixel by pixel", {{1, 13, 12}, {1, 1, 1}, {1, 2, 2}}, 19, 9, 1},
      {"dilated", {{1, 9, 8}, {1, 3, 2}, {1, 1, 1}, {1, 2, 3}, {0, 2, 1}, {0, 2, 1}}, 6, 5, 1},
      {"grouped", kGrouped, 12, 9, 3},
      {"grouped, two panels", kGrouped, 16, 68, 2},
      {"grouped, strided", {{1, 13, 12}, {1, 3, 3}, {1, 2, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 6, 8, 2},
      {"three axes", {{3, 5, 4}, {2, 3, 2}, {1, 2, 1}, {1, 1, 2}, {1, 1, 0}, {0, 1, 1}}, 3, 6, 1},
      {"deep", {{1, 4, 5}, {1, 2, 2}}, 290, 6, 1},
  };
  return all;
}
const NamedRule& alpha_beta() {
  static const NamedRule rule{"alpha-beta", rule_named("alpha-beta")};
  return rule;
}
Options behind_relu(unsigned n, Index batch, Index targets) {
  Options options(n);
  options.batch = batch;
  options.targets = targets;
  options.kept = options.positive = true;
  options.nonnegative = n % 2 == 0;
  options.with_bias = n / 2 % 2 == 0;
  options.threads = 1 + static_cast<int>(n % 3);
  return options;
}

TEST(subtraction_from_the_output) {
  for (const Shapes& s : shapes()) {
    const ConvCase c{s.name, s.geometry, s.in, s.out, s.groups, false};
    for (unsigned n = 0; n < 4; ++n) {
      check_conv<float>(c, alpha_beta(), behind_relu(n, 3, 2), n);
      check_conv<double>(c, alpha_beta(), behind_relu(n, 2, 1), n);
    }
  }
}

// A layer whose weights can be changed, its output behind the ReLU, and where relevance may be.
template <class T>
struct Behind {
  ConvData<T> data;
  Options options;
  Fenced<T> output;
  Reference expected;

  Behind(const Shapes& s, const Options& o, const std::function<void(ConvData<T>&)>& change)
      : data(s.geometry.shape(s.in, s.out, s.groups), false, o.batch, o.targets, 3, o.nonnegative),
        options(o),
        output(o.batch, data.relevance.cols()) {
    check::context = std::string(s.name) + ", bytes " + std::to_string(sizeof(T)) + ", bias " +
                     std::to_string(o.with_bias) + ", nonnegative " + std::to_string(o.nonnegative);
    change(data);
    const Derived by_taps = by_magnitude_of_taps(data.shape, false);
    expected = reference<T>(data.wires(o.with_bias), data, alpha_beta().rule, Care::kPositive,
                            !o.nonnegative && by_taps.half_of_magnitude > 0 ? by_taps : by_subtraction());
    data.layer(o.with_bias).forward({data.input.read()}, output.view(), {T(0)}, {1});
  }
  std::vector<T> relevance(bool kept, int threads, std::vector<double>* lost = nullptr) {
    const CompiledRule rule(alpha_beta().rule);
    options.threads = threads;
    Relevance<T> found(data.layer(options.with_bias), data, rule, kept ? output.read() : Matrix<const T>{}, options);
    CHECK(found.result.intact() && output.intact() && data.intact());
    if (lost != nullptr) {
      *lost = found.lost();
    }
    return found.result.entries();
  }
  // As the reference has it, on each page, too; the same with several threads.
  void check() {
    std::vector<double> lost, again;
    const std::vector<T> found = relevance(true, 1, &lost);
    check_against(found, lost, expected);
    for (const int threads : {2, 3}) {
      CHECK(same_bits(found, relevance(true, threads, &again)) && same_bits(lost, again));
    }
  }
  double served() {  // outputs with relevance
    Index count = 0;
    for (const T r : data.relevance.entries()) {
      count += r != 0 ? 1 : 0;
    }
    return static_cast<double>(count);
  }
};

// The second sum is next to nothing for the last channel of the one sample, or the second one: those entries are
// computed after all.
template <class T>
void check_few_cancel() {
  for (const Shapes& s : shapes()) {
    for (unsigned n = 0; n < 4; ++n) {
      const Options options = behind_relu(n, n % 2 == 0 ? 1 : 2, 2);
      Behind<T> behind(s, options, [&](ConvData<T>& data) {
        for (Index k = 0; k < data.weight.cols(); ++k) {
          T& w = data.weight.at(s.out - 1, k);
          const T size = std::abs(w) + T(0.25);
          w = options.nonnegative && k % 3 == 1 ? -size / 4096 : size;
        }
        data.bias.at(0, s.out - 1) = T(0.125);
        if (!options.nonnegative) {
          std::for_each(data.input.row(1), data.input.row(1) + data.input.cols(),
                        [](T& x) { x = x < 0 ? x / 4096 : x; });
        }
      });
      behind.check();
      CHECK(behind.served() > 50);
      // What is left of the output is another sum than the products of their own: other bits.
      CHECK(!options.nonnegative ||
            same_bits(behind.relevance(true, 1), behind.relevance(false, 1)) != is_built(ConvPath::kSumBySubtraction));
    }
  }
}
TEST(subtraction_where_a_few_entries_cancel_float32) { check_few_cancel<float>(); }
TEST(subtraction_where_a_few_entries_cancel_float64) { check_few_cancel<double>(); }

// Of four neighbouring positions one has relevance (layers/conv/one_of_four.cpp): the second sum of those alone.
// change: 0, none cancels; 1, those of a channel do, one by one; 2, most of them, by products.
TEST(subtraction_below_a_pool) {
  const Shapes s{"below a pool", {{1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 20, 70, 1};
  for (unsigned n = 0; n < 12; ++n) {
    const unsigned change = n / 4;
    Options options = behind_relu(n, 1 + n % 3, 1);
    options.nonnegative = true;
    Behind<float> behind(s, options, [&](ConvData<float>& data) {
      keep_one_of_four(&data.relevance, data.shape.out, s.out);
      for (Index j = change == 1 ? s.out - 1 : 0; change > 0 && j < s.out; ++j) {
        for (Index k = 0; k < data.weight.cols(); ++k) {
          float& w = data.weight.at(j, k);
          w = (std::abs(w) + 0.25f) * (k % 3 == 1 ? -1.0f / 4096 : 1);
        }
        data.bias.at(0, j) = 0.125f;
      }
    });
    const std::uint64_t before = runs_of(ConvPath::kOneOfFour);
    behind.check();
    CHECK(behind.served() > 100);
    const bool here =
        is_built(ConvPath::kOneOfFour) && kernels::quads() != nullptr && forced_left_path() == LeftPath::kCounted;
    CHECK((runs_of(ConvPath::kOneOfFour) > before) == here);
    CHECK(!here || same_bits(behind.relevance(true, 1), behind.relevance(false, 1)) == (change == 2));
  }
}

// A bias that outweighs all the products: what is left of it is rounding. Inputs of every other sample are zero, as on
// a black background, where nothing needs to be computed.
template <class T>
void check_bias_outweighs() {
  for (const Shapes& s : shapes()) {
    for (const double size : {1e-1, 1e-3, 1e-5}) {
      for (unsigned n = 0; n < 2; ++n) {
        Behind<T> behind(s, behind_relu(n, 3, 2), [&](ConvData<T>& data) {
          for (Index i = 0; i < data.input.rows(); ++i) {
            std::for_each(data.input.row(i), data.input.row(i) + data.input.cols(),
                          [&](T& x) { x *= i % 2 == 0 ? static_cast<T>(size) : T(0); });
          }
          std::for_each(data.bias.row(0), data.bias.row(0) + data.bias.cols(), [](T& b) { b = 3 + std::abs(b); });
        });
        behind.check();
        CHECK(behind.served() > 100);
      }
    }
  }
}
TEST(subtraction_where_the_bias_outweighs_float32) { check_bias_outweighs<float>(); }
TEST(subtraction_where_the_bias_outweighs_float64) { check_bias_outweighs<double>(); }

// No negative product at all: nothing is left anywhere but rounding. All is computed, once, as without the output.
template <class T>
void check_all_cancels() {
  for (const Shapes& s : shapes()) {
    for (unsigned n = 0; n < 4; n += 2) {
      Options options = behind_relu(n, 3, 2);
      Behind<T> behind(s, options, [](ConvData<T>& data) {
        for (Index o = 0; o < data.weight.rows(); ++o) {
          std::for_each(data.weight.row(o), data.weight.row(o) + data.weight.cols(), [](T& w) { w = std::abs(w); });
        }
      });
      behind.check();
      std::vector<double> lost, expected;
      CHECK(same_bits(behind.relevance(true, 2, &lost), behind.relevance(false, 1, &expected)));
      CHECK(same_bits(lost, expected));
      CHECK(behind.served() > 100);
    }
  }
}
TEST(subtraction_where_all_cancels_float32) { check_all_cancels<float>(); }
TEST(subtraction_where_all_cancels_float64) { check_all_cancels<double>(); }

}  // namespace
}  // namespace pylrp
