// Alpha-beta with inputs of both signs in a fused 1x1: the contributions above and below zero by four products instead
// of eight, out of W a and |W| |a| (lower.hpp, by_magnitude). Where that cancels, an entry takes no part in these
// products and its contributions are computed one by one; a block where too many entries cancel takes the usual eight
// products.
#include <algorithm>
#include <mutex>

#include "kernels/dispatch.hpp"
#include "layers/conv/fused_1x1.hpp"
#include "rules/cancelled.hpp"

namespace pylrp {
namespace {

template <class T>
class ByMagnitude : public FusedShortcut<T> {
 public:
  ByMagnitude(const ConvCall<T>& call, const FusedProducts<T>& usual)
      : call_(call),
        usual_(usual),
        products_(call.weights, *call.form.by_magnitude, false, call.threads),
        in_(call.weights.source_channels()),
        out_(call.weights.target_channels()) {
    products_.panels.pack(call.threads);
  }

  bool run(Index sample, Index first, Index rows, kernels::Absorbed* lost) override {
    FusedBlock<T> block(call_, products_, sample, first, rows);
    block.compute_sums();
    std::vector<Index> cancelled;
    if (!find_cancelled(block, &cancelled)) {
      std::call_once(usual_packed_, [&] {
        count_run(ConvPath::kSignsCancelled);
        usual_.panels.pack({1, nullptr, call_.threads.workspace});
      });
      return false;
    }
    for (Index t = 0; t < call_.job.targets(); ++t) {
      const T* const relevance = block.relevance(t);
      if (cancelled.empty()) {
        block.compute_shares(relevance, lost + t);
        block.send_back(t, {});
        continue;
      }
      Buffer<T> others(rows * out_);
      std::copy_n(relevance, rows * out_, others.data());
      for (const Index entry : cancelled) {
        others.data()[entry] = T(0);
      }
      block.compute_shares(others.data(), lost + t);
      const Buffer<T> corrections(2 * rows * products_.in_stride);
      correct(&block, cancelled, relevance, corrections.data(), lost + t);
      kernels::Mixed<T> mixed;
      mixed.count = 2;
      mixed.acc[0] = corrections.data();
      mixed.acc[1] = corrections.data() + rows * products_.in_stride;
      mixed.mix[0] = mixed.mix[1] = {};
      mixed.mix[0].positive = 1;
      mixed.mix[1].negative = 1;
      block.send_back(t, mixed);
    }
    return true;
  }

 private:
  // Entries (row * out + column) where one sum is a small part of the other; false: too many.
  bool find_cancelled(const FusedBlock<T>& block, std::vector<Index>* cancelled) const {
    cancelled->resize(static_cast<std::size_t>(block.rows() * out_ / 32 + 1));
    const Index most = static_cast<Index>(cancelled->size());
    const Index found = kernel_.cancelled(block.rows(), out_, block.sum(0), block.sum(1), products_.out_stride, most,
                                          cancelled->data());
    cancelled->resize(static_cast<std::size_t>(std::min(found, most)));
    return found <= most;
  }

  // What the cancelled entries send, by the usual sums: into what a+ and a- will be multiplied with, (2, rows, in).
  void correct(FusedBlock<T>* block, const std::vector<Index>& cancelled, const T* relevance, T* corrections,
               kernels::Absorbed* lost) const {
    const Index size = block->rows() * products_.in_stride;
    std::fill_n(corrections, 2 * size, T(0));
    for (const Index entry : cancelled) {
      const Index row = entry / out_, column = entry % out_;
      if (relevance[row * out_ + column] == 0) {
        continue;
      }
      const T* const weights = call_.weights.at(column, 0, 0);
      T sums[2] = {};
      for (std::size_t q = 0; q < 2; ++q) {
        for (const ProductTerm& tap : usual_.rule.sums[q]) {
          Index stride = 0;
          const T* const from = block->input_part(tap.part, &stride) + row * stride;
          kernel_.rows.dot(1, &weights, in_, weights_of<T>(tap.map), from, &sums[q], false);
        }
      }
      const T* const z[2] = {&sums[0], &sums[1]};
      T s[2] = {}, *to[2] = {&s[0], &s[1]};
      kernel_.shares({.rows = 1,
                      .cols = 1,
                      .rule = shares_at_column(usual_.constants.args, column),
                      .z = z,
                      .z_stride = 1,
                      .r = &relevance[row * out_ + column],
                      .r_stride = 1,
                      .s = to,
                      .s_stride = 1,
                      .ledger = lost,
                      .ledger_step = 0});
      // a+ w+ and a- w- are contributions above zero, the others below.
      const T one = 1;
      T* const of_positive = corrections + row * products_.in_stride;
      kernel_.rows.axpy(1, &weights, in_, {kernels::Read::kMixed, s[0], s[1]}, &one, of_positive, false);
      kernel_.rows.axpy(1, &weights, in_, {kernels::Read::kMixed, s[1], s[0]}, &one, of_positive + size, false);
    }
  }

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const ConvCall<T>& call_;
  const FusedProducts<T>& usual_;
  FusedProducts<T> products_;
  Index in_, out_;
  std::once_flag usual_packed_;
};

}  // namespace

template <class T>
std::unique_ptr<FusedShortcut<T>> signs_by_magnitude(const ConvCall<T>& call, const FusedProducts<T>& usual) {
  if (!call.form.by_magnitude || !has_terms_enough(*call.form.by_magnitude, call.weights.source_channels())) {
    return nullptr;
  }
  count_run(ConvPath::kSignsByMagnitude);
  return std::make_unique<ByMagnitude<T>>(call, usual);
}

template std::unique_ptr<FusedShortcut<float>> signs_by_magnitude(const ConvCall<float>&, const FusedProducts<float>&);
template std::unique_ptr<FusedShortcut<double>> signs_by_magnitude(const ConvCall<double>&,
                                                                   const FusedProducts<double>&);

}  // namespace pylrp
