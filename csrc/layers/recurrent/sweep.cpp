// The forward pass of recurrent layers: all products with the input for some steps at a time, then step by step.
#include <algorithm>

#include "layers/recurrent/recurrent.hpp"

namespace pylrp {

// A direction, and some samples on their way through its steps.
template <class T>
class RecurrentLayer<T>::Sweep {
 public:
  Sweep(const RecurrentLayer& layer, std::size_t direction, const std::vector<Matrix<const T>>& inputs,
        Matrix<T> output, Matrix<T> kept, bool stabilised, Index first, Index rows)
      : layer_(layer),
        places_(layer.places_),
        of_(layer.directions_[direction]),
        direction_(static_cast<Index>(direction)),
        inputs_(inputs),
        output_(output),
        kept_(kept),
        arrays_(layer.kept_arrays(direction, stabilised)),
        first_(first),
        rows_(rows),
        units_(of_.cell.units),
        stride_(padded(of_.cell.sums(), Panels<T>::width())),
        state_stride_(padded(units_, Panels<T>::width())),
        ahead_(std::min(places_.steps, steps_ahead(rows, stride_))),
        memory_({checked_product({ahead_, rows, places_.features}, "a part of a sequence"),
                 checked_product({ahead_, rows, stride_}, "the sums of a recurrent layer"),
                 checked_product({rows, state_stride_}, "the states of a recurrent layer"), rows * state_stride_,
                 places_.sequence < 0 ? 0 : checked_product({ahead_, rows, units_}, "a part of a sequence"),
                 of_.last_state || of_.cell.reset_after ? rows * stride_ : 0, 2 * units_,
                 of_.last_state ? rows * state_stride_ : 0}),
        x_(memory_[0]),
        sums_(memory_[1]),
        h_(memory_[2]),
        c_(memory_[3]),
        made_(memory_[4]),
        extra_(memory_[5]),
        scratch_(memory_[6]),
        product_(memory_[7]) {
    for (std::size_t d = 0; d < direction; ++d) {
      kept_offset_ += layer.kept_arrays(d, stabilised).count * units_ * places_.steps;
    }
    if (layer.inputs_.lengths >= 0) {
      lengths_ = inputs[static_cast<std::size_t>(layer.inputs_.lengths)];
    }
  }

  void run() {
    begin(layer_.inputs_.h, of_.first_h, h_);
    begin(layer_.inputs_.c, of_.first_c, c_);
    for (Index first = 0; first < places_.steps; first += ahead_) {
      const Index count = std::min(ahead_, places_.steps - first);
      if (any_takes_part(first, count)) {
        multiply_inputs(first, count);
      }
      for (Index i = 0; i < count; ++i) {
        step(step_at(first + i), i, sums_ + i * rows_ * stride_);
      }
      write(first, count);
    }
    end(places_.last_h, h_);
    end(places_.last_c, c_);
  }

 private:
  Index step_at(Index number) const { return of_.reverse ? places_.steps - 1 - number : number; }

  void begin(int input, const std::vector<T>& constant, T* state) {
    for (Index r = 0; r < rows_; ++r) {
      T* const to = state + r * state_stride_;
      if (input >= 0) {
        std::copy_n(inputs_[static_cast<std::size_t>(input)].row(first_ + r) + direction_ * units_, units_, to);
      } else if (!constant.empty()) {
        std::copy(constant.begin(), constant.end(), to);
      } else {
        std::fill_n(to, units_, T(0));
      }
    }
  }
  void end(Index offset, const T* state) {
    for (Index r = 0; offset >= 0 && r < rows_; ++r) {
      std::copy_n(state + r * state_stride_, units_, output_.row(first_ + r) + offset + direction_ * units_);
    }
  }

  bool any_takes_part(Index first, Index count) const {
    for (Index i = 0; i < count * rows_; ++i) {
      if (takes_part(lengths_, first_ + i % rows_, step_at(first + i / rows_))) {
        return true;
      }
    }
    return false;
  }

  // The sums of some steps: biases and products with the input.
  void multiply_inputs(Index first, Index count) {
    const Index features = places_.features;
    each_entry(count, rows_, features, places_.x_feature == 1, [&](Index i, Index r, Index j) {
      x_[(i * rows_ + r) * features + j] =
          inputs_[0].row(first_ + r)[step_at(first + i) * places_.x_step + j * places_.x_feature];
    });
    for (Index i = 0; i < count * rows_; ++i) {
      std::copy(of_.bias.begin(), of_.bias.end(), sums_ + i * stride_);
    }
    if (features > 0) {
      multiply_by_panels(x_, features, count * rows_, *of_.input, true, sums_, stride_);
    }
  }

  void step(Index t, Index number, T* sums) {
    const bool after = of_.cell.reset_after;
    T* const extra = extra_;
    for (Index r = 0; after && r < rows_; ++r) {
      std::copy(of_.state_bias.begin(), of_.state_bias.end(), extra + r * stride_);
    }
    multiply_states(h_, state_stride_, rows_, *of_.state, true, after ? extra : sums, stride_);
    if (of_.last_state) {
      for (Index r = 0; r < rows_; ++r) {
        run_gates(of_.cell, sums + r * stride_, h_ + r * state_stride_, extra + r * stride_);
      }
      multiply_last_state(sums);
    }
    const T* const peepholes = of_.peepholes.empty() ? nullptr : of_.peepholes.data();
    for (Index r = 0; r < rows_; ++r) {
      const bool part = takes_part(lengths_, first_ + r, t);
      T* const h = h_ + r * state_stride_;
      if (part) {
        const Index each = arrays_.count * units_, next = of_.reverse ? t - 1 : t + 1;
        T* const kept = kept_ ? kept_.row(first_ + r) + kept_offset_ + t * each : nullptr;
        if (kept != nullptr && next >= 0 && next < places_.steps) {
          fetch_ahead<T, 1>(kept + (next - t) * each, each);
        }
        run_cell<T>({of_.cell, peepholes, sums + r * stride_, extra + r * stride_, h, c_ + r * state_stride_, scratch_,
                     &arrays_, kept});
      }
      if (places_.sequence >= 0) {
        T* const to = made_ + (number * rows_ + r) * units_;
        if (part || places_.carried) {
          std::copy_n(h, units_, to);
        } else {
          std::fill_n(to, units_, T(0));
        }
      }
    }
  }

  // (r h) U_n^T, added to the last third of the sums: whole panels go to memory of their own first.
  void multiply_last_state(T* sums) {
    multiply_states(extra_, stride_, rows_, *of_.last_state, false, product_, state_stride_);
    for (Index r = 0; r < rows_; ++r) {
      for (Index j = 0; j < units_; ++j) {
        sums[r * stride_ + 2 * units_ + j] += product_[r * state_stride_ + j];
      }
    }
  }

  // The states of some steps, where the output has them.
  void write(Index first, Index count) {
    if (places_.sequence < 0) {
      return;
    }
    const Index offset = places_.sequence + direction_ * units_ * places_.y_unit;
    each_entry(count, rows_, units_, places_.y_unit == 1, [&](Index i, Index r, Index j) {
      output_.row(first_ + r)[offset + step_at(first + i) * places_.y_step + j * places_.y_unit] =
          made_[(i * rows_ + r) * units_ + j];
    });
  }

  const RecurrentLayer& layer_;
  const SequencePlaces& places_;
  const OneDirection<T>& of_;
  const Index direction_;
  const std::vector<Matrix<const T>>& inputs_;
  Matrix<T> output_, kept_;
  const KeptArrays arrays_;
  const Index first_, rows_, units_, stride_, state_stride_, ahead_;
  const TaskArrays<T, 8> memory_;
  T *const x_, *const sums_, *const h_, *const c_, *const made_, *const extra_, *const scratch_, *const product_;
  Matrix<const T> lengths_;
  Index kept_offset_ = 0;
};

template <class T>
void RecurrentLayer<T>::sweep(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const bool* stabilised,
                              Matrix<T> kept, const Threads& threads) const {
  const Index blocks = blocks_of(output.rows), tasks = blocks * static_cast<Index>(directions_.size());
  const bool little = output.rows * products() < kMinProductsForThreadsConv;
  parallel_for(tasks, threads.alone_if(little), [&](Index task) {
    const Index block = task % blocks, first = output.rows * block / blocks;
    Sweep(*this, static_cast<std::size_t>(task / blocks), inputs, output, kept, stabilised != nullptr && *stabilised,
          first, output.rows * (block + 1) / blocks - first)
        .run();
  });
}

template <class T>
void RecurrentLayer<T>::forward_keeping(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, Matrix<T> kept,
                                        const Threads& threads) const {
  const bool stabilised = kept.cols != kept_entries(false);
  sweep(inputs, output, &stabilised, kept, threads);
}

template <class T>
Index RecurrentLayer<T>::kept_entries(bool stabilised) const {
  Index count = 0;
  for (std::size_t d = 0; d < directions_.size(); ++d) {
    count += checked_product({kept_arrays(d, stabilised).count, units(), places_.steps}, "what a layer keeps");
  }
  return count;
}

template <class T>
Index RecurrentLayer<T>::kept_entries(const CompiledRule* rule) const {
  return kept_entries(is_stabilised(rule));
}

template <class T>
Index RecurrentLayer<T>::products() const {
  return bounded_product(
      {static_cast<Index>(directions_.size()), places_.steps, directions_[0].cell.sums(), places_.features + units()});
}

template class RecurrentLayer<float>;
template class RecurrentLayer<double>;

}  // namespace pylrp
