#include "layers/standardize.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/buffer.hpp"
#include "base/pieces.hpp"
#include "base/sum.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

constexpr Index kLanes = 16;  // groups side by side that are read together: a cache line of floats
constexpr Index kEntriesATask = 4096;

}  // namespace

// (x - first) - offset is x - mean. The first entry is near the mean where all are: what it leaves keeps its digits,
// and is 0 where all entries are equal.
template <class T>
struct StandardizeLayer<T>::Moments {
  double first, offset, inverse;

  double centred(T x) const { return (static_cast<double>(x) - first) - offset; }
  double mean() const { return first + offset; }
};

template <class T>
struct StandardizeLayer<T>::Bundle {
  Index offset, scale, lanes, scale_step;
};

template <class T>
class StandardizeLayer<T>::Arrays {
 public:
  explicit Arrays(const StandardizeLayer& layer) : layer_(layer) {
    if (layer.scale_by_group_) {
      scales_.reset(layer.has_scale_ ? layer.size_ : 0);
      shifts_.reset(layer.has_shift_ ? layer.size_ : 0);
    }
  }
  // Looks up those of a lane's group.
  void of(const Bundle& bundle, Index lane) {
    if (layer_.scale_by_group_) {
      const Index first = bundle.scale + lane * bundle.scale_step;
      const Index step = layer_.inner_.back().scale_stride;
      layer_.each_run([&](Index position, Index, Index at) {
        for (Index k = 0; k < layer_.inner_.back().extent; ++k) {
          if (layer_.has_scale_) {
            scales_.data()[position + k] = layer_.scale_[static_cast<std::size_t>(first + at + k * step)];
          }
          if (layer_.has_shift_) {
            shifts_.data()[position + k] = layer_.shift_[static_cast<std::size_t>(first + at + k * step)];
          }
        }
      });
    }
  }
  const T* scale() const { return pointer(layer_.has_scale_, scales_, layer_.scale_); }
  const T* shift() const { return pointer(layer_.has_shift_, shifts_, layer_.shift_); }

 private:
  const T* pointer(bool there, const Buffer<T>& mine, const std::vector<T>& all) const {
    return !there ? nullptr : layer_.scale_by_group_ ? mine.data() : all.data();
  }
  const StandardizeLayer& layer_;
  Buffer<T> scales_, shifts_;
};

template <class T>
StandardizeLayer<T>::StandardizeLayer(StandardizeSettings<T> settings)
    : statistic_(settings.statistic),
      scale_(std::move(settings.scale)),
      shift_(std::move(settings.shift)),
      has_scale_(!scale_.empty()),
      has_shift_(!shift_.empty()),
      keeps_nonnegative_(!statistic_.centred && !has_shift_ &&
                         std::all_of(scale_.begin(), scale_.end(), [](T g) { return g >= 0; })) {
  require_fit(!has_scale_ || !has_shift_ || scale_.size() == shift_.size(), "a normalisation's scale and its shift");
  require_fit(!statistic_.centred || statistic_.of == Statistic::Of::kSquares, "a mean and its statistic");
  for (const GroupAxis& axis :
       ordered_axes(std::move(settings.axes), static_cast<Index>(std::max(scale_.size(), shift_.size())))) {
    (axis.inside ? inner_ : outer_).push_back(axis);
    (axis.inside ? size_ : groups_) *= axis.extent;
    scale_by_group_ = scale_by_group_ || (!axis.inside && axis.scale_stride != 0);
  }
  if (inner_.empty()) {
    inner_.push_back({1, 1, 0, true});
  }
  contiguous_ = inner_.size() == 1 && inner_[0].stride == 1;
  if (!outer_.empty() && outer_.back().stride == 1 && !contiguous_) {
    lanes_ = std::min(kLanes, outer_.back().extent);
    bundles_ = groups_ / outer_.back().extent * ((outer_.back().extent + lanes_ - 1) / lanes_);
  } else {
    bundles_ = groups_;
  }
  bundles_a_task_ = std::max<Index>(1, kEntriesATask / (size_ * lanes_));
  // What is looked up for each group takes no memory that the caller has not given.
  scale_by_group_ = scale_by_group_ || static_cast<Index>(std::max(scale_.size(), shift_.size())) < size_;
  if (!scale_by_group_) {
    order_arrays();
  }
}

// All groups have the same scale and shift: they are put into a group's order once.
template <class T>
void StandardizeLayer<T>::order_arrays() {
  for (std::vector<T>* const array : {&scale_, &shift_}) {
    if (!array->empty()) {
      std::vector<T> made(static_cast<std::size_t>(size_));
      each_run([&](Index position, Index, Index at) {
        for (Index k = 0; k < inner_.back().extent; ++k) {
          made[static_cast<std::size_t>(position + k)] =
              (*array)[static_cast<std::size_t>(at + k * inner_.back().scale_stride)];
        }
      });
      array->swap(made);
    }
  }
}

template <class T>
void StandardizeLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_fit(inputs.size() == 1 && inputs[0] == output && output == groups_ * size_, "a normalisation and its input");
}

// body(position in the group, offset in the sample, offset in the arrays) for each run along the last inner axis.
template <class T>
template <class Body>
void StandardizeLayer<T>::each_run(Body body) const {
  const Index length = inner_.back().extent;
  for (Index position = 0; position < size_; position += length) {
    Index rest = position / length, offset = 0, scale = 0;
    for (std::size_t a = inner_.size() - 1; a-- > 0; rest /= inner_[a].extent) {
      offset += rest % inner_[a].extent * inner_[a].stride;
      scale += rest % inner_[a].extent * inner_[a].scale_stride;
    }
    body(position, offset, scale);
  }
}

template <class T>
template <class Body>
void StandardizeLayer<T>::each_bundle(Index task, Body body) const {
  for (Index b = task * bundles_a_task_; b < std::min(bundles_, (task + 1) * bundles_a_task_); ++b) {
    Bundle bundle{0, 0, 1, 0};
    Index rest = b;
    for (std::size_t a = outer_.size(); a-- > 0;) {
      const GroupAxis& axis = outer_[a];
      const Index lanes = a + 1 == outer_.size() ? lanes_ : 1;
      const Index steps = (axis.extent + lanes - 1) / lanes;
      const Index at = rest % steps * lanes;
      if (lanes > 1) {
        bundle.lanes = std::min(lanes, axis.extent - at);
        bundle.scale_step = axis.scale_stride;
      }
      bundle.offset += at * axis.stride;
      bundle.scale += at * axis.scale_stride;
      rest /= steps;
    }
    body(bundle);
  }
}

// The entries of a bundle's groups, group by group: where they lie, or copied to memory.
template <class T>
const T* StandardizeLayer<T>::load(const T* row, const Bundle& bundle, T* memory) const {
  if (contiguous_) {
    return row + bundle.offset;
  }
  const Index count = inner_.back().extent, stride = inner_.back().stride;
  each_run([&](Index position, Index offset, Index) {
    const T* const from = row + bundle.offset + offset;
    for (Index k = 0; k < count; ++k) {
      for (Index lane = 0; lane < bundle.lanes; ++lane) {
        memory[lane * size_ + position + k] = from[k * stride + lane];
      }
    }
  });
  return memory;
}

template <class T>
void StandardizeLayer<T>::store(const T* memory, const Bundle& bundle, T* row) const {
  const Index count = inner_.back().extent, stride = inner_.back().stride;
  each_run([&](Index position, Index offset, Index) {
    T* const to = row + bundle.offset + offset;
    for (Index k = 0; k < count; ++k) {
      for (Index lane = 0; lane < bundle.lanes; ++lane) {
        to[k * stride + lane] = memory[lane * size_ + position + k];
      }
    }
  });
}

// Two passes: the mean, then the squares of what it leaves.
template <class T>
typename StandardizeLayer<T>::Moments StandardizeLayer<T>::moments(const T* x) const {
  Moments found{0, 0, 1};
  if (statistic_.centred) {
    found.first = static_cast<double>(x[0]);
    found.offset = sum_in_columns(size_, [&](Index i) { return found.centred(x[i]); }) / static_cast<double>(size_);
  }
  double d = 0;
  if (statistic_.of == Statistic::Of::kSquares) {
    const auto square = [&](Index i) {
      const double value = found.centred(x[i]);
      return value * value;
    };
    d = std::sqrt(statistic_.weight * sum_in_columns(size_, square) + statistic_.inside);
  } else if (statistic_.of == Statistic::Of::kAbsolute) {
    d = sum_in_columns(size_, [&](Index i) { return std::abs(static_cast<double>(x[i])); });
  } else {
    d = static_cast<double>(*std::max_element(x, x + size_));
  }
  d += statistic_.outside;
  d = statistic_.floor > 0 && d < statistic_.floor ? statistic_.floor : d;  // NaN stays NaN
  found.inverse = d == 0 ? 1 : 1 / d;
  return found;
}

template <class T>
void StandardizeLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                  const Threads& threads) const {
  some_at_once(output.rows * tasks_a_row(), output.cols, threads, [&](Index task) {
    const Index row = task / tasks_a_row();
    const Buffer<T> memory(contiguous_ ? 0 : size_ * lanes_);
    Arrays arrays(*this);
    each_bundle(task % tasks_a_row(), [&](const Bundle& bundle) {
      const T* const loaded = load(inputs[0].row(row), bundle, memory.data());
      T* const made = contiguous_ ? output.row(row) + bundle.offset : memory.data();
      for (Index lane = 0; lane < bundle.lanes; ++lane) {
        arrays.of(bundle, lane);
        const T* const x = loaded + lane * size_;
        T* const y = made + lane * size_;
        const T *const scale = arrays.scale(), *const shift = arrays.shift();
        const Moments group = moments(x);
        for (Index i = 0; i < size_; ++i) {
          const double value = group.centred(x[i]) * group.inverse * (scale ? static_cast<double>(scale[i]) : 1.0);
          y[i] = static_cast<T>(shift ? value + static_cast<double>(shift[i]) : value);
        }
      }
      if (!contiguous_) {
        store(memory.data(), bundle, output.row(row));
      }
    });
  });
}

template <class T>
void StandardizeLayer<T>::relevance_of_group(const T* x, const T* r, const Arrays& arrays, const CompiledRule* rule,
                                             T* out, kernels::Absorbed* lost) const {
  Stabilizer<double> exact(nullptr);
  exact.epsilon = 0;
  const bool mean_too = treatment_of(rule) == Treatment::kDetachAll;
  const T *const scale = arrays.scale(), *const shift = arrays.shift();
  const Moments group = moments(x);
  const Buffer<double> share(size_);
  double* const t = share.data();
  double total = 0;
  for (Index i = 0; i < size_; ++i) {
    const double factor = group.inverse * (scale ? static_cast<double>(scale[i]) : 1.0);
    const double added = shift ? static_cast<double>(shift[i]) : 0.0;
    const double s = exact.share(static_cast<double>(r[i]), group.centred(x[i]) * factor + added, lost);
    lost->bias += added * s;
    t[i] = factor * s;
    total += t[i];
  }
  const double mean = statistic_.centred && !mean_too ? total / static_cast<double>(size_) : 0.0;
  if (is_gradient(rule)) {
    const double before = sum_in_columns(size_, [&](Index i) { return t[i] * static_cast<double>(x[i]); });
    less_by_statistic(x, group, t);
    lost->constant += before - sum_in_columns(size_, [&](Index i) { return t[i] * static_cast<double>(x[i]); });
  }
  for (Index i = 0; i < size_; ++i) {
    out[i] = static_cast<T>(static_cast<double>(x[i]) * (t[i] - mean));
  }
  if (statistic_.centred && mean_too) {
    lost->constant -= group.mean() * total;
  }
}

// t less what a change of x changes d by.
template <class T>
void StandardizeLayer<T>::less_by_statistic(const T* x, const Moments& group, double* t) const {
  const double d = 1 / group.inverse, root = d - statistic_.outside;
  if (root <= 0 || (statistic_.floor > 0 && d <= statistic_.floor)) {
    return;  // d is a constant there
  }
  const double sum = group.inverse * sum_in_columns(size_, [&](Index i) { return t[i] * group.centred(x[i]); });
  const Index largest = std::max_element(x, x + size_) - x;
  for (Index i = 0; i < size_; ++i) {
    const double value = group.centred(x[i]);
    const double slope = statistic_.of == Statistic::Of::kSquares    ? statistic_.weight * value / root
                         : statistic_.of == Statistic::Of::kAbsolute ? (value > 0 ? 1.0 : (value < 0 ? -1.0 : 0.0))
                                                                     : (i == largest ? 1.0 : 0.0);
    t[i] -= sum * slope;
  }
}

template <class T>
void StandardizeLayer<T>::coefficients_of_group(const T* x, const T* c, const Arrays& arrays, const CompiledRule* rule,
                                                T* out, kernels::Absorbed* lost) const {
  const T *const scale = arrays.scale(), *const shift = arrays.shift();
  const Moments group = moments(x);
  const T inverse = static_cast<T>(group.inverse);
  if (shift != nullptr) {
    lost->bias += kernels::table<T>().dot(size_, c, shift);
  }
  for (Index i = 0; i < size_; ++i) {
    out[i] = c[i] * inverse;
  }
  for (Index i = 0; scale != nullptr && i < size_; ++i) {
    out[i] *= scale[i];
  }
  if (!statistic_.centred) {
    return;
  }
  const double total = kernels::table<T>().sum(size_, out);
  if (treatment_of(rule) == Treatment::kDetachAll) {
    lost->constant -= group.mean() * total;
    return;
  }
  const T mean = static_cast<T>(total / static_cast<double>(size_));
  for (Index i = 0; i < size_; ++i) {
    out[i] -= mean;
  }
}

template <class T>
void StandardizeLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Index tasks = tasks_a_row();
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * tasks));
  some_at_once(job.relevance.rows * tasks, job.relevance.cols, threads, [&](Index task) {
    const Index row = task / tasks, copied = contiguous_ ? 0 : size_ * lanes_;
    const Buffer<T> memory(2 * copied);
    Arrays arrays(*this);
    each_bundle(task % tasks, [&](const Bundle& bundle) {
      const T* const x = load(job.inputs[0].row(row % job.batch), bundle, memory.data());
      const T* const r = load(job.relevance.row(row), bundle, memory.data() + copied);
      T* const made = contiguous_ ? job.results[0].row(row) + bundle.offset : memory.data() + copied;
      for (Index lane = 0; lane < bundle.lanes; ++lane) {
        arrays.of(bundle, lane);
        const Index at = lane * size_;
        const auto of_group =
            job.coefficients ? &StandardizeLayer::coefficients_of_group : &StandardizeLayer::relevance_of_group;
        (this->*of_group)(x + at, r + at, arrays, job.rule, made + at, &lost[static_cast<std::size_t>(task)]);
      }
      if (!contiguous_) {
        store(made, bundle, job.results[0].row(row));
      }
    });
  });
  add_absorbed(lost, tasks, job.absorbed);
}

template class StandardizeLayer<float>;
template class StandardizeLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  StandardizeSettings<T> settings;
  const std::vector<Index> extents = fields.integers("extents"), strides = fields.integers("strides");
  const std::vector<Index> scales = fields.integers("scale_strides"), inside = fields.integers("of_group");
  require_fit(extents.size() == strides.size() && extents.size() == scales.size() && extents.size() == inside.size(),
              "the axes of a normalisation");
  for (std::size_t a = 0; a < extents.size(); ++a) {
    settings.axes.push_back({extents[a], strides[a], scales[a], inside[a] != 0});
  }
  const Index of = fields.integer("norm");
  require_fit(of >= 0 && of <= 2, "a normalisation's statistic");
  settings.statistic.of = static_cast<Statistic::Of>(of);
  settings.statistic.centred = fields.flag("centred");
  settings.statistic.weight = fields.real("weight");
  settings.statistic.inside = fields.real("root_plus");
  settings.statistic.outside = fields.real("plus");
  settings.statistic.floor = fields.real("floor");
  for (const auto& [name, array] : {std::pair{"scale", &settings.scale}, std::pair{"shift", &settings.shift}}) {
    if (fields.has(name)) {
      *array = fields.vector(name);
    }
  }
  return std::make_unique<StandardizeLayer<T>>(std::move(settings));
}

}  // namespace

void register_standardize(LayerKinds* kinds) { kinds->add("standardize", make<float>, make<double>); }

}  // namespace pylrp
