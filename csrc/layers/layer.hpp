// What the engine asks of a layer: the forward pass, and relevance from its output to its inputs.
//
// Values are matrices (batch, size), a sample channels last. Relevance may be that of several targets on one forward
// pass: (targets * batch, size), row t * batch + i belongs to sample i.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/size.hpp"
#include "base/view.hpp"
#include "kernels/table.hpp"
#include "rules/lower.hpp"

namespace pylrp {

// A following ReLU or Clip, done while the output is written.
template <class T>
struct Clamp {
  T low = -std::numeric_limits<T>::infinity();
  T high = std::numeric_limits<T>::infinity();
};

// What a layer computes once for a rule.
struct Prepared {
  virtual ~Prepared() = default;
};

template <class T>
struct RelevanceJob {
  std::vector<Matrix<const T>> inputs;  // empty views where the layer said it does not read them
  Matrix<const T> output;               // of this layer, before what follows; empty where it was not kept
  Matrix<const T> kept;                 // (batch, kept_entries()), what forward_keeping() has written down
  Matrix<const T> relevance;            // (targets * batch, size of the output)
  std::vector<Matrix<T>> results;       // (targets * batch, size of the input), one an input; no data: not wanted
  Matrix<T> spare;                      // the relevance, where its memory may be written over; or empty
  Index batch = 0;
  // relevance and results are coefficients c of R = a c, a the value's entries: Layer::coefficients() has asked for it.
  bool coefficients = false;

  // Where the layer has weights:
  const CompiledRule* rule = nullptr;
  Bounds<T> bounds;
  const Prepared* prepared = nullptr;
  bool input_nonnegative = false;  // known of inputs[0]
  bool output_positive = false;    // the output is > 0 wherever there is relevance

  kernels::Absorbed* absorbed = nullptr;  // (targets * batch), zeroed by the caller

  Index targets() const { return batch == 0 ? 0 : relevance.rows / batch; }
};

// How relevance goes through a layer, for the engine's planning.
enum class Flow {
  kRule,          // by the assigned rule
  kProportional,  // in proportion to the input, by the layer's own formula: none where the input is zero
  kRouted,        // moved or scaled (pooling, pad, slice): none where the input is zero if the output gets none
                  // where it is zero
  kIdentity,      // the very same relevance: activations
  kUnknown,       // a layer in Python
};

// Whether relevance can go through a layer in the form R = a c, a the entries of a value (engine/coefficients.hpp):
// relevance() then takes the coefficients c of its output and makes those of its inputs. What that saves are the
// divisions of R by the output and the products with the input.
enum class Coefficients {
  kNever,   // R is not in proportion to the input, or there is a stabilizer
  kAlong,   // it can, between layers for which it serves
  kServes,  // it serves
};

template <class T>
class Layer {
 public:
  virtual ~Layer() = default;
  virtual Flow flow() const = 0;
  // The same under a rule, for layers that are explained in more than one way; null: none was given.
  virtual Flow flow_under(const CompiledRule*) const { return flow(); }
  // Throws Error where the layer can't read values of these sizes (of a sample) or make one of that size: it would
  // reach beyond them. Called once, when the graph is made; the other functions rely on it.
  virtual void require_sizes(const std::vector<Index>& inputs, Index output) const = 0;
  virtual void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
                       const Threads& threads) const = 0;
  // What forward_keeping() writes down for relevance() besides its output, in entries a sample: what would be dear to
  // compute again.
  virtual Index kept_entries(const CompiledRule*) const { return 0; }
  // forward(), and what relevance() under a rule asks for: kept is (batch, kept_entries()). Called where that is not 0.
  virtual void forward_keeping(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, Matrix<T> kept,
                               const Threads& threads) const {
    static_cast<void>(kept);
    forward(inputs, output, {}, threads);
  }
  // Must not depend on the values. Where the flow is kIdentity relevance() is called for coefficients only.
  virtual Coefficients coefficients(const CompiledRule*) const { return Coefficients::kNever; }
  // Are those of every input the output's? Then relevance() is not called.
  virtual bool same_coefficients() const { return false; }
  // Not called where the flow is kIdentity.
  virtual void relevance(const RelevanceJob<T>& job, const Threads& threads) const = 0;

  // Multiplications of a forward pass of one sample, where they are many.
  virtual Index products() const { return 0; }

  // Is the output the input itself? Then it is not copied.
  virtual bool is_view() const { return false; }
  // Can forward() work in place (output over the first input)? Can it clamp?
  virtual bool in_place() const { return false; }
  virtual bool clamps() const { return false; }
  // The clamp that this layer is, where it is one.
  virtual bool is_clamp(Clamp<T>*) const { return false; }
  // f(x) >= 0 for every x; for every x >= 0.
  virtual bool makes_nonnegative() const { return false; }
  virtual bool keeps_nonnegative() const { return false; }
  // f(0) = 0
  virtual bool keeps_zero() const { return false; }
  // Can relevance() of one target work in place (each result over its input)?
  virtual bool relevance_in_place() const { return false; }
  // Does an input get relevance at all? Where not, none is made for it, and relevance() finds no data for its result.
  virtual bool hands_to(std::size_t /*input*/, const CompiledRule*) const { return true; }
  // What relevance() wants to see of the forward pass.
  virtual bool reads_inputs(const CompiledRule*) const { return true; }
  // at_hand: the output is there anyway, behind a ReLU, wherever there is relevance.
  virtual bool reads_output(const CompiledRule*, bool /*at_hand*/) const { return false; }
  // The same where its input is not known to be >= 0.
  virtual bool reads_output_of_signed(const CompiledRule*, bool /*at_hand*/) const { return false; }
  virtual std::unique_ptr<Prepared> prepare(const CompiledRule&, const Bounds<T>&, const Threads&) const {
    return nullptr;
  }
};

// For require_sizes(): one input of the same size, which is a whole number of pixels.
inline void require_pixels(const std::vector<Index>& inputs, Index output, Index channels, const char* what) {
  require_fit(inputs.size() == 1 && inputs[0] == output && channels > 0 && output % channels == 0, what);
}

}  // namespace pylrp
