#include "layers/sparse.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.hpp"
#include "base/pieces.hpp"
#include "layers/registry.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

Index counted_by_32_bits(Index size) {
  require_fit(size >= 0 && size < std::numeric_limits<std::int32_t>::max(), "a table and 32 bits");
  return size;
}

}  // namespace

template <class T>
SparseLayer<T>::SparseLayer(Index inputs, Index outputs, Index taps, const std::int32_t* index, const T* weight,
                            std::vector<T> fill)
    : inputs_(counted_by_32_bits(inputs)),
      outputs_(outputs),
      taps_(taps),
      index_(index, index + counted_by_32_bits(checked_product({outputs, taps}, "a table"))),
      fill_(std::move(fill)),
      begin_(static_cast<std::size_t>(inputs + 1)) {
  if (weight != nullptr) {
    weight_.assign(weight, weight + outputs * taps);
  }
  require_fit(fill_.size() == 1 || static_cast<Index>(fill_.size()) == outputs_, "constants and outputs");
  require_fit(std::all_of(index_.begin(), index_.end(), [&](std::int32_t i) { return i >= -1 && i < inputs_; }),
              "the entries of a table and its input");
  for (const std::int32_t i : index_) {
    if (i >= 0) {
      ++begin_[static_cast<std::size_t>(i) + 1];
    }
  }
  for (std::size_t i = 1; i < begin_.size(); ++i) {
    begin_[i] += begin_[i - 1];
  }
  reader_.resize(static_cast<std::size_t>(begin_.back()));
  std::vector<std::int32_t> next(begin_.begin(), begin_.end() - 1);
  for (std::size_t entry = 0; entry < index_.size(); ++entry) {
    if (index_[entry] >= 0) {
      reader_[static_cast<std::size_t>(next[static_cast<std::size_t>(index_[entry])]++)] =
          static_cast<std::int32_t>(entry);
    }
  }
}

template <class T>
void SparseLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_fit(inputs.size() == 1 && inputs[0] == inputs_ && output == outputs_, "a table and the values beside it");
}

template <class T>
T SparseLayer<T>::sum(const T* x, Index output) const {
  const std::size_t first = static_cast<std::size_t>(output * taps_);
  if (weight_.empty()) {
    return index_[first] < 0 ? fill(output) : x[index_[first]];
  }
  T total = 0;
  for (std::size_t t = first; t < first + static_cast<std::size_t>(taps_); ++t) {
    total += weight_[t] * (index_[t] < 0 ? fill(output) : x[index_[t]]);
  }
  return total;
}

template <class T>
void SparseLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  each_piece(output.rows, outputs_, threads, [&](Index, Index row, Index begin, Index columns) {
    const T* const x = inputs[0].row(row);
    T* const out = output.row(row);
    for (Index j = begin; j < begin + columns; ++j) {
      out[j] = sum(x, j);
    }
  });
}

// What constants take where c arrives.
template <class T>
void SparseLayer<T>::lose_constants(const RelevanceJob<T>& job) const {
  if (reader_.size() == index_.size()) {
    return;
  }
  for (Index row = 0; row < job.relevance.rows; ++row) {
    for (std::size_t entry = 0; entry < index_.size(); ++entry) {
      if (index_[entry] < 0) {
        const Index output = static_cast<Index>(entry) / taps_;
        const T constant = weight_.empty() ? fill(output) : weight_[entry] * fill(output);
        job.absorbed[row].padding += static_cast<double>(constant * job.relevance.row(row)[output]);
      }
    }
  }
}

template <class T>
void SparseLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  Matrix<const T> shares = job.relevance;
  Buffer<T> memory;
  if (job.coefficients) {
    lose_constants(job);
  } else if (!weight_.empty()) {
    const Stabilizer<T> stabilizer(job.rule);
    memory.reset(shares.rows * outputs_);
    parallel_for(shares.rows, threads, [&](Index row) {
      const T* const x = job.inputs[0].row(row % job.batch);
      for (Index j = 0; j < outputs_; ++j) {
        const T share = stabilizer.share(job.relevance.row(row)[j], sum(x, j), &job.absorbed[row]);
        memory.data()[row * outputs_ + j] = share;
        for (std::size_t t = static_cast<std::size_t>(j * taps_); t < static_cast<std::size_t>((j + 1) * taps_); ++t) {
          job.absorbed[row].padding += index_[t] < 0 ? static_cast<double>(fill(j) * weight_[t] * share) : 0;
        }
      }
    });
    shares = {memory.data(), shares.rows, outputs_, outputs_};
  } else if (reader_.size() < index_.size()) {
    for (Index row = 0; row < shares.rows; ++row) {
      for (Index j = 0; j < outputs_; ++j) {
        job.absorbed[row].padding +=
            index_[static_cast<std::size_t>(j)] < 0 ? static_cast<double>(shares.row(row)[j]) : 0;
      }
    }
  }
  each_piece(shares.rows, inputs_, threads, [&](Index, Index row, Index begin, Index columns) {
    const T* const s = shares.row(row);
    for (Index i = begin; i < begin + columns; ++i) {
      T total = 0;
      for (std::int32_t e = begin_[static_cast<std::size_t>(i)]; e < begin_[static_cast<std::size_t>(i) + 1]; ++e) {
        const std::int32_t entry = reader_[static_cast<std::size_t>(e)];
        total += weight_.empty() ? s[entry] : weight_[static_cast<std::size_t>(entry)] * s[entry / taps_];
      }
      const bool times_input = !weight_.empty() && !job.coefficients;
      job.results[0].row(row)[i] = times_input ? total * job.inputs[0].row(row % job.batch)[i] : total;
    }
  });
}

template class SparseLayer<float>;
template class SparseLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const Matrix<const std::int32_t> index = fields.table("index");  // (outputs, taps)
  Matrix<const T> weights;
  if (fields.has("weight")) {
    weights = fields.matrix("weight");
    if (weights.rows != index.rows || weights.cols != index.cols || weights.stride != index.cols) {
      throw Error("weights and index differ in shape");
    }
  } else if (index.cols != 1) {
    throw Error("without weights an output has one input");
  }
  const std::vector<double> given = fields.reals("fill");
  if (given.size() != 1 && static_cast<Index>(given.size()) != index.rows) {
    throw Error("fill has neither one constant nor one for each output");
  }
  std::vector<T> fill(given.size());
  std::transform(given.begin(), given.end(), fill.begin(), [](double v) { return static_cast<T>(v); });
  return std::make_unique<SparseLayer<T>>(fields.integer("inputs"), index.rows, index.cols, index.data, weights.data,
                                          std::move(fill));
}

}  // namespace

void register_sparse(LayerKinds* kinds) { kinds->add("sparse", make<float>, make<double>); }

}  // namespace pylrp
