#include "layers/matmul.hpp"

#include <algorithm>
#include <utility>

#include "base/buffer.hpp"
#include "layers/registry.hpp"
#include "products/panels.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

// A matrix with rows of contiguous entries: as it lies, or a copy.
template <class T>
class Rows {
 public:
  Rows(const T* from, Index rows, Index cols, Index row_step, Index col_step) {
    if (col_step == 1) {
      view_ = {from, rows, cols, row_step};
      return;
    }
    copy_.reset(checked_product({rows, cols}, "a matrix"));
    T* const to = copy_.data();
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) {
        to[i * cols + j] = from[i * row_step + j * col_step];
      }
    }
    view_ = {to, rows, cols, cols};
  }
  const Matrix<const T>& view() const { return view_; }

 private:
  Matrix<const T> view_;
  Buffer<T> copy_;
};

// x W^T (kForward) or x W (kBackward), with rows that are a whole number of panels apart.
template <class T>
struct Product {
  Buffer<T> memory;
  Matrix<const T> view;

  Product(const Matrix<const T>& x, const Matrix<const T>& weight, Direction direction) {
    const Panels<T> panels(weight, WeightMap{}, direction, nullptr);
    const Index cols = panels.columns(), stride = padded(cols, Panels<T>::width());
    memory.reset(checked_product({x.rows, stride}, "a product"));
    view = {memory.data(), x.rows, cols, stride};
    if (x.cols == 0) {
      std::fill_n(memory.data(), x.rows * stride, T(0));
      return;
    }
    panels.make();
    for (Index p = 0; p < panels.count(); ++p) {
      panels.pack(p);
    }
    multiply_by_panels(x.data, x.stride, x.rows, panels, false, memory.data(), stride);
  }
};

Index reach(const std::vector<Index>& lengths, const Steps& steps, Index rows, Index cols) {
  Index last = (rows - 1) * steps.row + (cols - 1) * steps.col;
  for (std::size_t axis = 0; axis < lengths.size(); ++axis) {
    last += (lengths[axis] - 1) * steps.leading[axis];
  }
  return last;
}

}  // namespace

// A place along the leading axes, as offsets into the three samples; whether it is the first that an operand is read
// at.
template <class T>
struct MatMulLayer<T>::Place {
  Index a = 0, b = 0, c = 0;
  bool first_a = true, first_b = true;
};

template <class T>
MatMulLayer<T>::MatMulLayer(Products products) : of_(std::move(products)) {
  for (std::size_t axis = 0; axis < of_.leading.size(); ++axis) {
    const Index length = of_.leading[axis];
    const bool apart = length == 1 || (of_.a.leading[axis] != 0 && of_.b.leading[axis] != 0);
    (apart ? apart_ : shared_).push_back(axis);
    Index& count = apart ? places_ : repeats_;
    count = checked_product({count, length}, "the leading axes of a product");
  }
}

template <class T>
void MatMulLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  const Index places = checked_product({places_, repeats_}, "the leading axes of a product");
  const Index size = checked_product({places, of_.rows, of_.cols}, "a product of two values");
  checked_product({places, of_.rows, of_.depth}, "a factor");
  checked_product({places, of_.depth, of_.cols}, "a factor");
  const bool none = size == 0 || of_.depth == 0;
  for (const Steps* steps : {&of_.a, &of_.b, &of_.c}) {
    bool fit = steps->row >= 0 && steps->col >= 0 && steps->row <= kMostEntries && steps->col <= kMostEntries;
    for (const Index step : steps->leading) {
      fit = fit && step >= 0 && step <= kMostEntries;
    }
    require_fit(fit, "the steps of a product");
  }
  require_fit(inputs.size() == 2 && size == output && reach(of_.leading, of_.c, of_.rows, of_.cols) == output - 1 &&
                  (none || (reach(of_.leading, of_.a, of_.rows, of_.depth) < inputs[0] &&
                            reach(of_.leading, of_.b, of_.depth, of_.cols) < inputs[1])),
              "two values and their product");
}

template <class T>
Index MatMulLayer<T>::products() const {
  return bounded_product({places_, repeats_, of_.rows, of_.depth, of_.cols});
}

// Places are counted with those that share an operand fastest.
template <class T>
typename MatMulLayer<T>::Place MatMulLayer<T>::place_of(Index number) const {
  Place place;
  const auto go = [&](const std::vector<std::size_t>& axes) {
    for (std::size_t i = axes.size(); i-- > 0;) {
      const std::size_t axis = axes[i];
      const Index at = number % of_.leading[axis];
      number /= of_.leading[axis];
      place.a += at * of_.a.leading[axis];
      place.b += at * of_.b.leading[axis];
      place.c += at * of_.c.leading[axis];
      place.first_a = place.first_a && (at == 0 || of_.a.leading[axis] != 0);
      place.first_b = place.first_b && (at == 0 || of_.b.leading[axis] != 0);
    }
  };
  go(shared_);
  go(apart_);
  return place;
}

template <class T>
void MatMulLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                             const Threads& threads) const {
  const Index places = places_ * repeats_;
  const T scale = static_cast<T>(of_.scale);
  parallel_for(output.rows * places, threads.alone_if(output.rows * products() < kMinProductsForThreadsConv),
               [&](Index task) {
                 const Index row = task / places;
                 const Place place = place_of(task % places);
                 const Rows<T> a(inputs[0].row(row) + place.a, of_.rows, of_.depth, of_.a.row, of_.a.col);
                 const Rows<T> b(inputs[1].row(row) + place.b, of_.depth, of_.cols, of_.b.row, of_.b.col);
                 const Product<T> product(a.view(), b.view(), Direction::kBackward);
                 T* const c = output.row(row) + place.c;
                 for (Index i = 0; i < of_.rows; ++i) {
                   for (Index j = 0; j < of_.cols; ++j) {
                     c[i * of_.c.row + j * of_.c.col] = scale * product.view.row(i)[j];
                   }
                 }
               });
}

template <class T>
void MatMulLayer<T>::relevance_of_place(const RelevanceJob<T>& job, Index row, const Place& place,
                                        kernels::Absorbed* lost) const {
  const T factor = static_cast<T>(treatment_of(job.rule) == Treatment::kHalf ? of_.scale / 2 : of_.scale);
  const bool both = treatment_of(job.rule) == Treatment::kGradient;  // all of it to each factor
  const Index sample = row % job.batch;
  const T* const r = job.relevance.row(row) + place.c;
  const T* const c = job.output.row(sample) + place.c;
  Stabilizer<T> exact(nullptr);
  exact.epsilon = T(0);
  const Buffer<T> shares(checked_product({of_.rows, of_.cols}, "a product"));
  for (Index i = 0; i < of_.rows; ++i) {
    for (Index j = 0; j < of_.cols; ++j) {
      const Index at = i * of_.c.row + j * of_.c.col;
      shares.data()[i * of_.cols + j] = factor * (job.coefficients ? r[at] : exact.share(r[at], c[at], lost));
      lost->constant -= both && c[at] != 0 ? static_cast<double>(r[at]) : 0.0;
    }
  }
  const Matrix<const T> q{shares.data(), of_.rows, of_.cols, of_.cols};
  const T* const a = job.inputs[0].row(sample) + place.a;
  const T* const b = job.inputs[1].row(sample) + place.b;
  // to += or = from * (what has come down)
  const auto hand_on = [&job](const T* from, const Matrix<const T>& part, Index row_step, Index col_step, bool add,
                              T* to) {
    for (Index i = 0; i < part.rows; ++i) {
      for (Index j = 0; j < part.cols; ++j) {
        const Index at = i * row_step + j * col_step;
        const T made = part.row(i)[j];
        to[at] = (add ? to[at] : T(0)) + (job.coefficients ? made : from[at] * made);
      }
    }
  };
  if (job.results[0]) {
    const Rows<T> weights(b, of_.depth, of_.cols, of_.b.row, of_.b.col);
    const Product<T> part(q, weights.view(), Direction::kForward);
    hand_on(a, part.view, of_.a.row, of_.a.col, !place.first_a, job.results[0].row(row) + place.a);
  }
  if (job.results[1]) {
    const Rows<T> turned(a, of_.depth, of_.rows, of_.a.col, of_.a.row);
    const Product<T> part(turned.view(), q, Direction::kBackward);
    hand_on(b, part.view, of_.b.row, of_.b.col, !place.first_b, job.results[1].row(row) + place.b);
  }
}

// A task takes all places that share an operand, so that no sum crosses tasks.
template <class T>
void MatMulLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  for (const Matrix<T>& result : job.results) {  // what an empty sum does not write
    for (Index i = 0; result && i < result.rows; ++i) {
      std::fill_n(result.row(i), result.cols, T(0));
    }
  }
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * places_));
  const bool little = job.relevance.rows * products() < kMinProductsForThreadsConv;
  parallel_for(job.relevance.rows * places_, threads.alone_if(little), [&](Index task) {
    for (Index repeat = 0; repeat < repeats_; ++repeat) {
      relevance_of_place(job, task / places_, place_of(task % places_ * repeats_ + repeat),
                         &lost[static_cast<std::size_t>(task)]);
    }
  });
  add_absorbed(lost, places_, job.absorbed);
}

template class MatMulLayer<float>;
template class MatMulLayer<double>;

namespace {

template <class T>
Steps steps_of(const Fields<T>& fields, const char* name, std::size_t leading) {
  std::vector<Index> given = fields.integers(name);
  require_fit(given.size() == leading + 2, "a product's steps and its axes");
  Steps steps;
  steps.col = given.back();
  given.pop_back();
  steps.row = given.back();
  given.pop_back();
  steps.leading = std::move(given);
  return steps;
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  Products products;
  products.leading = fields.integers("leading");
  products.rows = fields.integer("rows");
  products.depth = fields.integer("depth");
  products.cols = fields.integer("cols");
  products.a = steps_of(fields, "a", products.leading.size());
  products.b = steps_of(fields, "b", products.leading.size());
  products.c = steps_of(fields, "c", products.leading.size());
  products.scale = fields.real("scale");
  return std::make_unique<MatMulLayer<T>>(std::move(products));
}

}  // namespace

void register_matmul(LayerKinds* kinds) { kinds->add("matmul", make<float>, make<double>); }

}  // namespace pylrp
