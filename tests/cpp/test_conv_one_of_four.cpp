// Below a pool of 2 x 2: of four neighbouring positions one has relevance, another one in each channel
// (layers/conv/one_of_four.cpp, products/tap_quads.cpp, kernels/quads.inl).
#include <cmath>
#include <limits>
#include <vector>

#include "conv_run.hpp"
#include "kernel_cases.hpp"
#include "kernels/quads.hpp"
#include "products/lists.hpp"
#include "products/tap_quads.hpp"

namespace pylrp {
namespace {

bool runs_here() {
  return is_built(ConvPath::kOneOfFour) && kernels::quads() != nullptr && forced_left_path() == LeftPath::kCounted;
}

struct Shapes {
  const char* name;
  Geometry geometry;
  Index in, out;
};
const Geometry kPadded{{1, 9, 10}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
const std::vector<Shapes>& shapes() {
  static const std::vector<Shapes> all{
      {"padded, an odd side", kPadded, 8, 32},
      {"not padded", {{1, 6, 8}, {1, 3, 3}}, 9, 65},
      {"padded far", {{1, 3, 4}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 4, 3}, {0, 2, 4}}, 8, 33},
      {"dilated", {{1, 9, 8}, {1, 3, 2}, {1, 1, 1}, {1, 2, 3}, {0, 2, 1}, {0, 2, 1}}, 11, 40},
      {"three axes", {{3, 5, 4}, {2, 3, 2}, {1, 1, 1}, {1, 1, 2}, {1, 1, 0}, {0, 1, 1}}, 8, 34},
      {"several lists a pixel", {{1, 4, 5}, {1, 2, 2}}, 290, 35},
      {"several tasks", {{1, 34, 30}, {1, 1, 2}}, 8, 130},
      {"one tap, padded", {{1, 7, 7}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 1, 0}, {0, 0, 1}}, 17, 64},
  };
  return all;
}

Options below_a_pool(unsigned n) {
  Options options(n);
  options.batch = 1 + static_cast<Index>(n % 3);
  options.targets = 1;
  options.nonnegative = n % 2 == 0;
  options.kept = options.positive = n % 5 == 4;
  options.threads = 1 + static_cast<int>(n % 3);
  options.one_of_four = true;
  return options;
}

TEST(conv_one_of_four_has_the_general_results) {
  unsigned n = 0;
  for (const Shapes& s : shapes()) {
    for (const char* name : {"z+", "gamma", "alpha-beta", "no bias", "epsilon by sign"}) {
      const ConvCase c{s.name, s.geometry, s.in, s.out, 1, false};
      const Options options = below_a_pool(++n);
      const std::uint64_t before = runs_of(ConvPath::kOneOfFour);
      check_conv<float>(c, {name, rule_named(name)}, options, n);
      const bool output_is_sum = options.kept && std::string(name) == "no bias";
      const bool by_magnitude =
          is_built(ConvPath::kTapsByMagnitude) && !options.nonnegative && std::string(name) == "alpha-beta";
      CHECK(output_is_sum || by_magnitude || (runs_of(ConvPath::kOneOfFour) > before) == runs_here());
      check_conv<double>(c, {name, rule_named(name)}, options, n);
    }
  }
}

// Relevance of a layer whose relevance is one of four, or not everywhere; the same bits for any number of threads, and
// in the relevance's own place.
struct Run {
  ConvData<float> data;
  ConvLayer<float> layer;
  CompiledRule rule{rule_named("z+")};
  explicit Run(Index batch) : data(kPadded.shape(12, 40), false, batch, 1, 5, true), layer(data.layer(true)) {
    keep_one_of_four(&data.relevance, data.shape.out, 40);
  }
  std::vector<float> relevance(int threads, bool in_place) {
    Fenced<float> result(data.input.rows(), data.input.cols());
    Fenced<float> given(data.relevance.rows(), data.relevance.cols(), 0);
    std::copy_n(data.relevance.data(), 0, given.data());
    for (Index i = 0; i < given.rows(); ++i) {
      std::copy_n(data.relevance.row(i), given.cols(), given.row(i));
    }
    std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(given.rows()));
    RelevanceJob<float> job;
    job.inputs = {data.input.read()};
    job.relevance = given.read();
    job.spare = in_place ? given.view() : Matrix<float>{};
    job.results = {result.view()};
    job.batch = data.input.rows();
    job.rule = &rule;
    job.input_nonnegative = true;
    job.absorbed = absorbed.data();
    layer.relevance(job, {threads});
    std::vector<float> all;
    for (Index i = 0; i < result.rows(); ++i) {
      all.insert(all.end(), result.row(i), result.row(i) + result.cols());
    }
    for (const kernels::Absorbed& page : absorbed) {
      all.insert(all.end(), {static_cast<float>(page.bias), static_cast<float>(page.dead)});
    }
    return all;
  }
};

TEST(conv_one_of_four_by_threads_and_in_place) {
  Run run(3);
  const std::vector<float> expected = run.relevance(1, false);
  for (const int threads : {1, 2, 3}) {
    for (const bool in_place : {false, true}) {
      const std::vector<float> found = run.relevance(threads, in_place);
      CHECK(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)) == 0);
    }
  }
}

TEST(conv_one_of_four_leaves_others_alone) {
  for (const bool several : {false, true}) {
    Run run(2);
    float* const row = run.data.relevance.row(1);
    row[40] = several ? 1.0f : 0.0f;  // the window's second position, beside the first
    row[0] = 1;
    for (const Index other : {run.data.shape.out[2] * 40, (run.data.shape.out[2] + 1) * 40}) {
      row[other] = -0.0f;
    }
    const std::uint64_t before = runs_of(ConvPath::kOneOfFour);
    run.relevance(2, false);
    CHECK((runs_of(ConvPath::kOneOfFour) > before) == (runs_here() && !several));
  }
  Run run(1);
  run.data.relevance.at(0, 0) = std::numeric_limits<float>::quiet_NaN();
  for (const Index other : {Index{40}, run.data.shape.out[2] * 40, (run.data.shape.out[2] + 1) * 40}) {
    run.data.relevance.at(0, other) = 0;
  }
  CHECK(std::isnan(run.relevance(1, false)[0]));  // what is not a number shows
}

// --- kernels ---

TEST(quads_compress_keeps_what_is_not_zero_in_one) {
  if (kernels::quads() == nullptr) {
    CHECK(std::string(kernels::active().name) == kernels::built().back());  // the one for every machine
    return;
  }
  for (const Index k : {1, 2, 3, 4, 5, 8, 63, 64, 130}) {
    for (const double share : {0.0, 0.1, 0.5, 1.0}) {
      say("compress of quads: k, share in percent", k, static_cast<int>(100 * share));
      Fenced<float> x(4, k), values(1, 4 * (k + 1), 0);
      Random random(static_cast<unsigned>(k));
      x.fill(random);
      for (Index i = 0; i < 4 * k; ++i) {
        if ((random() + 1) / 2 >= share) {
          x.at(i / k, i % k) = i % 3 == 0 ? -0.0f : 0.0f;
        }
      }
      x.at(2, k - 1) = std::numeric_limits<float>::quiet_NaN();
      x.at(1, k / 2) = -std::numeric_limits<float>::infinity();
      x.at(3, k / 3) = std::numeric_limits<float>::denorm_min();
      const float* const at[] = {x.row(0), x.row(1), x.row(2), x.row(3)};
      std::vector<std::uint16_t> steps(static_cast<std::size_t>(k + 1));
      const Index count = kernels::quads()->compress(k, at, values.data(), steps.data());
      Index kept = 0;
      bool right = true;
      for (Index p = 0; p < k; ++p) {
        const float four[] = {at[0][p], at[1][p], at[2][p], at[3][p]};
        if (std::any_of(four, four + 4, [](float v) { return v != 0; })) {
          right = right && kept < count && steps[static_cast<std::size_t>(kept)] == p &&
                  std::memcmp(values.data() + 4 * kept, four, sizeof four) == 0;
          ++kept;
        }
      }
      CHECK(right && kept == count);
      CHECK(x.intact() && values.intact());
    }
  }
}

TEST(quads_each_column_takes_its_own) {
  if (kernels::quads() == nullptr) {
    CHECK(std::string(kernels::active().name) == kernels::built().back());  // the one for every machine
    return;
  }
  const Index width = kernels::table<float>().tile_cols, steps_of_panel = 50;
  const std::vector<Index> begins{0, 0, 7, 7 + steps_of_panel};
  Random random(3);
  Fenced<float> values(1, 4 * begins.back()), panels(kernels::kQuadPanels * steps_of_panel, width, 0);
  Fenced<float> before(3, kernels::kQuadPanels * width, 0);
  values.fill(random);
  panels.fill(random);
  before.fill(random);
  std::vector<std::uint16_t> steps;
  for (std::size_t list = 0; list < 3; ++list) {
    for (Index n = begins[list + 1] - begins[list]; n > 0; --n) {
      steps.push_back(static_cast<std::uint16_t>(steps_of_panel - n));
    }
  }
  const std::int32_t list_of[] = {2, 0, 1};
  for (int count = 1; count <= kernels::kQuadPanels; ++count) {
    for (const bool add : {false, true}) {
      say("list_quads: panels, add", count, add);
      const Index columns = count * width;
      std::vector<std::int32_t> choice(static_cast<std::size_t>(3 * columns));
      std::generate(choice.begin(), choice.end(), [&] { return static_cast<std::int32_t>(random.up_to(0, 3)); });
      Fenced<float> sums(3, kernels::kQuadPanels * width, 0);
      std::copy_n(before.data(), 3 * kernels::kQuadPanels * width, sums.data());
      const float* panel[kernels::kQuadPanels];
      float* out[kernels::kQuadPanels];
      for (int p = 0; p < count; ++p) {
        panel[p] = panels.row(p * steps_of_panel);
        out[p] = sums.row(0) + p * width;
      }
      kernels::quads()->list_quads({{.rows = 3,
                                     .values = values.data(),
                                     .steps = steps.data(),
                                     .begins = begins.data(),
                                     .list_of = list_of,
                                     .panels = count,
                                     .panel = panel,
                                     .add = add,
                                     .out = out,
                                     .out_stride = kernels::kQuadPanels * width},
                                    choice.data(),
                                    columns});
      bool right = true;
      for (Index i = 0; i < 3; ++i) {
        const std::size_t list = static_cast<std::size_t>(list_of[i]);
        for (Index j = 0; j < columns; ++j) {
          Sum64 expected;
          expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
          for (Index e = begins[list]; e < begins[list + 1]; ++e) {
            const Index step = steps[static_cast<std::size_t>(e)];
            expected.add(static_cast<double>(values.data()[4 * e + choice[static_cast<std::size_t>(i * columns + j)]]) *
                         static_cast<double>(panels.at(j / width * steps_of_panel + step, j % width)));
          }
          right = right && near(static_cast<double>(sums.at(i, j)), expected.value, bound<float>(expected, 60));
        }
      }
      CHECK(right);
      CHECK(sums.intact() && values.intact() && panels.intact());
    }
  }
}

}  // namespace
}  // namespace pylrp
