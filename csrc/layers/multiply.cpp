// Products and quotients of two values, element by element; sizes of 1 are repeated as in NumPy.
//
// Relevance of a product goes to the signal alone (the gate counts as a constant), or a half to each factor; that of a
// quotient to the numerator. R_u of a factor that was repeated is the sum over its copies. Nothing is read of the
// forward pass, and nothing gets lost.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "base/buffer.hpp"
#include "base/pieces.hpp"
#include "base/size.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// How two operands lie in the output: its axes, the last one contiguous, and what a step along each is in an operand, 0
// where that is repeated. Neighbouring axes of which the same holds are one.
class Broadcast {
 public:
  // Throws Error where the steps are not those of an array in order, with repetitions: nothing else is read.
  Broadcast(std::vector<Index> shape, const std::vector<Index>& u, const std::vector<Index>& v);

  Index size() const { return size_; }
  Index size(std::size_t k) const { return sizes_[k]; }
  bool whole(std::size_t k) const { return whole_[k]; }
  Index inner() const { return shape_.back(); }
  Index stretches() const { return size_ / inner(); }
  Index step(std::size_t k) const { return strides_[k].back(); }
  // Where an operand's entries of a stretch of the output begin.
  Index offset(std::size_t k, Index stretch) const {
    Index at = 0;
    for (std::size_t axis = shape_.size() - 1; axis-- > 0;) {
      at += stretch % shape_[axis] * strides_[k][axis];
      stretch /= shape_[axis];
    }
    return at;
  }

 private:
  std::vector<Index> shape_;
  std::array<std::vector<Index>, 2> strides_;
  Index size_ = 1;
  std::array<Index, 2> sizes_{1, 1};
  std::array<bool, 2> whole_{true, true};
};

Broadcast::Broadcast(std::vector<Index> shape, const std::vector<Index>& u, const std::vector<Index>& v)
    : shape_(std::move(shape)), strides_{u, v} {
  require_fit(!shape_.empty() && u.size() == shape_.size() && v.size() == shape_.size(), "the axes of a product");
  for (std::size_t axis = shape_.size(); axis-- > 0;) {
    require_fit(shape_[axis] > 0, "the axes of a product");
    size_ = checked_product({size_, shape_[axis]}, "a product of two values");
    for (std::size_t k = 0; k < 2; ++k) {
      const Index stride = strides_[k][axis];
      require_fit(stride == 0 || stride == sizes_[k], "a factor and the product");
      sizes_[k] *= stride == 0 ? 1 : shape_[axis];
      whole_[k] = whole_[k] && stride != 0;
    }
  }
}

template <class T>
class MultiplyLayer : public Layer<T> {
 public:
  MultiplyLayer(const Broadcast& broadcast, Index signal, bool divides)
      : broadcast_(broadcast), signal_(static_cast<std::size_t>(signal)), divides_(divides) {}

  Flow flow() const override { return Flow::kRouted; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == 2 && inputs[0] == broadcast_.size(0) && inputs[1] == broadcast_.size(1) &&
                    output == broadcast_.size(),
                "the factors and their product");
  }
  bool in_place() const override { return broadcast_.whole(0); }
  bool keeps_nonnegative() const override { return true; }
  bool reads_inputs(const CompiledRule*) const override { return false; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return is_gradient(rule) ? Coefficients::kNever : Coefficients::kAlong;
  }
  bool hands_to(std::size_t input, const CompiledRule* rule) const override { return share(input, rule) != 0; }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  // What part of the relevance an operand gets.
  T share(std::size_t input, const CompiledRule* rule) const {
    const Treatment treatment = treatment_of(rule);
    if (treatment == Treatment::kHalf) {
      return T(0.5);
    }
    if (treatment == Treatment::kGradient) {
      return T(1);
    }
    const std::size_t signal =
        treatment == Treatment::kValueLeft ? 0 : (treatment == Treatment::kValueRight ? 1 : signal_);
    return input == signal ? T(1) : T(0);
  }
  void coefficients_of(const RelevanceJob<T>& job, std::size_t k, T part, const Threads& threads) const;
  void stretch(const T* u, Index u_step, const T* v, Index v_step, Index count, T* out) const;
  // The relevance of an operand that is repeated, summed in float64 in the order of the output.
  void add_up(std::size_t k, T part, const T* r, T* out, Index size) const;

  Broadcast broadcast_;
  std::size_t signal_;
  bool divides_;
};

template <class T>
void MultiplyLayer<T>::stretch(const T* u, Index u_step, const T* v, Index v_step, Index count, T* out) const {
  const auto each = [&](auto at_u, auto at_v) {
    if (divides_) {
      for (Index j = 0; j < count; ++j) {
        out[j] = at_u(j) / at_v(j);
      }
    } else {
      for (Index j = 0; j < count; ++j) {
        out[j] = at_u(j) * at_v(j);
      }
    }
  };
  const T u_0 = u[0], v_0 = v[0];
  const auto u_each = [u](Index j) { return u[j]; };
  const auto u_one = [u_0](Index) { return u_0; };
  const auto v_each = [v](Index j) { return v[j]; };
  const auto v_one = [v_0](Index) { return v_0; };
  if (u_step != 0 && v_step != 0) {
    each(u_each, v_each);
  } else if (u_step != 0) {
    each(u_each, v_one);
  } else if (v_step != 0) {
    each(u_one, v_each);
  } else {
    each(u_one, v_one);
  }
}

template <class T>
void MultiplyLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                               const Threads& threads) const {
  const Index inner = broadcast_.inner(), pieces = pieces_of(inner), stretches = broadcast_.stretches();
  const Index together = std::max<Index>(1, kPiece / inner);  // stretches of a task, where they are short
  const Index tasks = (stretches + together - 1) / together;
  const Index u_step = broadcast_.step(0), v_step = broadcast_.step(1);
  parallel_for(output.rows * tasks * pieces, threads.alone_if(output.rows * output.cols < 2 * kPiece), [&](Index task) {
    const Index first = task % pieces * kPiece, count = std::min(kPiece, inner - first);
    const Index row = task / pieces / tasks, begin = task / pieces % tasks * together;
    for (Index s = begin; s < std::min(stretches, begin + together); ++s) {
      stretch(inputs[0].row(row) + broadcast_.offset(0, s) + first * u_step, u_step,
              inputs[1].row(row) + broadcast_.offset(1, s) + first * v_step, v_step, count,
              output.row(row) + s * inner + first);
    }
  });
}

template <class T>
void MultiplyLayer<T>::add_up(std::size_t k, T part, const T* r, T* out, Index size) const {
  const Buffer<double> memory(size);
  double* const sums = memory.data();
  std::fill_n(sums, size, 0.0);
  const Index inner = broadcast_.inner();
  for (Index s = 0; s < broadcast_.stretches(); ++s, r += inner) {
    double* const to = sums + broadcast_.offset(k, s);
    if (broadcast_.step(k) != 0) {
      for (Index j = 0; j < inner; ++j) {
        to[j] += static_cast<double>(r[j]);
      }
    } else {
      double sum = 0;
      for (Index j = 0; j < inner; ++j) {
        sum += static_cast<double>(r[j]);
      }
      *to += sum;
    }
  }
  std::transform(sums, sums + size, out, [part](double sum) { return static_cast<T>(sum) * part; });
}

// c_u = part c v, or part c / v: that of each copy, summed where u was repeated.
template <class T>
void MultiplyLayer<T>::coefficients_of(const RelevanceJob<T>& job, std::size_t k, T part,
                                       const Threads& threads) const {
  const Matrix<const T> other = job.inputs[1 - k];
  const Index inner = broadcast_.inner(), step = broadcast_.step(1 - k);
  parallel_for(job.relevance.rows, threads.alone_if(job.relevance.rows * job.relevance.cols < 2 * kPiece),
               [&](Index row) {
                 const Buffer<T> memory(broadcast_.whole(k) ? 0 : broadcast_.size());
                 T* const made = broadcast_.whole(k) ? job.results[k].row(row) : memory.data();
                 for (Index s = 0; s < broadcast_.stretches(); ++s) {
                   stretch(job.relevance.row(row) + s * inner, 1,
                           other.row(row % job.batch) + broadcast_.offset(1 - k, s), step, inner, made + s * inner);
                 }
                 if (broadcast_.whole(k)) {
                   std::transform(made, made + broadcast_.size(), made, [part](T v) { return v * part; });
                 } else {
                   add_up(k, part, made, job.results[k].row(row), job.results[k].cols);
                 }
               });
}

template <class T>
void MultiplyLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Matrix<const T> r = job.relevance;
  for (std::size_t k = 0; k < 2; ++k) {
    const T part = share(k, job.rule);
    const Matrix<T> result = job.results[k];
    if (!result || part == 0) {
      continue;
    }
    if (job.coefficients) {
      coefficients_of(job, k, part, threads);
      continue;
    }
    if (broadcast_.whole(k)) {
      each_piece(r.rows, r.cols, threads, [&](Index, Index row, Index first, Index count) {
        const T* const from = r.row(row) + first;
        std::transform(from, from + count, result.row(row) + first, [part](T v) { return v * part; });
      });
    } else {
      parallel_for(r.rows, threads.alone_if(r.rows * r.cols < 2 * kPiece),
                   [&](Index row) { add_up(k, part, r.row(row), result.row(row), result.cols); });
    }
  }
  if (is_gradient(job.rule)) {
    for (Index row = 0; row < r.rows; ++row) {  // each factor has got all of it
      job.absorbed[row].constant -= std::accumulate(r.row(row), r.row(row) + r.cols, 0.0,
                                                    [](double sum, T v) { return sum + static_cast<double>(v); });
    }
  }
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string& kind, const Fields<T>& fields) {
  const Index signal = fields.integer("signal");
  require_fit(signal == 0 || signal == 1, "the signal of a product");
  const Broadcast broadcast(fields.integers("shape"), fields.integers("strides", {0}), fields.integers("strides", {1}));
  return std::make_unique<MultiplyLayer<T>>(broadcast, signal, kind == "divide");
}

}  // namespace

void register_multiply(LayerKinds* kinds) {
  kinds->add("multiply", make<float>, make<double>);
  kinds->add("divide", make<float>, make<double>);
}

}  // namespace pylrp
