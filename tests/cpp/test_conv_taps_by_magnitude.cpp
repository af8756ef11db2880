// Inputs of both signs under z+, gamma and alpha-beta, for kernels of any kind: out of W a and |W| |a|, and where that
// cancels by contributions of their own (rules/by_magnitude.cpp, layers/conv/taps_by_magnitude.cpp).
#include <functional>

#include "conv_run.hpp"

namespace pylrp {
namespace {

const bool kBuilt = is_built(ConvPath::kTapsByMagnitude);

struct Shapes {
  const char* name;
  Geometry geometry;
  Index in, out, groups;
  bool transposed = false;
};
const std::vector<Shapes>& shapes() {
  const Geometry plain{{1, 9, 10}, {1, 3, 3}}, grouped{{1, 6, 7}, {1, 3, 2}};
  const Geometry strided{{1, 15, 14}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  static const std::vector<Shapes> all{
      {"pixels", plain, 5, 33, 1},
      {"padded", {{1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 5, 17, 1},
      {"strided", strided, 6, 9, 1},
      {"strided pixel by pixel", {{1, 13, 12}, {1, 1, 1}, {1, 2, 2}}, 19, 9, 1},
      {"dilated", {{1, 9, 8}, {1, 3, 2}, {1, 1, 1}, {1, 2, 3}, {0, 2, 1}, {0, 2, 1}}, 6, 5, 1},
      {"grouped, two panels", grouped, 16, 68, 2},
      {"grouped, strided", {{1, 13, 12}, {1, 3, 3}, {1, 2, 3}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}, 6, 8, 2},
      {"depthwise", {{1, 9, 8}, {1, 5, 5}}, 18, 18, 18},
      {"three axes", {{3, 5, 4}, {2, 3, 2}, {1, 2, 1}, {1, 1, 2}, {1, 1, 0}, {0, 1, 1}}, 5, 6, 1},
      {"deep", {{1, 4, 5}, {1, 2, 2}}, 130, 6, 1},
      {"transposed", strided, 7, 17, 1, true},
      {"transposed, grouped, far", {{1, 9, 8}, {1, 4, 4}, {1, 2, 1}, {1, 1, 2}, {0, 2, 1}, {0, 1, 3}}, 6, 18, 3, true},
  };
  return all;
}

// One layer under a rule, where relevance may be, and the results.
template <class T>
struct Signed {
  ConvData<T> data;
  Options options;
  NamedRule rule;
  Reference expected;
  Fenced<T> output;
  std::vector<double> lost;

  Signed(const Shapes& s, const char* name, unsigned n, const std::function<void(ConvData<T>&)>& change)
      : data(s.geometry.shape(s.in, s.out, s.groups), s.transposed, 1 + n % 3, 1 + n / 2 % 2, 3 + n, false),
        options(n),
        rule{name, rule_named(name)},
        output(data.input.rows(), data.relevance.cols()) {
    options.nonnegative = options.positive = false;
    options.kept = n % 2 == 0;
    options.with_bias = n % 3 > 0;
    check::context =
        std::string(s.name) + ", " + name + ", bytes " + std::to_string(sizeof(T)) + ", choice " + std::to_string(n);
    change(data);
    const bool cancels = rule.name != "gamma";
    expected = reference<T>(data.wires(options.with_bias), data, rule.rule, Care::kSettle,
                            cancels ? by_magnitude_of_taps(data.shape, data.transposed) : Derived{});
    data.layer(options.with_bias).forward({data.input.read()}, output.view(), {}, {1});
  }
  bool may_run() const { return kBuilt && (options.kept || rule.name != "z+"); }
  std::vector<T> relevance(int threads) {
    const CompiledRule compiled(rule.rule);
    options.threads = threads;
    Relevance<T> found(data.layer(options.with_bias), data, compiled, options.kept ? output.read() : Matrix<const T>{},
                       options);
    CHECK(found.result.intact() && output.intact() && data.intact());
    lost = found.lost();
    return found.result.entries();
  }
  // As the reference has it, on each page, too; the same bits with several threads; runs of the path that were given
  // up.
  void check(bool gives_up = false) {
    const std::uint64_t before = runs_of(ConvPath::kTapsByMagnitude), gave_up = runs_of(ConvPath::kTapsCancelled);
    const std::vector<T> found = relevance(1);
    const std::vector<double> pages = lost;
    CHECK((runs_of(ConvPath::kTapsByMagnitude) > before) == may_run());
    CHECK((runs_of(ConvPath::kTapsCancelled) > gave_up) == (gives_up && may_run() && rule.name != "gamma"));
    check_against(found, lost, expected);
    for (const int threads : {2, 3, 4}) {
      CHECK(same_bits(found, relevance(threads)) && same_bits(pages, lost));
    }
  }
};

template <class T, class Change>
void each_case(unsigned choices, bool gives_up, Change change) {
  for (const Shapes& s : shapes()) {
    for (const char* rule : {"alpha-beta", "z+", "gamma"}) {
      for (unsigned n = 0; n < choices; ++n) {
        Signed<T>(s, rule, n, change).check(gives_up);
      }
    }
  }
}

TEST(taps_by_magnitude_of_anything_float32) {
  each_case<float>(6, false, [](auto&) {});
}
TEST(taps_by_magnitude_of_anything_float64) {
  each_case<double>(4, false, [](auto&) {});
}

// In a corner of the image a channel whose contributions are all above zero, and one with all below, but for a part.
template <class T>
void cancel(ConvData<T>& data, double size) {
  const auto of_channel = [&](Index channel, double sign) {
    const ConvShape& s = data.shape;
    for (Index o = 0; o < s.out_channels; ++o) {
      for (Index t = 0; t < s.taps(); ++t) {
        for (Index i = 0; i < s.group_in(); ++i) {
          const Index in = o / s.group_out() * s.group_in() + i;
          if ((data.transposed ? in : o) == channel) {
            T& w = data.depthwise ? data.weight.at(t, o) : data.weight.at(o, t * s.group_in() + i);
            w = static_cast<T>(sign * (std::abs(static_cast<double>(w)) + 0.25));
          }
        }
      }
    }
  };
  const Index targets = data.transposed ? data.shape.in_channels : data.shape.out_channels;
  of_channel(0, -1);
  of_channel(targets - 1, 1);
  const Index channels = data.transposed ? data.shape.out_channels : data.shape.in_channels;
  const Axes image = data.transposed ? data.shape.out : data.shape.in;
  for (Index i = 0; i < data.input.rows(); ++i) {
    for (Index at = 0; at < data.input.cols(); ++at) {
      const Index x = at / channels % image[2], y = at / channels / image[2] % image[1];
      T& value = data.input.at(i, at);
      const Index side = data.transposed ? 2 : 3;
      value = x < side && y < side && value < 0 ? static_cast<T>(size) * value : value;
    }
  }
}
TEST(taps_by_magnitude_where_a_few_cancel_float32) {
  each_case<float>(6, false, [](auto& data) { cancel(data, 0); });
  each_case<float>(4, false, [](auto& data) { cancel(data, 1.0 / 512); });
}
TEST(taps_by_magnitude_where_a_few_cancel_float64) {
  each_case<double>(4, false, [](auto& data) { cancel(data, 1.0 / 512); });
}

// Every other sample is zero but for the bias, as on a black background: that is exact.
TEST(taps_by_magnitude_of_a_black_background) {
  each_case<float>(6, false, [](auto& data) {
    for (Index i = 0; i < data.input.rows(); i += 2) {
      std::fill_n(data.input.row(i), data.input.cols(), 0.0f);
    }
  });
}

// Nothing is below zero, though nobody said so: alpha-beta is computed in general. z+ has nothing that cancels.
TEST(taps_by_magnitude_where_all_cancels) {
  const Shapes many{"many entries", {{1, 24, 26}, {1, 3, 3}}, 5, 12, 1};
  for (const char* rule : {"alpha-beta", "z+", "gamma"}) {
    for (const double sign : {1.0, -1.0}) {
      for (unsigned n = 0; n < 4; ++n) {
        Signed<float>(many, rule, n, [&](ConvData<float>& data) {
          for (Fenced<float>* m : {&data.weight, &data.input}) {
            for (Index i = 0; i < m->rows(); ++i) {
              std::for_each(m->row(i), m->row(i) + m->cols(), [](float& x) { x = std::abs(x) + 0.01f; });
            }
          }
          std::for_each(data.input.row(0), data.input.row(0) + data.input.cols(),
                        [&](float& x) { x *= static_cast<float>(sign); });
        }).check(std::string(rule) == "alpha-beta" || sign < 0);
      }
    }
  }
}

// The result in the input's place, where what cancelled entries send is worked out before.
TEST(taps_by_magnitude_in_place) {
  for (const Shapes& s : shapes()) {
    for (const char* rule : {"alpha-beta", "gamma", "z+"}) {
      Signed<float> layer(s, rule, 0, [](auto& data) { cancel(data, 1.0 / 512); });
      const std::vector<float> apart = layer.relevance(2);
      const CompiledRule compiled(layer.rule.rule);
      std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(layer.data.relevance.rows()));
      RelevanceJob<float> job;
      job.inputs = {layer.data.input.read()};
      job.output = layer.output.read();
      job.relevance = layer.data.relevance.read();
      job.spare = layer.data.relevance.view();
      job.results = {layer.data.input.view()};
      job.batch = layer.data.input.rows();
      job.rule = &compiled;
      job.absorbed = absorbed.data();
      layer.data.layer(layer.options.with_bias).relevance(job, {3});
      CHECK(same_bits(apart, layer.data.input.entries()));
    }
  }
}

// NaN and infinities show up where they belong and do not hide as cancellations; denormals stay finite.
TEST(taps_by_magnitude_of_odd_numbers) {
  for (const char* rule : {"alpha-beta", "gamma", "z+"}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Signed<float> layer(shapes()[0], rule, 0, [&](ConvData<float>& data) { data.input.at(0, 3) = bad; });
      const std::vector<float> found = layer.relevance(2);
      CHECK(std::isnan(found[3]));
      CHECK(std::isfinite(found[9 * 10 * 3 - 1]));
    }
    Signed<float> layer(shapes()[0], rule, 0, [](ConvData<float>& data) {
      std::for_each(data.input.row(0), data.input.row(0) + data.input.cols(), [](float& x) { x *= 1e-39f; });
    });
    const std::vector<float> found = layer.relevance(1);
    const bool finite = std::all_of(found.begin(), found.end(), [](float r) { return std::isfinite(r); });
    CHECK(finite || std::string(rule) == "z+");  // which has no stabilizer
    CHECK(same_bits(found, layer.relevance(3)));
  }
}

}  // namespace
}  // namespace pylrp
