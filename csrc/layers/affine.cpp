#include "layers/affine.hpp"

#include <algorithm>

#include "base/pieces.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {

template <class T>
void AffineLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  if (are_inputs_) {
    require_fit(inputs.size() == 3 && inputs[0] == output && inputs[1] == output && inputs[2] == output,
                "a value, its scale and its shift");
    return;
  }
  require_pixels(inputs, output, static_cast<Index>(scale_.size()), "a scale and its input");
  require_fit(scale_.size() == shift_.size(), "a scale and its shift");
}

template <class T>
AffineLayer<T>::AffineLayer(std::vector<T> scale, std::vector<T> shift)
    : scale_(std::move(scale)),
      shift_(std::move(shift)),
      only_scales_(std::all_of(shift_.begin(), shift_.end(), [](T t) { return t == 0; })),
      only_adds_(std::all_of(scale_.begin(), scale_.end(), [](T t) { return t == 1; })) {}

template <class T>
void AffineLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  each_piece(output.rows, output.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const x = inputs[0].row(row);
    const T *const factor = scale(inputs, row), *const added = shift(inputs, row);
    T* const out = output.row(row);
    const std::size_t size = period(output.cols);
    std::size_t c = static_cast<std::size_t>(first) % size;
    for (Index j = first; j < first + count; ++j) {
      out[j] = factor[c] * x[j] + added[c];
      c = c + 1 == size ? 0 : c + 1;
    }
  });
}

template <class T>
void AffineLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Stabilizer<T> stabilizer(job.rule);
  const Index pieces = pieces_of(job.relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  each_piece(job.relevance.rows, job.relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const r = job.relevance.row(row);
    T* const out = job.results[0].row(row);
    if (only_scales_ && !job.coefficients) {
      std::copy_n(r + first, count, out + first);
      return;
    }
    kernels::Absorbed& page = lost[static_cast<std::size_t>(task)];
    double& of_shift = only_adds_ ? page.constant : page.batchnorm;
    const T* const x = job.inputs[0].row(row % job.batch);
    const T *const factor = scale(job.inputs, row % job.batch), *const added = shift(job.inputs, row % job.batch);
    const std::size_t size = period(job.relevance.cols);
    std::size_t c = static_cast<std::size_t>(first) % size;
    for (Index j = first; job.coefficients && j < first + count; ++j) {
      out[j] = factor[c] * r[j];
      of_shift += static_cast<double>(added[c] * r[j]);
      c = c + 1 == size ? 0 : c + 1;
    }
    if (job.coefficients) {
      return;
    }
    for (Index j = first; j < first + count; ++j) {
      const T part = factor[c] * x[j], q = stabilizer.share(r[j], part + added[c], &page);
      out[j] = part * q;
      of_shift += static_cast<double>(added[c] * q);
      c = c + 1 == size ? 0 : c + 1;
    }
  });
  add_absorbed(lost, pieces, job.absorbed);
}

template class AffineLayer<float>;
template class AffineLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  if (fields.has("only_scales")) {
    return std::make_unique<AffineLayer<T>>(fields.flag("only_scales"), fields.flag("only_adds"));
  }
  return std::make_unique<AffineLayer<T>>(fields.vector("scale"), fields.vector("shift"));
}

}  // namespace

void register_affine(LayerKinds* kinds) { kinds->add("affine", make<float>, make<double>); }

}  // namespace pylrp
