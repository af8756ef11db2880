// The cells of recurrent layers: what a step makes of its sums (cell.cpp), and the factors by which relevance goes back
// through it. sweep.cpp and relevance.cpp go over the steps with them.
//
// Gates are in the core's order, the one that relevance goes through last: LSTM i f o g, GRU u r n, RNN n.
//
//   LSTM  c = f c' + i g,  h = o H(c),     g = G(z_g)
//   GRU   h = (1 - u) n + u h',            n = G(z_n), where z_n has U (r h') or r (U h' + b)
//   RNN   h = G(z)
#pragma once

#include <cstdint>
#include <limits>

#include "layers/activation.hpp"
#include "layers/layer.hpp"

namespace pylrp {

enum class CellKind : std::uint8_t { kRNN, kGRU, kLSTM };

struct Cell {
  CellKind kind = CellKind::kLSTM;
  Index units = 0;
  Activation gate, inner, outer;  // of gates; G; LSTM: H
  double clip = std::numeric_limits<double>::infinity();
  bool reset_after = false;  // GRU: the reset gate multiplies the product and its bias, not the state
  bool coupled = false;      // LSTM: f = 1 - i

  // An LSTM of sigmoid and tanh alone, as nearly all are: kernels take a step of it in one go.
  bool is_usual_lstm() const {
    return kind == CellKind::kLSTM && gate.kind == ActivationKind::kSigmoid && inner.kind == ActivationKind::kTanh &&
           outer.kind == ActivationKind::kTanh && !coupled && !(clip < std::numeric_limits<double>::infinity());
  }
  Index gates() const { return kind == CellKind::kLSTM ? 4 : (kind == CellKind::kGRU ? 3 : 1); }
  Index sums() const { return gates() * units; }
};

// f(0)
template <class T>
T at_zero(const Activation& f);

// What a step writes down for relevance, arrays of a number a unit: where each stands, -1 where it is not kept.
//
//   past     f, or u: how much of the state's coefficient goes to the state before
//   outer    LSTM: o (H(c) - H(0)) / c
//   inner    i, 1 - u or 1, times (G(z) - G(0)) / z
//   reset    GRU: r
//   total    c of an LSTM, h of a GRU; z: the sum in G. Both for a stabiliser.
//   inner_0  i G(0) (1 - u, 1); outer_0: o H(0). Where they are not 0.
struct KeptArrays {
  Index past = -1, outer = -1, inner = -1, reset = -1, total = -1, z = -1, inner_0 = -1, outer_0 = -1, count = 0;
  KeptArrays(const Cell& cell, bool stabilised);
};

// One step of one sample. z: the sums (and what the cell makes of them); recurrent: GRU with reset_after, U h' + b of
// all gates. The state is read and written.
template <class T>
struct StepOfCell {
  const Cell& cell;
  const T* peepholes;  // LSTM: of i, f, o; may be null
  T* z;
  const T* recurrent;
  T* h;
  T* c;
  T* scratch;  // 2 * units
  const KeptArrays* arrays;
  T* kept;  // arrays->count * units; null: nothing is kept
};
template <class T>
void run_cell(const StepOfCell<T>& step);

// GRU without reset_after, before its last product: the gates u and r of z, and state = r h'.
template <class T>
void run_gates(const Cell& cell, T* z, const T* h, T* state);

}  // namespace pylrp
