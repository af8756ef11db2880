// Relevance of a layer in the place of its input, a convolution's shares in the place of the relevance: the same bits.
#include "conv_run.hpp"
#include "layers/add.hpp"
#include "layers/concat.hpp"
#include "layers/pool.hpp"

namespace pylrp {
namespace {

const Geometry kPlain{{1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
const Geometry kStrided{{1, 7, 8}, {1, 3, 2}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 0, 1}};
const Geometry kGaps{{1, 7, 8}, {1, 2, 1}, {1, 3, 2}};  // inputs that nobody reads

const std::vector<ConvCase>& cases() {
  static const std::vector<ConvCase> all{
      {"plain", kPlain, 3, 20, 1, false},
      {"strided", kStrided, 5, 6, 1, false},
      {"strided", kStrided, 5, 6, 1, true},
      {"gaps", kGaps, 4, 3, 1, false},
      {"gaps", kGaps, 4, 3, 1, true},
      {"groups", kStrided, 6, 9, 3, false},
      {"depthwise", kPlain, 19, 19, 19, false},
      {"depthwise, strided", kStrided, 17, 17, 17, true},
      {"depthwise, gaps", kGaps, 17, 17, 17, false},
      {"pointwise", {{1, 6, 7}, {1, 1, 1}}, 18, 20, 1, false},
      {"pointwise, more positions", {{1, 30, 31}, {1, 1, 1}}, 17, 5, 1, false},
      {"wide", {{1, 2, 3}, {1, 2, 2}}, 290, 300, 1, false},
      {"several tasks", {{1, 30, 31}, {1, 1, 3}}, 3, 5, 1, false},
  };
  return all;
}

template <class T>
void check_in_place(const ConvCase& c, const NamedRule& named, const Options& options, unsigned seed) {
  ConvData<T> data(c.shape(), c.transposed, options.batch, options.targets, seed, options.nonnegative);
  const Index rows = data.relevance.rows(), in = data.input.cols(), out = data.relevance.cols();
  const ConvLayer<T> layer = data.layer(options.with_bias);
  const CompiledRule rule(named.rule);
  Fenced<T> output(options.batch, out, 0);
  layer.forward({data.input.read()}, output.view(), {}, {1});
  if (c.in == 18) {  // entries that cancel
    for (Index k = 0; k < c.in; ++k) {
      data.weight.at(c.out - 1, k) = std::abs(data.weight.at(c.out - 1, k));
      for (Index i = 0; i < options.batch; ++i) {
        data.input.at(i, 7 * c.in + k) = std::abs(data.input.at(i, 7 * c.in + k));
      }
    }
  }
  if (options.positive) {
    for (Index i = 0; i < options.batch; ++i) {
      for (Index j = 0; j < out; ++j) {
        output.at(i, j) = std::max(output.at(i, j), T(0));
        for (Index t = 0; t < options.targets && output.at(i, j) == 0; ++t) {
          data.relevance.at(t * options.batch + i, j) = 0;
        }
      }
    }
  }
  Relevance<T> expected(layer, data, rule, options.kept ? output.read() : Matrix<const T>{}, options);
  for (const bool over_input : {false, true}) {
    for (const Index extra : {-1, 0, 3}) {  // of the spare memory's stride; -1: none
      check::context = c.name + (c.transposed ? ", transposed, " : ", ") + named.name + ", bytes " +
                       std::to_string(sizeof(T)) + ", choice " + std::to_string(seed) + ", over input " +
                       std::to_string(over_input) + ", extra " + std::to_string(extra);
      if (over_input && (options.targets > 1 || !layer.reads_inputs(&rule))) {
        continue;
      }
      Fenced<T> values(options.batch, in), relevance(rows, out, std::max<Index>(extra, 0)), result(rows, in);
      for (Index i = 0; i < options.batch; ++i) {
        std::copy_n(data.input.row(i), in, values.row(i));
      }
      for (Index i = 0; i < rows; ++i) {
        std::copy_n(data.relevance.row(i), out, relevance.row(i));
      }
      std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(rows));
      RelevanceJob<T> job;
      job.inputs = {layer.reads_inputs(&rule) ? values.read() : Matrix<const T>{}};
      job.output = options.kept ? output.read() : Matrix<const T>{};
      job.relevance = relevance.read();
      job.spare = extra < 0 ? Matrix<T>{} : relevance.view();
      Fenced<T>& to = over_input ? values : result;
      job.results = {to.view()};
      job.batch = options.batch;
      job.rule = &rule;
      job.bounds = data.bounds();
      job.input_nonnegative = options.nonnegative;
      job.output_positive = options.positive;
      job.absorbed = absorbed.data();
      layer.relevance(job, {options.threads});
      CHECK(same_bits(expected.result.entries(), to.entries()));
      bool account = true;
      for (std::size_t i = 0; i < absorbed.size(); ++i) {
        const kernels::Absorbed &a = absorbed[i], &b = expected.absorbed[i];
        account = account && a.bias == b.bias && a.stabilizer == b.stabilizer && a.dead == b.dead;
      }
      CHECK(account);
      CHECK(values.intact() && relevance.intact() && result.intact() && data.intact());
      CHECK(extra >= 0 || same_bits(relevance.entries(), data.relevance.entries()));
      CHECK(over_input || same_bits(values.entries(), data.input.entries()));
    }
  }
}

TEST(conv_in_place) {
  unsigned n = 0;
  for (const ConvCase& c : cases()) {
    for (const NamedRule& named : conv_rules()) {
      for (int k = 0; k < 2; ++k, ++n) {
        Options options(n);
        options.targets = k == 0 ? 1 : options.targets;
        if (count(c.geometry.in) > 500) {
          options.threads = 3;
          options.batch = 1 + k % 2;
        }
        check_in_place<float>(c, named, options, n);
        check_in_place<double>(c, named, options, n);
      }
    }
  }
}

// Layers without weights that say they can: over each of the inputs alone, over all of them.
template <class T>
void check_over_inputs(const Layer<T>& layer, const std::vector<Index>& sizes, Index out, int threads) {
  constexpr Index kBatch = 2;
  Random random(4);
  const std::size_t inputs = sizes.size();
  std::vector<std::unique_ptr<Fenced<T>>> given;
  for (const Index size : sizes) {
    given.push_back(std::make_unique<Fenced<T>>(kBatch, size));
    given.back()->fill([&] { return random.chance(0.3) ? 0 : random(); });  // ties, too
  }
  Fenced<T> relevance(kBatch, out);
  relevance.fill(random);
  std::vector<std::vector<T>> expected;
  std::vector<kernels::Absorbed> lost;
  for (std::size_t over = 0; over <= inputs + 1; ++over) {  // 0: none, inputs + 1: all
    check::context += '.';
    std::vector<std::unique_ptr<Fenced<T>>> values, results;
    RelevanceJob<T> job;
    for (std::size_t k = 0; k < inputs; ++k) {
      values.push_back(std::make_unique<Fenced<T>>(kBatch, sizes[k]));
      results.push_back(std::make_unique<Fenced<T>>(kBatch, sizes[k]));
      for (Index i = 0; i < kBatch; ++i) {
        std::copy_n(given[k]->row(i), sizes[k], values[k]->row(i));
      }
      job.inputs.push_back(values[k]->read());
      if (over == k + 1 || over > inputs) {
        results[k].swap(values[k]);
      }
      job.results.push_back(results[k]->view());
    }
    std::vector<kernels::Absorbed> absorbed(kBatch);
    job.relevance = relevance.read();
    job.batch = kBatch;
    job.absorbed = absorbed.data();
    layer.relevance(job, {threads});
    for (std::size_t k = 0; k < inputs; ++k) {
      if (over == 0) {
        expected.push_back(results[k]->entries());
        lost = absorbed;
      }
      CHECK(same_bits(expected[k], results[k]->entries()) && results[k]->intact() && values[k]->intact());
    }
    for (std::size_t i = 0; i < absorbed.size(); ++i) {
      CHECK(absorbed[i].dead == lost[i].dead && absorbed[i].stabilizer == lost[i].stabilizer);
    }
  }
}

template <class T>
void check_layers_over_inputs() {
  for (const int threads : {1, 3}) {
    for (const Index size : {Index{7}, Index{100000}}) {
      for (const std::size_t inputs : {1u, 2u, 4u, 6u}) {
        check::context = "sum of " + std::to_string(inputs);
        const AddLayer<T> add;
        CHECK(add.relevance_in_place());
        check_over_inputs<T>(add, std::vector<Index>(inputs, size), size, threads);
      }
    }
    const PoolAxis one{{0}, {1}, {1}, 1, 1}, halves{{0, 2}, {2, 4}, {2, 2}, 1, 4}, uneven{{0, 3}, {3, 5}, {3, 2}, 1, 5};
    const PoolAxis global{{0}, {6}, {6}, 1, 6}, overlapping{{0, 2}, {3, 5}, {3, 3}, 1, 5};
    const PoolAxis gap{{0, 3}, {2, 5}, {2, 2}, 1, 5}, short_of{{0, 2}, {2, 4}, {2, 2}, 1, 5};
    const PoolAxis dilated{{0, 1}, {3, 4}, {2, 2}, 2, 4}, one_dilated{{0}, {5}, {3}, 2, 5};
    for (const bool max : {false, true}) {
      for (const Index channels : {3, 70}) {
        for (const auto& axes : {std::array<PoolAxis, 3>{one, halves, uneven},
                                 {halves, uneven, global},
                                 {one, global, global},
                                 {one, one, halves}}) {
          check::context = std::string(max ? "maximum" : "average") + ", channels " + std::to_string(channels);
          const PoolLayer<T> pool(max, axes, channels);
          CHECK(pool.relevance_in_place());
          check_over_inputs<T>(pool, {axes[0].in * axes[1].in * axes[2].in * channels},
                               axes[0].out() * axes[1].out() * axes[2].out() * channels, threads);
        }
      }
      for (const PoolAxis& axis : {overlapping, gap, short_of, dilated, one_dilated}) {
        CHECK(!PoolLayer<T>(max, {one, axis, halves}, 3).relevance_in_place());
        CHECK(!PoolLayer<T>(max, {one, halves, axis}, 3).relevance_in_place());
      }
    }
  }
}
TEST(sums_and_pools_in_place_float32) { check_layers_over_inputs<float>(); }
TEST(sums_and_pools_in_place_float64) { check_layers_over_inputs<double>(); }

}  // namespace
}  // namespace pylrp
