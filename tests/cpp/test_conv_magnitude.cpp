// Alpha-beta with inputs of both signs and a kernel of one: the contributions above and below zero out of W a and |W|
// |a|, and where that cancels by products of their own (rules/lower.hpp, by_magnitude;
// layers/conv/signs_by_magnitude.cpp).
#include <functional>

#include "conv_run.hpp"

namespace pylrp {
namespace {

const NamedRule& alpha_beta() {
  static const NamedRule rule{"alpha-beta", rule_named("alpha-beta")};
  return rule;
}
// With the sums the other way round it is the same rule, but none that by_magnitude() knows.
LoweredRule other_order() {
  LoweredRule rule = lower(alpha_beta().rule, false);
  std::swap(rule.sums[0], rule.sums[1]);
  for (Denominator& group : rule.groups) {
    std::swap(group.coef[0], group.coef[1]);
  }
  return rule;
}
const bool kBuilt = is_built(ConvPath::kSignsByMagnitude);

TEST(magnitude_form_and_others) {
  LoweredRule made;
  for (const NamedRule& named : test_rules()) {
    check::context = named.name;
    const bool known = named.name == "alpha-beta" || named.name == "z+" || named.name == "gamma";
    CHECK(by_magnitude(lower(named.rule, false), &made) == known);
    CHECK(!known || (made.bias_by_sign && made.may_cancel == (named.name != "gamma") &&
                     made.half_sum_and_difference == (named.name != "z+")));
    CHECK(!by_magnitude(lower(named.rule, true), &made));
  }
  CHECK(!by_magnitude(other_order(), &made));
  CHECK(by_magnitude(lower(alpha_beta().rule, false), &made));
  CHECK(made.sums.size() == 2 && made.back.size() == 2 && made.half_sum_and_difference);
  CHECK(made.groups[0].coefficient == 2 && made.groups[1].coefficient == -1 && made.groups[0].epsilon == 1e-6);
}

struct Shapes {
  const char* name;
  Axes positions;
  Index in, out;
};
const std::vector<Shapes>& shapes() {
  static const std::vector<Shapes> all{
      {"a few channels", {1, 5, 7}, 16, 40}, {"a tail", {1, 5, 9}, 19, 33},         {"deep", {1, 4, 8}, 290, 41},
      {"many outputs", {1, 3, 11}, 17, 130}, {"several tasks", {2, 9, 13}, 37, 35},
  };
  return all;
}

// One layer, where relevance may be, and the results: by the layer, or with the usual form.
template <class T>
struct Layer16 {
  ConvData<T> data;
  Options options;
  Reference expected;
  std::vector<double> lost;

  Layer16(const Shapes& s, unsigned n, Index batch, Index targets, const std::function<void(ConvData<T>&)>& change)
      : data(Geometry{s.positions, {1, 1, 1}}.shape(s.in, s.out), false, batch, targets, 3 + n, false), options(n) {
    options.batch = batch;
    options.targets = targets;
    options.nonnegative = options.kept = options.positive = false;
    options.with_bias = n % 2 == 0;
    check::context = std::string(s.name) + ", bytes " + std::to_string(sizeof(T)) + ", choice " + std::to_string(n);
    change(data);
    expected =
        reference<T>(data.wires(options.with_bias), data, alpha_beta().rule, Care::kSettle, by_magnitude_of_signs());
  }
  std::vector<T> relevance(int threads) {
    const CompiledRule rule(alpha_beta().rule);
    options.threads = threads;
    Relevance<T> found(data.layer(options.with_bias), data, rule, {}, options);
    CHECK(found.result.intact() && data.intact());
    lost = found.lost();
    return found.result.entries();
  }
  // By the same path with the usual products; by the layer where the path is not built.
  std::vector<T> usually(std::vector<double>* pages) {
    if (!kBuilt) {
      const std::vector<T> found = relevance(1);
      *pages = lost;
      return found;
    }
    Fenced<T> result(data.relevance.rows(), data.input.cols());
    std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(data.relevance.rows()));
    RelevanceJob<T> job;
    job.inputs = {data.input.read()};
    job.relevance = data.relevance.read();
    job.results = {result.view()};
    job.batch = data.input.rows();
    job.absorbed = absorbed.data();
    const ConvWeights<T> weights{data.shape, false, data.weight.data(), options.with_bias ? data.bias.data() : nullptr};
    ConvForm<T> form(weights, lower(alpha_beta().rule, false));
    CHECK(form.by_magnitude && form.relevance.back().path == ConvPath::kFused1x1);
    form.by_magnitude.reset();
    form.relevance.back().run({weights, form, form.rule, job, {1}});
    for (const kernels::Absorbed& page : absorbed) {
      pages->insert(pages->end(), {page.bias, page.stabilizer, page.dead, page.padding, page.batchnorm});
    }
    return result.entries();
  }
  // As the reference has it, on each page, too; the same bits with several threads; the usual form's bits or not.
  void check(bool usual) {
    const std::vector<T> found = relevance(1);
    const std::vector<double> pages = lost;
    check_against(found, lost, expected);
    for (const int threads : {2, 3, 4}) {
      CHECK(same_bits(found, relevance(threads)) && same_bits(pages, lost));
    }
    std::vector<double> usual_pages;
    CHECK(same_bits(found, usually(&usual_pages)) == (usual || !kBuilt));
    CHECK(!usual || same_bits(pages, usual_pages));
  }
};

// At every fifth position: an output whose contributions are all above zero, one with all below, and inputs that make
// it so, exactly (kSize 0) or but for this part.
template <class T>
void cancel(ConvData<T>& data, double size) {
  const Index in = data.shape.in_channels, out = data.shape.out_channels;
  for (Index k = 0; k < in; ++k) {
    data.weight.at(out - 1, k) = std::abs(data.weight.at(out - 1, k)) + T(0.25);
    data.weight.at(0, k) = -std::abs(data.weight.at(0, k)) - T(0.25);
  }
  for (Index i = 0; i < data.input.rows(); ++i) {
    for (Index p = 0; p < count(data.shape.in); p += 5) {
      for (Index k = 0; k < in; ++k) {
        T& x = data.input.at(i, p * in + k);
        x = x < 0 ? static_cast<T>(size) * x : x;
      }
    }
  }
}

TEST(magnitude_of_anything) {
  for (const Shapes& s : shapes()) {
    for (unsigned n = 0; n < 3; ++n) {
      Layer16<float>(s, n, 1 + n % 3, 1 + n % 2, [](auto&) {}).check(false);
      Layer16<double>(s, n, 1 + n % 2, 1 + n % 3, [](auto&) {}).check(false);
    }
  }
}

template <class T>
void check_few_cancel() {
  for (const Shapes& s : shapes()) {
    for (const double size : {0.0, 1.0 / 512}) {
      for (const unsigned n : {1u, 2u}) {
        Layer16<T>(s, n, 1 + n % 2, 1 + n / 2, [&](ConvData<T>& data) { cancel(data, size); }).check(false);
        // Relevance at none of them in the first target, but for one at a position, at all and nowhere else in others.
        Layer16<T>(s, n, 2, 2, [&](ConvData<T>& data) {
          cancel(data, size);
          const Index out = data.shape.out_channels;
          for (Index row = 0; row < 4; ++row) {
            for (Index j = 0; j < data.relevance.cols(); ++j) {
              const Index p = j / out;
              const bool cancels = p % 5 == 0 && (j % out == 0 || j % out == out - 1);
              T& r = data.relevance.at(row, j);
              r = cancels == (row >= 2) || (cancels && p == 10) ? (cancels ? T(1) + std::abs(r) : r) : T(0);
            }
          }
        }).check(false);
      }
    }
  }
}
TEST(magnitude_where_a_few_cancel_float32) { check_few_cancel<float>(); }
TEST(magnitude_where_a_few_cancel_float64) { check_few_cancel<double>(); }

// Nothing below zero, though nobody said so: the usual form does it all.
template <class T>
void check_all_cancel() {
  for (const Shapes& s : shapes()) {
    for (unsigned n = 0; n < 4; ++n) {
      Layer16<T>(s, n, 1 + n % 2, 1 + n / 2, [&](ConvData<T>& data) {
        for (Fenced<T>* m : {&data.weight, &data.input}) {
          for (Index i = 0; i < m->rows(); ++i) {
            std::for_each(m->row(i), m->row(i) + m->cols(), [](T& x) { x = std::abs(x); });
          }
        }
      }).check(true);
    }
  }
}
TEST(magnitude_where_all_cancels_float32) { check_all_cancel<float>(); }
TEST(magnitude_where_all_cancels_float64) { check_all_cancel<double>(); }

// In one sample of three: its tasks alone take the usual form.
TEST(magnitude_where_one_sample_cancels) {
  for (const Shapes& s : shapes()) {
    for (unsigned n = 0; n < 4; ++n) {
      Layer16<float> mixed(s, n, 3, 1 + n % 2, [&](ConvData<float>& data) {
        for (Index o = 0; o < data.weight.rows(); ++o) {
          std::for_each(data.weight.row(o), data.weight.row(o) + data.weight.cols(), [](float& w) { w = std::abs(w); });
        }
        std::for_each(data.input.row(1), data.input.row(1) + data.input.cols(), [](float& x) { x = std::abs(x); });
      });
      mixed.check(false);
      const std::vector<float> found = mixed.relevance(3);
      std::vector<double> pages;
      const std::vector<float> usual = mixed.usually(&pages);
      const auto sample = [&](const std::vector<float>& of, Index i) {
        const Index size = mixed.data.input.cols();
        return std::vector<float>(of.begin() + i * size, of.begin() + (i + 1) * size);
      };
      CHECK(same_bits(sample(found, 1), sample(usual, 1)));
      CHECK(same_bits(sample(found, 0), sample(usual, 0)) != kBuilt);
      CHECK(same_bits(sample(found, 2), sample(usual, 2)) != kBuilt);
    }
  }
}

// NaN and infinities show up and do not hide as cancellations.
TEST(magnitude_shows_what_is_not_finite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Layer16<float> layer(shapes()[0], 0, 1, 1, [](auto&) {});
    layer.data.input.at(0, 3 * 16 + 5) = bad;
    const std::vector<float> found = layer.relevance(2);
    bool right = true;
    for (std::size_t k = 0; k < found.size(); ++k) {
      right = right && (std::isnan(found[k]) == (k / 16 == 3) || found[k] == 0);
    }
    CHECK(right);
    CHECK(std::isnan(found[3 * 16 + 5]));
  }
}

}  // namespace
}  // namespace pylrp
