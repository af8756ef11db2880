// Relevance through recurrent layers, from the last step to the first. Gates are constants: what is left is linear, and
// only the cell gate's weights take part.
//
// It goes as coefficients, R / value, which need no division from step to step:
//
//   c_h  from above R_h / h, from the step behind U_g^T q
//   c_c  += (o H(c) / c) c_h;  c_c of the state before = f c_c;  q = (i g / z_g) c_c;  R_x = x W_g^T q
//
// A stabiliser takes its part of a coefficient: c_c |c| / (|c| + eps). Treatment::kSpread (the code of Arras et al.
// with bias_factor 1) hands what stabilisers and biases take to all inputs in equal parts: a number a sample goes
// along.
#include <algorithm>
#include <cmath>
#include <functional>

#include "layers/recurrent/back.hpp"
#include "layers/recurrent/recurrent.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
// Some samples of some targets on their way back.
template <class T>
class RecurrentLayer<T>::Way {
 public:
  Way(const RecurrentLayer& layer, const RelevanceJob<T>& job, Index first, Index rows)
      : layer_(layer),
        places_(layer.places_),
        job_(job),
        first_(first),
        rows_(rows),
        units_(layer.units()),
        stride_(padded(units_, Panels<T>::width())),
        x_stride_(padded(places_.features, Panels<T>::width())),
        ahead_(std::min(places_.steps, steps_ahead(rows, stride_ + x_stride_))),
        stabiliser_{static_cast<T>(epsilon_of(job.rule)), is_stabilised(job.rule), spreads(job.rule)},
        memory_({checked_product({rows, 2, stride_}, "the states of a recurrent layer"),
                 checked_product({ahead_, rows, stride_}, "a part of a sequence"),
                 checked_product({ahead_, rows, x_stride_}, "a part of a sequence"),
                 places_.sequence < 0 ? 0 : checked_product({ahead_, rows, units_}, "a part of a sequence"),
                 rows * stride_}),
        c_h_(memory_[0]),
        c_c_(c_h_ + rows * stride_),
        inner_(memory_[1]),
        x_(memory_[2]),
        taken_(memory_[3]),
        recurrent_(memory_[4]),
        sum_q_(static_cast<std::size_t>(rows * units_)),
        sum_down_(static_cast<std::size_t>(rows * units_)),
        spread_(static_cast<std::size_t>(rows)),
        spread_x_(static_cast<std::size_t>(rows * ahead_)),
        lost_(static_cast<std::size_t>(rows)) {
    exact_.epsilon = T(0);
    if (layer.inputs_.lengths >= 0) {
      lengths_ = job.inputs[static_cast<std::size_t>(layer.inputs_.lengths)];
    }
  }

  void run() {
    Index offset = 0;
    for (std::size_t d = 0; d < layer_.directions_.size(); ++d) {
      const KeptArrays arrays = layer_.kept_arrays(d, stabiliser_.used);
      arrays_ = &arrays;
      of_ = &layer_.directions_[d];
      direction_ = static_cast<Index>(d);
      kept_offset_ = offset;
      fast_ = !stabiliser_.used && arrays.inner_0 < 0 &&
              (of_->cell.kind != CellKind::kLSTM || (of_->peepholes.empty() && of_->cell.is_usual_lstm()));
      run_direction();
      offset += arrays.count * units_ * places_.steps;
    }
    add_absorbed(lost_, 1, job_.absorbed + first_);
  }

 private:
  Index sample(Index r) const { return (first_ + r) % job_.batch; }
  Index step_at(Index number) const { return of_->reverse ? places_.steps - 1 - number : number; }
  const T* kept(Index r, Index t, Index array) const {
    return array < 0 ? nullptr : job_.kept.row(sample(r)) + kept_offset_ + (t * arrays_->count + array) * units_;
  }

  void run_direction() {
    std::fill_n(c_h_, 2 * rows_ * stride_, T(0));
    std::fill(spread_.begin(), spread_.end(), SpreadOfStep<T>{});
    for (Index r = 0; r < rows_; ++r) {
      take_last(r, places_.last_h, c_h_ + r * stride_);
      take_last(r, places_.last_c, c_c_ + r * stride_);
    }
    for (Index end = places_.steps; end > 0; end -= std::min(end, ahead_)) {
      const Index first = std::max<Index>(0, end - ahead_);
      take_sequence(first, end - first);
      for (Index i = end; i-- > first;) {
        step(step_at(i), i - first);
      }
      hand_to_inputs(first, end - first);
      biases_of_sums();
    }
    hand_to_states();
  }

  // Coefficients of the states at the end, from the relevance of these parts of the output.
  void take_last(Index r, Index offset, T* to) {
    if (offset >= 0) {
      const Index at = offset + direction_ * units_;
      const T *const relevance = job_.relevance.row(first_ + r) + at, *const value = job_.output.row(sample(r)) + at;
      for (Index j = 0; j < units_; ++j) {
        to[j] += exact_.share(relevance[j], value[j], &lost_[static_cast<std::size_t>(r)]);
      }
    }
  }
  // The coefficients of some steps of the sequence. At a step that is left out the output is 0: there is no receiver.
  void take_sequence(Index first, Index count) {
    if (places_.sequence < 0) {
      return;
    }
    const Index offset = places_.sequence + direction_ * units_ * places_.y_unit;
    each_entry(count, rows_, units_, places_.y_unit == 1, [&](Index i, Index r, Index j) {
      const Index at = offset + step_at(first + i) * places_.y_step + j * places_.y_unit;
      taken_[(i * rows_ + r) * units_ + j] = exact_.share(
          job_.relevance.row(first_ + r)[at], job_.output.row(sample(r))[at], &lost_[static_cast<std::size_t>(r)]);
    });
  }

  // One step of all samples: the coefficients q of the sums in G, and of the states of the step before.
  void step(Index t, Index at) {
    const Cell& cell = of_->cell;
    T* const inner = inner_ + at * rows_ * stride_;
    bool any = false;
    for (Index r = 0; r < rows_; ++r) {
      const bool part = takes_part(lengths_, sample(r), t);
      T *const c_h = c_h_ + r * stride_, *const q = inner + r * stride_;
      const T* const taken = places_.sequence < 0 ? nullptr : taken_ + (at * rows_ + r) * units_;
      for (Index j = 0; taken != nullptr && !(part && fast_) && j < units_; ++j) {
        c_h[j] += taken[j];
      }
      spread_x_[static_cast<std::size_t>(at * rows_ + r)] = T(0);
      if (!part) {
        std::fill_n(q, units_, T(0));
        continue;
      }
      any = true;
      if (const Index before = of_->reverse ? t + 1 : t - 1; before >= 0 && before < places_.steps) {
        fetch_ahead<T, 0>(kept(r, before, 0), arrays_->count * units_);
      }
      if (fast_) {
        cell.kind == CellKind::kLSTM ? step_of_usual_lstm(r, t, c_h, taken, q) : step_of_state(r, t, c_h, taken, q);
        continue;
      }
      general_step(r, t, q, &spread_x_[static_cast<std::size_t>(at * rows_ + r)]);
    }
    if (any) {
      hand_to_state_before(t, inner);
    }
  }

  // Sums of q over steps stand for what its biases take of each.
  void step_of_usual_lstm(Index r, Index t, const T* c_h, const T* taken, T* q) {
    kernels::cells<T>().lstm_back({.units = units_,
                                   .past = kept(r, t, arrays_->past),
                                   .outer = kept(r, t, arrays_->outer),
                                   .inner = kept(r, t, arrays_->inner),
                                   .c_h = c_h,
                                   .more = taken,
                                   .c_c = c_c_ + r * stride_,
                                   .q = q,
                                   .sum_q = sum_q_.data() + r * units_});
  }
  // The same of a GRU or a simple layer; what goes down to a product behind the reset gate stands in recurrent_.
  void step_of_state(Index r, Index t, T* c_h, const T* taken, T* q) {
    kernels::cells<T>().state_back({.units = units_,
                                    .past = kept(r, t, arrays_->past),
                                    .inner = kept(r, t, arrays_->inner),
                                    .reset = of_->cell.reset_after ? kept(r, t, arrays_->reset) : nullptr,
                                    .more = taken,
                                    .c_h = c_h,
                                    .q = q,
                                    .down = recurrent_ + r * stride_,
                                    .sum_q = sum_q_.data() + r * units_,
                                    .sum_down = sum_down_.data() + r * units_});
  }
  void biases_of_sums() {
    const Index inner = of_->cell.sums() - units_;
    for (Index r = 0; fast_ && r < rows_; ++r) {
      double& bias = lost_[static_cast<std::size_t>(r)].bias;
      T *const sum = sum_q_.data() + r * units_, *const down = sum_down_.data() + r * units_;
      bias += dot(of_->bias.data() + inner, sum, units_);
      std::fill_n(sum, units_, T(0));
      if (of_->cell.reset_after) {
        bias += dot(of_->state_bias.data() + inner, down, units_);
        std::fill_n(down, units_, T(0));
      }
    }
  }

  // With all that a kernel leaves out.
  void general_step(Index r, Index t, T* q, T* spread_x) {
    const Index inner = of_->cell.sums() - units_;
    run_back<T>({.cell = of_->cell,
                 .arrays = *arrays_,
                 .kept = kept(r, t, 0),
                 .stabiliser = stabiliser_,
                 .bias = of_->bias.data() + inner,
                 .state_bias = of_->cell.reset_after ? of_->state_bias.data() + inner : nullptr,
                 .features = places_.features,
                 .c_h = c_h_ + r * stride_,
                 .c_c = c_c_ + r * stride_,
                 .q = q,
                 .spread = &spread_[static_cast<std::size_t>(r)],
                 .spread_x = spread_x,
                 .lost = &lost_[static_cast<std::size_t>(r)]});
  }

  // c_h of the state before, where a sample took part: U_g^T q, with the reset gate where it stands; of a GRU and of a
  // simple layer it is added to what went straight.
  void hand_to_state_before(Index t, const T* inner) {
    const bool lstm = of_->cell.kind == CellKind::kLSTM, after = of_->cell.reset_after;
    const bool before = of_->cell.kind == CellKind::kGRU && !after;
    for (Index r = 0; after && r < rows_; ++r) {
      T* const down = recurrent_ + r * stride_;
      if (!takes_part(lengths_, sample(r), t)) {
        std::fill_n(down, units_, T(0));
      } else if (!fast_) {
        const T* const reset = kept(r, t, arrays_->reset);
        std::transform(reset, reset + units_, inner + r * stride_, down, std::multiplies<>());
      }
    }
    if (lstm ? !lengths_ : !before) {  // of samples that are left out q is 0
      return multiply_states(after ? recurrent_ : inner, stride_, rows_, *of_->state_back, !lstm, c_h_, stride_);
    }
    multiply_states(inner, stride_, rows_, *of_->state_back, false, recurrent_, stride_);
    for (Index r = 0; r < rows_; ++r) {
      if (!takes_part(lengths_, sample(r), t)) {
        continue;
      }
      T *const c_h = c_h_ + r * stride_, *const product = recurrent_ + r * stride_;
      if (lstm) {
        std::copy_n(product, units_, c_h);
        continue;
      }
      const T* const reset = kept(r, t, arrays_->reset);
      for (Index j = 0; j < units_; ++j) {
        c_h[j] += reset[j] * product[j];
      }
    }
  }

  // R_x of some steps: x W_g^T q. The first direction writes it, the second adds.
  void hand_to_inputs(Index first, Index count) {
    if (!job_.results[0]) {
      return;
    }
    const Index features = places_.features;
    if (features > 0) {
      multiply_by_panels(inner_, stride_, count * rows_, *of_->input_back, false, x_, x_stride_);
    }
    each_entry(count, rows_, features, places_.x_feature == 1, [&](Index i, Index r, Index j) {
      const Index at = step_at(first + i) * places_.x_step + j * places_.x_feature, number = i * rows_ + r;
      T& to = job_.results[0].row(first_ + r)[at];
      to = (direction_ == 0 ? T(0) : to) + (job_.inputs[0].row(sample(r))[at] * x_[number * x_stride_ + j] +
                                            spread_x_[static_cast<std::size_t>(number)]);
    });
  }

  // What is left at the start belongs to the states that the layer began with.
  void hand_to_states() {
    for (Index r = 0; r < rows_; ++r) {
      const SpreadOfStep<T>& spread = spread_[static_cast<std::size_t>(r)];
      hand_to_state(r, layer_.inputs_.h, of_->first_h, c_h_ + r * stride_, spread.h);
      hand_to_state(r, layer_.inputs_.c, of_->first_c, c_c_ + r * stride_, spread.c);
    }
  }
  void hand_to_state(Index r, int input, const std::vector<T>& constant, const T* coefficient, T more) {
    if (input >= 0) {
      const std::size_t k = static_cast<std::size_t>(input);
      if (job_.results[k]) {
        const T* const from = job_.inputs[k].row(sample(r)) + direction_ * units_;
        T* const to = job_.results[k].row(first_ + r) + direction_ * units_;
        for (Index j = 0; j < units_; ++j) {
          to[j] = from[j] * coefficient[j] + more;
        }
      }
      return;
    }
    double& state = lost_[static_cast<std::size_t>(r)].state;
    state += static_cast<double>(more) * static_cast<double>(units_);
    if (!constant.empty()) {
      state += dot(constant.data(), coefficient, units_);
    }
  }

  const RecurrentLayer& layer_;
  const SequencePlaces& places_;
  const RelevanceJob<T>& job_;
  const Index first_, rows_, units_, stride_, x_stride_, ahead_;
  const StabiliserOfStep<T> stabiliser_;
  Stabilizer<T> exact_{nullptr};
  const TaskArrays<T, 5> memory_;
  T *const c_h_, *const c_c_, *const inner_, *const x_, *const taken_, *const recurrent_;
  std::vector<T> sum_q_, sum_down_;
  std::vector<SpreadOfStep<T>> spread_;
  std::vector<T> spread_x_;
  std::vector<kernels::Absorbed> lost_;
  Matrix<const T> lengths_;
  // Of the direction under way:
  const KeptArrays* arrays_ = nullptr;
  const OneDirection<T>* of_ = nullptr;
  Index direction_ = 0, kept_offset_ = 0;
  bool fast_ = false;
};

// A task takes all directions of its samples: no sum crosses tasks.
template <class T>
void RecurrentLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Index rows = job.relevance.rows, blocks = blocks_of(rows);
  const bool little = rows * products() < kMinProductsForThreadsConv;
  parallel_for(blocks, threads.alone_if(little), [&](Index block) {
    const Index first = rows * block / blocks;
    Way(*this, job, first, rows * (block + 1) / blocks - first).run();
  });
}

template void RecurrentLayer<float>::relevance(const RelevanceJob<float>&, const Threads&) const;
template void RecurrentLayer<double>::relevance(const RelevanceJob<double>&, const Threads&) const;

}  // namespace pylrp
