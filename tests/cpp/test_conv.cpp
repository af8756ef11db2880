// One convolution: the forward pass and relevance for every rule, against the reference in double.
#include <array>
#include <numeric>

#include "base/error.hpp"
#include "check.hpp"
#include "conv_data.hpp"
#include "kernels/dispatch.hpp"
#include "rules.hpp"

namespace pylrp {
namespace {

struct ConvCase {
  std::string name;
  Geometry geometry;
  Index in, out, groups;
  bool transposed;

  ConvShape shape() const { return geometry.shape(in, out, groups); }
};

// What may be there or not; each check meets another choice.
struct Options {
  Index batch, targets;
  bool nonnegative, with_bias, kept, positive;
  int threads;
  explicit Options(unsigned n) {
    const unsigned mixed = (n + 1) * 2654435761u;
    const auto choice = [&](unsigned shift, unsigned of) { return (mixed >> shift) % of; };
    constexpr std::array<std::array<Index, 2>, 4> kRows{{{1, 1}, {3, 1}, {3, 2}, {1, 3}}};
    batch = kRows[choice(8, 4)][0];
    targets = kRows[choice(8, 4)][1];
    nonnegative = choice(10, 2) == 0;
    with_bias = choice(12, 3) > 0;
    kept = choice(16, 2) == 0;
    positive = choice(18, 3) == 0;
    threads = 1 + static_cast<int>(choice(22, 3));
  }
};

// The results of a layer: relevance, and what got lost.
template <class T>
struct Relevance {
  Fenced<T> result;
  std::vector<kernels::Absorbed> absorbed;

  Relevance(const ConvLayer<T>& layer, ConvData<T>& data, const CompiledRule& rule, Matrix<const T> output,
            const Options& options)
      : result(data.relevance.rows(), data.input.cols()), absorbed(static_cast<std::size_t>(data.relevance.rows())) {
    RelevanceJob<T> job;
    job.inputs = {layer.reads_inputs(&rule) ? data.input.read() : Matrix<const T>{}};
    job.output = output;
    job.relevance = data.relevance.read();
    job.results = {result.view()};
    job.batch = data.input.rows();
    job.rule = &rule;
    job.bounds = data.bounds();
    job.input_nonnegative = options.nonnegative;
    job.output_positive = options.positive;
    job.absorbed = absorbed.data();
    layer.relevance(job, {options.threads});
  }
  std::vector<double> lost() const {
    std::vector<double> all;
    for (const kernels::Absorbed& page : absorbed) {
      all.insert(all.end(), {page.bias, page.stabilizer, page.dead, page.padding, page.batchnorm});
    }
    return all;
  }
};

template <class T>
void check_forward(const ConvLayer<T>& layer, ConvData<T>& data, const Reference& expected, Fenced<T>& output,
                   const Threads& threads) {
  layer.forward({data.input.read()}, output.view(), {}, threads);
  bool right = true;
  for (std::size_t n = 0; n < expected.output.size(); ++n) {
    const Index at = static_cast<Index>(n);
    right = right && near(output.at(at / output.cols(), at % output.cols()), expected.output[n]);
  }
  CHECK(right);
  Fenced<T> clamped(output.rows(), output.cols(), 1);
  const T low = T(-0.25), high = T(0.5);
  layer.forward({data.input.read()}, clamped.view(), {low, high}, threads);
  bool same = true;
  for (Index i = 0; i < output.rows(); ++i) {
    for (Index j = 0; j < output.cols(); ++j) {
      same = same && clamped.at(i, j) == std::min(std::max(output.at(i, j), low), high);
    }
  }
  CHECK(same);
  CHECK(output.intact() && clamped.intact());
}

template <class T>
void check_conv(const ConvCase& c, const NamedRule& named, const Options& options, unsigned seed) {
  check::context = c.name + (c.transposed ? ", transposed, " : ", ") + std::to_string(c.in) + " -> " +
                   std::to_string(c.out) + " by " + std::to_string(c.groups) + ", " + named.name + ", bytes " +
                   std::to_string(sizeof(T)) + ", choice " + std::to_string(seed);
  ConvData<T> data(c.shape(), c.transposed, options.batch, options.targets, seed, options.nonnegative);
  const Reference expected =
      reference<T>(data.wires(options.with_bias), data, named.rule, options.positive ? Care::kPositive : Care::kSettle);
  const Index unsure = std::accumulate(expected.unsure.begin(), expected.unsure.end(), Index{0});
  CHECK(4 * unsure <= 3 + data.relevance.rows() * data.relevance.cols());  // else little would be left to look at

  const ConvLayer<T> layer = data.layer(options.with_bias);
  Fenced<T> output(options.batch, data.relevance.cols());
  check_forward(layer, data, expected, output, {options.threads});
  if (options.positive) {  // what the engine keeps is then behind the ReLU
    for (Index i = 0; i < output.rows(); ++i) {
      std::for_each(output.row(i), output.row(i) + output.cols(), [](T& z) { z = std::max(z, T(0)); });
    }
  }
  const CompiledRule rule(named.rule);
  Relevance<T> found(layer, data, rule, options.kept ? output.read() : Matrix<const T>{}, options);
  bool right = true, account = true, conserved = true;
  for (Index i = 0; i < data.relevance.rows(); ++i) {
    Sum64 left;
    for (Index j = 0; j < data.relevance.cols(); ++j) {
      left.add(static_cast<double>(data.relevance.at(i, j)));
    }
    for (Index k = 0; k < data.input.cols(); ++k) {
      const Sum64& r = expected.relevance[static_cast<std::size_t>(i * data.input.cols() + k)];
      right = right && near(found.result.at(i, k), r);
      left.add(-static_cast<double>(found.result.at(i, k)), r.error);
    }
    const kernels::Absorbed& lost = found.absorbed[static_cast<std::size_t>(i)];
    const double columns[] = {lost.bias, lost.stabilizer, lost.dead};
    for (std::size_t column = 0; column < 3; ++column) {
      const Sum64& e = expected.absorbed[column][static_cast<std::size_t>(i)];
      account = account && near(columns[column], e);
      left.add(-columns[column], e.error);
    }
    account = account && lost.padding == 0 && lost.batchnorm == 0;  // what lies outside is not an input
    conserved = conserved && near(left.value, 0, left.error + 1e-12 * left.size);
  }
  CHECK(right);
  CHECK(account);
  CHECK(conserved);
  CHECK(found.result.intact() && output.intact() && data.intact());
}

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

// Samples and targets have nothing to do with each other: together they get what each gets alone.
void check_rows(const ConvShape& shape, const char* name, bool kept,
                const std::vector<std::array<Index, 2>>& looked_at) {
  constexpr Index kBatch = 2, kTargets = 4;
  const CompiledRule rule(rule_named(name));
  Options options(1);
  options.nonnegative = options.positive = false;
  options.threads = 2;
  ConvData<double> all(shape, false, kBatch, kTargets, 8, false), one(shape, false, 1, 1, 8, false);
  const ConvLayer<double> layer = all.layer(true);
  Fenced<double> output(kBatch, all.relevance.cols()), its_output(1, all.relevance.cols());
  layer.forward({all.input.read()}, output.view(), {}, {2});
  Relevance<double> together(layer, all, rule, kept ? output.read() : Matrix<const double>{}, options);
  for (const auto& [target, sample] : looked_at) {
    const Index row = target * kBatch + sample;
    std::copy_n(all.input.row(sample), all.input.cols(), one.input.row(0));
    std::copy_n(all.relevance.row(row), all.relevance.cols(), one.relevance.row(0));
    layer.forward({one.input.read()}, its_output.view(), {}, {1});
    Relevance<double> alone(layer, one, rule, kept ? its_output.read() : Matrix<const double>{}, options);
    const auto same = [](const double* a, const double* b, Index n) {
      return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(double)) == 0;
    };
    CHECK(same(its_output.row(0), output.row(sample), output.cols()));
    CHECK(same(alone.result.row(0), together.result.row(row), all.input.cols()));
    const kernels::Absorbed &a = alone.absorbed[0], &b = together.absorbed[static_cast<std::size_t>(row)];
    const double few = 1e-10 * static_cast<double>(all.relevance.cols());
    CHECK(near(a.bias, b.bias, few) && near(a.stabilizer, b.stabilizer, few) && near(a.dead, b.dead, few));
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
