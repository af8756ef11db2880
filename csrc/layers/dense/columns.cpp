// Weights by columns. Three ways, chosen by the data alone:
//   few outputs with relevance   their rows are gathered, a small layer by rows
//   few samples                  two passes over the columns that matter: z = sum_i rho(w_i) a_i, then R_i = w_i . s
//   many samples                 the weights are turned once, then products
#include "layers/dense/columns.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <type_traits>
#include <utility>

#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

constexpr Index kBlock = 8;          // columns at a time, in cache for all products with them
constexpr Index kTile = 32;          // of the transposition
constexpr Index kLineOfWeights = 8;  // where fewer rows than one in so many have relevance, they are gathered

// rows(m, n) from columns(n, m); picked: which of the m, or null for all.
template <class T>
void turn(Matrix<const T> columns, const Index* picked, Matrix<T> rows, const Threads& threads) {
  const Index strips = (rows.rows + kTile - 1) / kTile;
  parallel_for(strips, threads.alone_if(rows.rows * rows.cols < kMinWeightsForThreads), [&](Index strip) {
    const Index first = strip * kTile, last = std::min(rows.rows, first + kTile);
    for (Index begin = 0; begin < rows.cols; begin += kTile) {
      const Index end = std::min(rows.cols, begin + kTile);
      for (Index j = first; j < last; ++j) {
        T* const to = rows.row(j);
        const T* const from = columns.data + (picked ? picked[j] : j);
        for (Index i = begin; i < end; ++i) {
          to[i] = from[i * columns.stride];
        }
      }
    }
  });
}

template <class T>
Matrix<T> matrix_of(const Buffer<T>& buffer, Index rows, Index cols) {
  return {buffer.data(), rows, cols, cols};
}
template <class T>
void by_turning(const DenseJob<T>& job, Matrix<const T> columns, const Threads& threads) {
  const Buffer<T> memory(columns.rows * columns.cols);
  const Matrix<T> rows = matrix_of(memory, columns.cols, columns.rows);
  turn<T>(columns, nullptr, rows, threads);
  DenseJob<T> turned = job;
  turned.layer.weight = read_only(rows);
  dense_relevance(turned, threads);
}

// The layer of those outputs alone that have relevance in any sample.
template <class T>
void by_gathering(const DenseJob<T>& job, Matrix<const T> columns, const std::vector<Index>& active,
                  const Threads& threads) {
  const Index count = static_cast<Index>(active.size()), batch = job.relevance.rows;
  const Buffer<T> memory(count * columns.rows), bias(count), relevance(batch * count), output(batch * count);
  const Matrix<T> rows = matrix_of(memory, count, columns.rows);
  turn<T>(columns, active.data(), rows, threads);
  const auto pick = [&](const T* from, T* to) {
    std::transform(active.begin(), active.end(), to, [&](Index j) { return from[j]; });
  };
  DenseJob<T> small = job;
  small.layer.weight = read_only(rows);
  if (job.layer.bias != nullptr) {
    pick(job.layer.bias, bias.data());
    small.layer.bias = bias.data();
  }
  for (Index i = 0; i < batch; ++i) {
    pick(job.relevance.row(i), relevance.data() + i * count);
    if (job.output) {
      pick(job.output.row(i), output.data() + i * count);
    }
  }
  small.relevance = read_only(matrix_of(relevance, batch, count));
  if (job.output) {
    small.output = read_only(matrix_of(output, batch, count));
  }
  small.constants = nullptr;
  dense_relevance(small, threads);
}

// What the kernels' scan says of the columns that at(i) names, i in [0, count).
template <class T, class At>
int scan_columns(Matrix<const T> columns, Index count, At at, const Threads& threads) {
  constexpr Index kPiece = 256;
  std::vector<int> found(static_cast<std::size_t>((count + kPiece - 1) / kPiece));
  parallel_for(Index(found.size()), threads.alone_if(count * columns.cols < kMinWeightsForThreads), [&](Index piece) {
    int flags = 0;
    for (Index i = piece * kPiece; i < std::min(count, (piece + 1) * kPiece); ++i) {
      flags |= kernels::table<T>().scan(columns.cols, columns.row(at(i)));
    }
    found[static_cast<std::size_t>(piece)] = flags;
  });
  return std::accumulate(found.begin(), found.end(), 0, std::bit_or<int>());
}

template <class T>
class ColumnPass {
 public:
  ColumnPass(const DenseJob<T>& job, Matrix<const T> columns, const Threads& threads, int* flags)
      : job_(job),
        flags_(flags),
        rule_(*job.rule),
        columns_(columns),
        threads_(threads.alone_if(columns.rows * columns.cols < kMinWeightsForThreads)),
        kernel_(kernels::table<T>()),
        samples_(job.relevance.rows),
        sums_(Index(rule_.sums.size())),
        groups_(Index(rule_.groups.size())),
        backs_(Index(rule_.back.size())) {
    find_columns();
  }

  void run() {
    const Index n_out = columns_.cols, size = (sums_ * samples_ + groups_) * n_out;
    Buffer<T> sums(std::max<Index>(size, 1) * chunks());
    forward(sums.data(), size);
    Buffer<T> shares(std::max<Index>(groups_ * samples_ * n_out, 1));
    make_shares(sums.data(), shares.data());
    backward(shares.data());
  }

 private:
  Index chunks() const {
    return std::clamp<Index>(Index(reading_.size()) * columns_.cols / kMinWeightsOfChunk, 1, kMaxChunks);
  }

  // Columns whose weights take part: all, or those whose input is not 0 in every sample.
  void find_columns() {
    const bool constants = std::any_of(rule_.groups.begin(), rule_.groups.end(),
                                       [](const Denominator& group) { return !group.constants.empty(); });
    const bool only_lit = rule_.vanishes_with_input() && !constants;
    for (Index i = 0; i < columns_.rows; ++i) {
      bool lit = !only_lit;
      for (Index k = 0; k < samples_ && !lit; ++k) {
        lit = job_.input.row(k)[i] != 0;
      }
      (lit ? reading_ : skipped_).push_back(i);
    }
  }

  // The part of an input: +1 positive, -1 negative, 0 all of it.
  static T part_of(int sign, T a) { return sign > 0 ? (a < 0 ? T(0) : a) : (sign < 0 ? (a > 0 ? T(0) : a) : a); }

  template <class Body>
  void blocks(Index chunk, Index count, Body body) const {
    const Index total = Index(reading_.size());
    Buffer<T> rounded;
    if (std::is_same_v<T, float> && threads_.bfloat16) {
      rounded.reset(kBlock * columns_.cols);
    }
    const Index end = total * (chunk + 1) / count;
    for (Index first = total * chunk / count; first < end; first += kBlock) {
      const T* rows[kBlock];
      const Index n = std::min(kBlock, end - first);
      for (Index r = 0; r < n; ++r) {
        rows[r] = columns_.row(reading_[static_cast<std::size_t>(first + r)]);
      }
      for (Index r = 0; rounded.data() != nullptr && r < n; ++r) {
        if constexpr (std::is_same_v<T, float>) {
          T* const row = rounded.data() + r * columns_.cols;
          kernels::bfloat16_table().round(columns_.cols, rows[r], row);
          rows[r] = row;
        }
      }
      body(&reading_[static_cast<std::size_t>(first)], rows, n);
    }
  }

  // sums(chunks, [sum, sample] then [group], n_out): products, then constant terms; chunk 0 gets the total.
  void forward(T* sums, Index size) const {
    const Index n_out = columns_.cols, count = chunks();
    std::vector<int> found(static_cast<std::size_t>(count));
    parallel_for(count, threads_, [&](Index chunk) {
      T* const mine = sums + chunk * size;
      std::fill_n(mine, size, T(0));
      blocks(chunk, count, [&](const Index* index, const T* const* rows, Index n) {
        T factor[kBlock];
        bool cold = true;
        for (Index q = 0; q < sums_; ++q) {
          for (const ProductTerm& tap : rule_.sums[static_cast<std::size_t>(q)]) {
            const int sign = sign_of(tap.part);
            for (Index k = 0; k < samples_; ++k) {
              for (Index r = 0; r < n; ++r) {
                factor[r] = part_of(sign, job_.input.row(k)[index[r]]);
              }
              kernel_.rows.axpy(static_cast<int>(n), rows, n_out, weights_of<T>(tap.map), factor,
                                mine + (q * samples_ + k) * n_out, std::exchange(cold, false));
            }
          }
        }
        for (Index g = 0; g < groups_; ++g) {
          for (const Term& term : rule_.groups[static_cast<std::size_t>(g)].constants) {
            const T* const from = constant_input(term.part, job_.bounds);
            for (Index r = 0; r < n; ++r) {
              factor[r] = static_cast<T>(term.sign) * (from ? from[index[r]] : T(1));
            }
            kernel_.rows.axpy(static_cast<int>(n), rows, n_out, weights_of<T>(term.map), factor,
                              mine + (sums_ * samples_ + g) * n_out, std::exchange(cold, false));
          }
        }
        for (Index r = 0; flags_ && r < n; ++r) {  // in cache now
          found[static_cast<std::size_t>(chunk)] |= kernel_.scan(n_out, columns_.row(index[r]));
        }
      });
    });
    if (flags_) {
      *flags_ = std::accumulate(found.begin(), found.end(), 0, std::bit_or<int>()) |
                scan_columns(
                    columns_, Index(skipped_.size()), [&](Index i) { return skipped_[static_cast<std::size_t>(i)]; },
                    threads_);
    }
    for (Index chunk = 1; chunk < count; ++chunk) {
      std::transform(sums, sums + size, sums + chunk * size, sums, [](T a, T b) { return a + b; });
    }
  }

  // shares(group, sample, n_out)
  void make_shares(T* sums, T* shares) const {
    const Index n_out = columns_.cols;
    const GroupConstants<T> made = prepare_biases(job_.layer.bias, n_out, rule_);
    const T* base[kernels::kMaxGroups] = {};
    const T* bias[kernels::kMaxGroups] = {};
    for (Index g = 0; g < groups_; ++g) {
      const std::size_t at = static_cast<std::size_t>(g);
      bias[g] = made.groups[at].bias.data();
      base[g] = bias[g];
      if (!rule_.groups[at].constants.empty()) {
        T* const whole = sums + (sums_ * samples_ + g) * n_out;
        for (Index j = 0; bias[g] != nullptr && j < n_out; ++j) {
          whole[j] += bias[g][j];
        }
        base[g] = whole;
      }
    }
    const kernels::Shares<T> plan = shares_of<T>(rule_, base, bias, job_.layer.bias);
    for (Index k = 0; k < samples_; ++k) {
      const T* z[kernels::kMaxSums] = {};
      T* s[kernels::kMaxGroups] = {};
      for (Index q = 0; q < sums_; ++q) {
        z[q] = sums + (q * samples_ + k) * n_out;
      }
      for (Index g = 0; g < groups_; ++g) {
        s[g] = shares + (g * samples_ + k) * n_out;
      }
      kernel_.shares({.rows = 1,
                      .cols = n_out,
                      .rule = plan,
                      .z = z,
                      .z_stride = n_out,
                      .r = job_.relevance.row(k),
                      .r_stride = n_out,
                      .s = s,
                      .s_stride = n_out,
                      .ledger = job_.absorbed ? job_.absorbed + k : nullptr,
                      .ledger_step = 1});
    }
  }

  void backward(const T* shares) const {
    const Index n_out = columns_.cols, n_in = columns_.rows, count = chunks();
    const Buffer<T> memory(std::max<Index>(backs_ * samples_ * n_in, 1));
    T* const acc = memory.data();  // (back, sample, n_in)
    std::fill_n(acc, backs_ * samples_ * n_in, T(0));
    parallel_for(count, threads_, [&](Index chunk) {
      blocks(chunk, count, [&](const Index* index, const T* const* rows, Index n) {
        for (Index b = 0; b < backs_; ++b) {
          const BackProduct& back = rule_.back[static_cast<std::size_t>(b)];
          for (Index k = 0; k < samples_; ++k) {
            T dot[kBlock] = {};
            kernel_.rows.dot(static_cast<int>(n), rows, n_out, weights_of<T>(back.map),
                             shares + (back.group * samples_ + k) * n_out, dot, b + k == 0);
            for (Index r = 0; r < n; ++r) {
              acc[(b * samples_ + k) * n_in + index[r]] = dot[r];
            }
          }
        }
      });
    });
    kernels::Mixed<T> mixed = mixed_of<T>(rule_);
    for (Index k = 0; k < samples_; ++k) {
      for (Index b = 0; b < backs_; ++b) {
        mixed.acc[b] = acc + (b * samples_ + k) * n_in;
      }
      kernel_.accumulate({.rows = 1,
                          .cols = n_in,
                          .mixed = mixed,
                          .acc_stride = 0,
                          .a = job_.input ? job_.input.row(k) : nullptr,
                          .a_stride = 0,
                          .low = job_.bounds.low,
                          .high = job_.bounds.high,
                          .bound_stride = 0,
                          .add = false,
                          .out = job_.result.row(k),
                          .out_stride = 0});
    }
  }

  const DenseJob<T>& job_;
  int* const flags_;
  const LoweredRule& rule_;
  Matrix<const T> columns_;
  Threads threads_;
  const kernels::Table<T>& kernel_;
  Index samples_, sums_, groups_, backs_;
  std::vector<Index> reading_, skipped_;
};

// Outputs that have relevance in any sample, unless they are too many to be gathered.
template <class T>
bool few_active(Matrix<const T> relevance, std::vector<Index>* active) {
  const std::size_t most = static_cast<std::size_t>(relevance.cols / kLineOfWeights);
  for (Index j = 0; j < relevance.cols; ++j) {
    for (Index i = 0; i < relevance.rows; ++i) {
      if (relevance.row(i)[j] != 0) {
        active->push_back(j);
        break;
      }
    }
    if (active->size() > most) {
      return false;
    }
  }
  return true;
}

}  // namespace

template <class T>
void dense_relevance_by_columns(const DenseJob<T>& job, Matrix<const T> columns, const Threads& threads, int* flags) {
  std::vector<Index> active;
  const bool gather = few_active(job.relevance, &active);
  if (!gather && job.relevance.rows <= few_samples(job.layer.weight)) {
    ColumnPass<T>(job, columns, threads, flags).run();
    return;
  }
  if (flags) {
    *flags = scan_columns(columns, columns.rows, [](Index i) { return i; }, threads);
  }
  if (gather) {
    by_gathering(job, columns, active, threads);
  } else {
    by_turning(job, columns, threads);
  }
}

template void dense_relevance_by_columns<float>(const DenseJob<float>&, Matrix<const float>, const Threads&, int*);
template void dense_relevance_by_columns<double>(const DenseJob<double>&, Matrix<const double>, const Threads&, int*);

}  // namespace pylrp
