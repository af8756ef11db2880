// Attention in tiles against the formulas on whole matrices in double, for heads that lie in any steps.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layer_run.hpp"
#include "layers/attention/attention.hpp"

namespace pylrp {
namespace {

bool near(double found, double expected, double within) { return std::abs(found - expected) <= within; }

// Heads that share keys two by two, each matrix (features, tokens) in memory, all in one value: queries, keys, values.
struct Layout {
  Index heads, queries, keys, width, value_width;
  double cap = 0;

  Index groups() const { return heads / 2; }
  Index key_at() const { return heads * width * queries; }
  Index value_at() const { return key_at() + groups() * width * keys; }
  Index size() const { return value_at() + groups() * value_width * keys; }
  Index output() const { return heads * queries * value_width; }
  bool closed(Index i, Index j) const { return j > i + 3 || i == 1; }  // a row without a key
  double added(Index i, Index j) const { return 0.125 * static_cast<double>((i * 7 + j * 3) % 5); }

  Heads of() const {
    Heads made;
    made.queries = queries;
    made.keys = keys;
    made.width = width;
    made.value_width = value_width;
    made.scale = 0.5;
    made.cap = cap;
    for (Index h = 0; h < heads; ++h) {
      made.q.at.push_back(h * width * queries);
      made.k.at.push_back(key_at() + h / 2 * width * keys);
      made.v.at.push_back(value_at() + h / 2 * value_width * keys);
      made.out.at.push_back(h * value_width);
    }
    made.q.row = made.k.row = made.v.row = 1;
    made.q.col = queries;
    made.k.col = made.v.col = keys;
    made.out.row = heads * value_width;
    made.out.col = 1;
    made.covered = {true};
    return made;
  }
  template <class T>
  std::vector<AddedToScores<T>> masks() const {
    AddedToScores<T> mask;
    mask.is_input = false;
    mask.matrix.at.assign(static_cast<std::size_t>(heads), 0);
    mask.matrix.row = keys;
    mask.matrix.col = 1;
    for (Index i = 0; i < queries; ++i) {
      for (Index j = 0; j < keys; ++j) {
        mask.constant.push_back(closed(i, j) ? std::numeric_limits<T>::max() : static_cast<T>(added(i, j)));
      }
    }
    return {mask};
  }
};

struct Expected {
  std::vector<double> output, relevance, size;  // size: the sum of magnitudes
  double softmax = 0, constant = 0, dead = 0;
};

// One head; x, r: a sample and its relevance.
template <class T>
void add_head(const Layout& of, Index head, const T* x, const T* r, const T* made, Expected* to) {
  const Heads at = of.of();
  const std::size_t h = static_cast<std::size_t>(head);
  const auto q = [&](Index i, Index f) { return at.q.at[h] + i + f * of.queries; };
  const auto k = [&](Index j, Index f) { return at.k.at[h] + j + f * of.keys; };
  const auto v = [&](Index j, Index f) { return at.v.at[h] + j + f * of.keys; };
  const auto value = [&](Index place) { return static_cast<double>(x[place]); };
  const auto give = [&](Index place, double amount) {
    to->relevance[static_cast<std::size_t>(place)] += amount;
    to->size[static_cast<std::size_t>(place)] += std::abs(amount);
  };
  for (Index i = 0; i < of.queries; ++i) {
    std::vector<double> raw, s, p, c;
    double sum = 0;
    for (Index j = 0; j < of.keys; ++j) {
      double score = 0;
      for (Index f = 0; f < of.width; ++f) {
        score += 0.5 * value(q(i, f)) * value(k(j, f));
      }
      raw.push_back(score);
      s.push_back(of.cap == 0 ? score : of.cap * std::tanh(score / of.cap));
      p.push_back(of.closed(i, j) ? 0 : std::exp(s.back() + of.added(i, j)));
      sum += p.back();
    }
    c.assign(p.size(), 0);
    double all = 0;
    for (Index f = 0; f < of.value_width; ++f) {
      const Index at_output = i * of.heads * of.value_width + head * of.value_width + f;
      const double out = static_cast<double>(made[at_output]), share = static_cast<double>(r[at_output]) / out / 2;
      to->dead += out == 0 ? static_cast<double>(r[at_output]) : 0;
      for (Index j = 0; j < of.keys && sum > 0; ++j) {
        const double part = p[static_cast<std::size_t>(j)] / sum;
        to->output[static_cast<std::size_t>(at_output)] += part * value(v(j, f));
        give(v(j, f), part * value(v(j, f)) * share);
        c[static_cast<std::size_t>(j)] += value(v(j, f)) * share;
        all += part * value(v(j, f)) * share;
      }
    }
    for (std::size_t j = 0; j < p.size() && sum > 0; ++j) {
      if (p[j] == 0) {
        continue;
      }
      const Index key = static_cast<Index>(j);
      const double score = s[j] + of.added(i, key), taken = p[j] / sum * (c[j] - all);
      to->softmax -= score * taken;
      to->constant += of.added(i, key) * taken;
      for (Index f = 0; f < of.width; ++f) {
        const double part = 0.25 * value(q(i, f)) * value(k(key, f)) * taken * s[j] / raw[j];
        give(q(i, f), part);
        give(k(key, f), part);
      }
    }
    to->softmax += all;
  }
}

template <class T>
void check_attention(const Layout& of) {
  const AttentionLayer<T> layer(of.of(), of.masks<T>());
  layer.require_sizes({of.size()}, of.output());
  Fenced<T> x(kBatch, of.size()), r(kRows, of.output()), out(kBatch, of.output(), 1), results(kRows, of.size(), 2);
  Random random(3);
  x.fill(random);
  r.fill(random);
  layer.forward({x.read()}, out.view(), {}, {1});
  std::vector<kernels::Absorbed> absorbed(kRows), again(kRows);
  RelevanceJob<T> job;
  job.inputs = {x.read()};
  job.output = out.read();
  job.relevance = r.read();
  job.results = {results.view()};
  job.batch = kBatch;
  job.absorbed = absorbed.data();
  layer.relevance(job, {1});
  const double tolerance = sizeof(T) == 4 ? 3e-5 : 1e-12;
  for (Index row = 0; row < kRows; ++row) {
    Expected expected;
    expected.output.resize(static_cast<std::size_t>(of.output()));
    expected.relevance.resize(static_cast<std::size_t>(of.size()));
    expected.size = expected.relevance;
    const Index sample = row % kBatch;
    for (Index head = 0; head < of.heads; ++head) {
      add_head(of, head, x.row(sample), r.row(row), out.row(sample), &expected);
    }
    double all = 0;
    for (Index j = 0; j < of.size(); ++j) {
      const std::size_t at = static_cast<std::size_t>(j);
      CHECK(near(static_cast<double>(results.at(row, j)), expected.relevance[at], tolerance * (expected.size[at] + 1)));
      all += expected.size[at];
    }
    for (Index j = 0; j < of.output(); ++j) {
      CHECK(near(static_cast<double>(out.at(sample, j)), expected.output[static_cast<std::size_t>(j)], tolerance));
    }
    const kernels::Absorbed& lost = absorbed[static_cast<std::size_t>(row)];
    CHECK(near(lost.softmax, expected.softmax, tolerance * all));
    CHECK(near(lost.constant, expected.constant, tolerance * all));
    CHECK(near(lost.dead, expected.dead, tolerance * all));
  }
  CHECK(x.intact() && out.intact() && results.intact());
  Fenced<T> other(kRows, of.size(), 2);
  job.results = {other.view()};
  job.absorbed = again.data();
  layer.relevance(job, {3});
  bool equal = true;
  for (Index row = 0; row < kRows; ++row) {
    equal = equal && std::equal(other.row(row), other.row(row) + of.size(), results.row(row));
  }
  CHECK(equal);
}

TEST(attention) {
  for (const Layout& of : {Layout{2, 2, 1, 1, 1}, Layout{4, 5, 7, 3, 2}, Layout{2, 64, 64, 32, 32},
                           Layout{4, 131, 70, 9, 33}, Layout{2, 65, 300, 17, 8, 1.5}}) {
    check::context = std::to_string(of.queries) + " queries, " + std::to_string(of.keys) + " keys";
    check_attention<float>(of);
    check_attention<double>(of);
  }
}

}  // namespace
}  // namespace pylrp
