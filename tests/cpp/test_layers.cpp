// One dense layer: relevance by both paths and from weights by columns, and the forward pass, against the reference in
// double.
#include <algorithm>
#include <array>
#include <numeric>

#include "check.hpp"
#include "engine/chain.hpp"
#include "kernels/dispatch.hpp"
#include "layers/dense/columns.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {
namespace {

// What may be there or not; each size of the layer meets another choice.
struct Options {
  bool nonnegative, with_bias, prepared, kept, ledger;
  int threads;
  explicit Options(unsigned n)
      : nonnegative(n & 1),
        with_bias(n & 2),
        prepared(n & 4),
        kept(n % 3 == 0),
        ledger(n % 5 != 0),
        threads(1 + int(n % 4)) {}
};

// The same weights by columns, and relevance with them; the job's own weights have no data.
template <class T>
void from_columns(const DenseJob<T>& job, const Threads& threads) {
  const Matrix<const T> weight = job.layer.weight;
  Fenced<T> columns(weight.cols, weight.rows);
  for (Index j = 0; j < weight.rows; ++j) {
    for (Index k = 0; k < weight.cols; ++k) {
      columns.at(k, j) = weight.row(j)[k];
    }
  }
  DenseJob<T> bare = job;
  bare.layer.weight.data = nullptr;
  bare.constants = nullptr;
  dense_relevance_by_columns(bare, columns.read(), threads);
  CHECK(columns.intact());
}

template <class T>
void check_layer(const NamedRule& named, Index batch, Index n_in, Index n_out, unsigned n) {
  const Options options(n);
  check::context = named.name + ": batch " + std::to_string(batch) + ", " + std::to_string(n_in) + " -> " +
                   std::to_string(n_out) + ", bytes " + std::to_string(sizeof(T)) + ", choice " + std::to_string(n);
  DenseData<T> layer(batch, n_in, n_out, n, options.nonnegative);
  const Reference expected = reference<T>(layer.wires(options.with_bias), layer, named.rule, Care::kSettle);
  const Index unsure = std::accumulate(expected.unsure.begin(), expected.unsure.end(), Index{0});
  CHECK(4 * unsure <= 3 + batch * n_out);  // else little would be left to look at

  const LoweredRule lowered = lower(named.rule, options.nonnegative);
  const Threads threads{options.threads};
  DenseJob<T> job;
  job.layer = {layer.weight.read(), options.with_bias ? layer.bias.data() : nullptr};
  job.rule = &lowered;
  job.bounds = {layer.low.data(), layer.high.data()};
  job.input = lowered.reads_input() ? layer.input.read() : Matrix<const T>{};
  job.relevance = layer.relevance.read();
  GroupConstants<T> constants;
  if (options.prepared) {
    constants = prepare_dense(job.layer, lowered, job.bounds, threads);
    job.constants = &constants;
  }
  Fenced<T> output(batch, n_out), result(batch, n_in);
  if (options.kept) {
    dense_forward(job.layer, layer.input.read(), output.view(), threads);
    job.output = output.read();
  }
  job.result = result.view();

  std::array<std::vector<T>, 2> both;
  constexpr const char* kPaths[] = {", by rows", ", by products", ", as it chooses", ", by columns"};
  const std::string what = check::context;
  for (const std::size_t path : {0u, 1u, 2u, 3u}) {
    check::context = what + kPaths[path];
    std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(batch));
    job.absorbed = options.ledger ? absorbed.data() : nullptr;
    result.reset();
    constexpr decltype(&dense_relevance<T>) kWays[] = {relevance_by_rows<T>, relevance_by_products<T>,
                                                       dense_relevance<T>, from_columns<T>};
    kWays[path](job, threads);
    bool right = true, together = true;
    for (Index i = 0; i < batch; ++i) {
      for (Index k = 0; k < n_in; ++k) {
        const auto at = static_cast<std::size_t>(i * n_in + k);
        const Sum64& r = expected.relevance[at];
        right = right && near(static_cast<double>(result.at(i, k)), r.value, r.error);
        if (path < 2) {
          both[path].push_back(result.at(i, k));
        } else if (path == 2) {  // what dense_relevance chose is one of the two
          together = together && (both[0][at] == result.at(i, k) || both[1][at] == result.at(i, k));
        }
      }
      const kernels::Absorbed& lost = absorbed[static_cast<std::size_t>(i)];
      const double columns[] = {lost.bias, lost.stabilizer, lost.dead};
      for (std::size_t c = 0; options.ledger && c < 3; ++c) {
        const Sum64& e = expected.absorbed[c][static_cast<std::size_t>(i)];
        right = right && near(columns[c], e.value, e.error);
      }
    }
    CHECK(right);
    CHECK(together);
    CHECK(result.intact());
  }
  CHECK(output.intact() && layer.intact());
}

template <class T>
void check_sizes() {
  const auto& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols, height = kernel.tile_rows;
  unsigned n = 0;
  for (const NamedRule& rule : test_rules()) {
    for (const Index n_in : depths(width)) {
      check_layer<T>(rule, height + 1, n_in, 19, ++n);
    }
    for (const Index n_out : depths(width)) {
      check_layer<T>(rule, 5, 23, n_out, ++n);
    }
    for (const Index batch : around(height)) {
      check_layer<T>(rule, batch, 2 * width - 5, width + 3, ++n);
    }
    for (const Index batch : {1, 2, 3, 4}) {
      check_layer<T>(rule, batch, 131, 67, ++n);
    }
  }
}
TEST(relevance_of_a_layer_float32) { check_sizes<float>(); }
TEST(relevance_of_a_layer_float64) { check_sizes<double>(); }

// Several chunks of rows, several blocks of the reduction, several parts of the batch.
TEST(relevance_of_a_large_layer) {
  const auto named = [](const char* name) { return NamedRule{name, rule_named(name)}; };
  check_layer<float>(named("z+"), 2, 1211, 1001, 1);
  check_layer<double>(named("alpha-beta"), 2, 811, 701, 2);
  check_layer<float>(named("alpha-beta"), 31, 300, 530, 3);
  check_layer<double>(named("z+"), 130, 8200, 3, 4);
  check_layer<float>(named("epsilon"), 150, 7, 16500, 6);
}

// Several chunks of columns: whatever the number of threads, the same to the last bit.
TEST(columns_by_several_threads) {
  for (const char* name : {"w^2", "z+", "gamma"}) {
    check::context = name;
    const LoweredRule lowered = lower(rule_named(name), false);
    DenseData<float> layer(2, 1300, 1100, 3, false);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3}) {
      Fenced<float> result(2, 1300);
      from_columns<float>({{layer.weight.read(), layer.bias.data()},
                           &lowered,
                           {},
                           nullptr,
                           layer.input.read(),
                           {},
                           layer.relevance.read(),
                           result.view()},
                          {threads});
      CHECK(result.intact());
      results.push_back(result.entries());
    }
    CHECK(same_bits(results[0], results[1]) && same_bits(results[0], results[2]));
  }
}

// One entry of relevance a sample: both paths still agree with the reference.
TEST(sparse_relevance) {
  const Rule& rule = rule_named("z+");
  const LoweredRule lowered = lower(rule, false);
  for (const Index batch : {1, 4, 5, 30}) {
    check::context = "batch " + std::to_string(batch);
    DenseData<float> layer(batch, 83, 64, 7, false);
    layer.relevance.fill([] { return 0; });
    for (Index i = 1; i < batch; ++i) {  // the first sample has none at all
      layer.relevance.at(i, (7 * i) % 64) = 1;
    }
    const Reference expected = reference<float>(layer.wires(true), layer, rule, Care::kSettle);
    Fenced<float> result(batch, 83);
    const DenseJob<float> job{{layer.weight.read(), layer.bias.data()},
                              &lowered,
                              {},
                              nullptr,
                              layer.input.read(),
                              {},
                              layer.relevance.read(),
                              result.view()};
    for (const auto path :
         {relevance_by_rows<float>, relevance_by_products<float>, dense_relevance<float>, from_columns<float>}) {
      result.reset();
      path(job, {2});
      bool right = true;
      for (Index n = 0; n < batch * 83; ++n) {
        const Sum64& r = expected.relevance[static_cast<std::size_t>(n)];
        right = right && near(static_cast<double>(result.at(n / 83, n % 83)), r.value, r.error);
      }
      CHECK(right && result.intact());
    }
  }
}

TEST(nothing_to_do) {
  for (const auto& [batch, n_in, n_out] :
       {std::array<Index, 3>{0, 5, 4}, {3, 0, 4}, {3, 5, 0}, {20, 5, 0}, {20, 0, 4}, {0, 0, 0}}) {
    check::context = std::to_string(batch) + " samples, " + std::to_string(n_in) + " -> " + std::to_string(n_out);
    DenseData<float> layer(batch, n_in, n_out, 1, false);
    for (const NamedRule& named : test_rules()) {
      const LoweredRule lowered = lower(named.rule, false);
      Fenced<float> result(batch, n_in), output(batch, n_out);
      const DenseJob<float> job{{layer.weight.read(), layer.bias.data()},
                                &lowered,
                                {layer.low.data(), layer.high.data()},
                                nullptr,
                                layer.input.read(),
                                {},
                                layer.relevance.read(),
                                result.view()};
      for (const auto path :
           {relevance_by_rows<float>, relevance_by_products<float>, dense_relevance<float>, from_columns<float>}) {
        if (batch > 0 || path == dense_relevance<float> ||
            path == from_columns<float>) {  // the paths themselves want a sample
          path(job, {2});
        }
        for (Index i = 0; i < batch * n_in; ++i) {
          CHECK(result.at(i / n_in, i % n_in) == 0);  // without outputs there is no relevance
        }
      }
      dense_forward(job.layer, layer.input.read(), output.view(), {2});
      for (Index i = 0; i < batch * n_out && n_in == 0; ++i) {
        CHECK(output.at(i / n_out, i % n_out) == layer.bias.at(0, i % n_out));
      }
      CHECK(result.intact() && output.intact());
    }
  }
}

template <class T>
void check_forward(Index batch, Index n_in, Index n_out, bool with_bias) {
  check::context = "forward: batch " + std::to_string(batch) + ", " + std::to_string(n_in) + " -> " +
                   std::to_string(n_out) + ", bytes " + std::to_string(sizeof(T));
  DenseData<T> layer(batch, n_in, n_out, 3, false);
  Fenced<T> output(batch, n_out);
  dense_forward<T>({layer.weight.read(), with_bias ? layer.bias.data() : nullptr}, layer.input.read(), output.view(),
                   {2});
  bool right = true;
  for (Index i = 0; i < batch; ++i) {
    for (Index j = 0; j < n_out; ++j) {
      Sum64 z;
      z.add(with_bias ? static_cast<double>(layer.bias.at(0, j)) : 0);
      for (Index k = 0; k < n_in; ++k) {
        z.add(static_cast<double>(layer.weight.at(j, k)) * static_cast<double>(layer.input.at(i, k)));
      }
      right = right && near(static_cast<double>(output.at(i, j)), z.value, bound<T>(z, n_in));
    }
  }
  CHECK(right);
  CHECK(output.intact() && layer.intact());
}

TEST(forward_of_a_layer) {
  const auto& kernel = kernels::table<float>();
  for (const Index size : depths(kernel.tile_cols)) {
    for (const Index batch : {1, 4, 5, kernel.tile_rows + 1}) {
      check_forward<float>(batch, size, 19, size & 1);
      check_forward<double>(batch, 23, size, size & 1);
    }
  }
  for (const Index batch : around(kernel.tile_rows)) {
    check_forward<float>(batch, 70, 45, true);
    check_forward<double>(batch, 70, 45, true);
  }
  check_forward<double>(130, 16500, 3, true);  // several parts of the batch
  check_forward<float>(3, 811, 701, true);     // several tasks
}

}  // namespace
}  // namespace pylrp
