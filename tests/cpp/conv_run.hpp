// One convolution with a rule and all that may be there or not, checked against the reference in double.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "check.hpp"
#include "conv_data.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"
#include "products/lists.hpp"
#include "rules.hpp"

namespace pylrp {

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
  bool by_position = false;  // the bias
  bool one_of_four = false;  // of 2 x 2 positions has relevance
  bool few_outputs = false;  // a quarter of them has relevance
  bool prepared;             // whether the layer has a plan
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
    prepared = choice(20, 2) == 0;
    threads = 1 + static_cast<int>(choice(22, 3));
  }
};

// Leaves relevance to one of each 2 x 2 positions of an image, another one in each channel, or to none.
template <class T>
void keep_one_of_four(Fenced<T>* relevance, const Axes& out, Index channels) {
  for (Index i = 0; i < relevance->rows(); ++i) {
    for (Index at = 0; at < relevance->cols(); ++at) {
      const Index channel = at % channels, x = at / channels % out[2], y = at / channels / out[2] % out[1];
      const Index kept = (7 * channel + 3 * (y / 2) + 5 * (x / 2) + i) % 5;  // 4: none
      relevance->at(i, at) = y % 2 * 2 + x % 2 == kept ? relevance->at(i, at) : T(at % 2 == 0 ? 0.0 : -0.0);
    }
  }
}

// Leaves relevance to a quarter of the entries, to none at some positions and to all at one.
template <class T>
void keep_few_outputs(Fenced<T>* relevance, Index channels) {
  for (Index i = 0; i < relevance->rows(); ++i) {
    for (Index at = 0; at < relevance->cols(); ++at) {
      const Index position = at / channels;
      const bool kept = position % 7 != 3 && (position == 2 || (at * 2654435761u >> 7) % 4 == 0);
      relevance->at(i, at) = kept ? relevance->at(i, at) : T(at % 2 == 0 ? 0.0 : -0.0);
    }
  }
}

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
    const auto plan = options.prepared ? layer.prepare(rule, job.bounds, {1}) : nullptr;
    job.prepared = plan.get();
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

// Relevance, and what got lost on each page, as the reference has them.
template <class T>
void check_against(const std::vector<T>& found, const std::vector<double>& lost, const Reference& expected) {
  bool right = true, account = true;
  for (std::size_t n = 0; n < found.size(); ++n) {
    right = right && near(found[n], expected.relevance[n]);
  }
  for (std::size_t row = 0; row < lost.size() / 5; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      account = account && near(lost[5 * row + column], expected.absorbed[column][row]);
    }
  }
  CHECK(right);
  CHECK(account);
}

// Whether the plan of a layer lists a path for a rule, where nothing is known of the signs.
template <class T>
bool lists(const ConvCase& c, const Rule& rule, ConvPath path) {
  const ConvShape shape = c.shape();
  const std::vector<T> zeros(static_cast<std::size_t>(shape.out_channels * shape.taps() * shape.group_in()));
  const ConvWeights<T> weights{shape, c.transposed, zeros.data(), nullptr};
  return ConvForm<T>(weights, lower(rule, false)).lists(path);
}

// What the fast paths that are built may derive (layers/conv: sum_by_subtraction, signs_by_magnitude), with their
// limits for cancellation. At the limit of the latter, 1/64, rounding decides: hence 1/72.
inline Derived by_subtraction() {
  Derived derived;
  if (is_built(ConvPath::kSumBySubtraction)) {
    derived.remainder_of_first = 16;
    derived.remainder_of_bias = 64;
  }
  return derived;
}
inline Derived by_magnitude_of_signs() {
  Derived derived;
  derived.half_of_magnitude = is_built(ConvPath::kSignsByMagnitude) ? 72 : 0;
  return derived;
}

// The same in taps_by_magnitude, of a layer with so many inputs an output.
inline Derived by_magnitude_of_taps(const ConvShape& s, bool transposed) {
  Derived derived;
  const bool enough = s.taps() * (transposed ? s.group_out() : s.group_in()) >= 16;
  derived.half_of_magnitude = is_built(ConvPath::kTapsByMagnitude) && enough ? 72 : 0;
  derived.counts_bias = true;
  return derived;
}

// A layer whose sums of the contributions above and below zero may be made out of W a and |W| |a|.
inline bool by_two_products(const ConvShape& s, bool transposed) {
  return !transposed && s.groups == 1 && s.taps() == 1 && s.in == s.out && s.in_channels >= 16 &&
         count(s.in) >= kernels::table<float>().tile_rows;
}

inline Derived derived_in(const ConvCase& c, const NamedRule& named, const Options& options) {
  if ((named.name != "alpha-beta" && named.name != "z+") || options.by_position) {
    return {};
  }
  if (named.name == "alpha-beta" && !options.nonnegative && is_built(ConvPath::kSignsByMagnitude) &&
      by_two_products(c.shape(), c.transposed)) {
    return by_magnitude_of_signs();
  }
  if (!options.nonnegative && by_magnitude_of_taps(c.shape(), c.transposed).half_of_magnitude > 0) {
    return by_magnitude_of_taps(c.shape(), c.transposed);
  }
  return named.name == "alpha-beta" && !c.transposed && options.kept && options.positive ? by_subtraction() : Derived{};
}

template <class T>
void check_conv(const ConvCase& c, const NamedRule& named, const Options& options, unsigned seed) {
  check::context = c.name + (c.transposed ? ", transposed, " : ", ") + std::to_string(c.in) + " -> " +
                   std::to_string(c.out) + " by " + std::to_string(c.groups) + ", " + named.name + ", bytes " +
                   std::to_string(sizeof(T)) + ", choice " + std::to_string(seed);
  ConvData<T> data(c.shape(), c.transposed, options.batch, options.targets, seed, options.nonnegative,
                   options.by_position);
  if (options.one_of_four) {
    keep_one_of_four(&data.relevance, c.shape().out, c.out);
  }
  if (options.few_outputs) {
    keep_few_outputs(&data.relevance, c.out);
  }
  const Reference expected =
      reference<T>(data.wires(options.with_bias), data, named.rule, options.positive ? Care::kPositive : Care::kSettle,
                   derived_in(c, named, options));
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

// Samples and targets have nothing to do with each other: together they get what each gets alone.
inline void check_rows(const ConvShape& shape, const char* name, bool kept,
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
      if (lists_forced()) {  // a sum has another order by lists, and few positions do not go that way
        return std::equal(a, a + n, b, [](double x, double y) { return std::abs(x - y) <= 1e-12 * (1 + std::abs(x)); });
      }
      return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(double)) == 0;
    };
    CHECK(same(its_output.row(0), output.row(sample), output.cols()));
    CHECK(same(alone.result.row(0), together.result.row(row), all.input.cols()));
    const kernels::Absorbed &a = alone.absorbed[0], &b = together.absorbed[static_cast<std::size_t>(row)];
    const double few = 1e-10 * static_cast<double>(all.relevance.cols());
    CHECK(near(a.bias, b.bias, few) && near(a.stabilizer, b.stabilizer, few) && near(a.dead, b.dead, few));
  }
}

}  // namespace pylrp
