// Axes in another order: a strided copy, and the copy back for relevance.
#include "base/permutation.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

template <class T>
class PermuteLayer : public Layer<T> {
 public:
  explicit PermuteLayer(Permutation permutation) : permutation_(std::move(permutation)) {}
  Flow flow() const override { return Flow::kRouted; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == 1 && inputs[0] == output && output == permutation_.size(),
                "a permutation and its input");
  }
  bool keeps_nonnegative() const override { return true; }
  bool reads_inputs(const CompiledRule*) const override { return false; }
  Coefficients coefficients(const CompiledRule*) const override { return Coefficients::kAlong; }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    permutation_.copy(inputs[0], output, threads);
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    permutation_.copy_back(job.relevance, job.results[0], threads);
  }

 private:
  Permutation permutation_;
};

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<PermuteLayer<T>>(Permutation(fields.integers("shape"), fields.integers("order")));
}

}  // namespace

void register_permute(LayerKinds* kinds) { kinds->add("permute", make<float>, make<double>); }

}  // namespace pylrp
