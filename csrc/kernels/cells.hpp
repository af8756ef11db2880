// Kernels of recurrent layers alone, beside the table that all layers have: products of few rows with packed panels,
// and a step of an LSTM both ways. cells.cpp finds those of the instruction set that runs.
#pragma once

#include "kernels/table.hpp"

namespace pylrp::kernels {

// One or two rows side by side with whole panels, which lie panel_stride apart: out(rows, panels * tile_cols) = or +=
// x panel, to the bits of TileTaps. halves: of the last panel.
inline constexpr int kFewRows = 2;
template <class T>
struct FewRows {
  int rows, halves;
  Index k;
  const T* x;
  Index x_stride;
  const T* panel;
  Index panel_stride, panels;
  bool add;
  T* out;
  Index out_stride;
};
// A step of an LSTM's units whose gates are sigmoid(z), its other functions tanh: sums z of i, f, o, g, states h and c,
// and, where past is not null, what relevance needs (KeptArrays in layers/recurrent/cell.hpp; total and sum may be
// null).
template <class T>
struct LSTMStep {
  Index units;
  const T* z;
  T* h;
  T* c;
  T* past;
  T* outer;
  T* inner;
  T* total;
  T* sum;
};
// Back through it: c_h + more, of the step's state, to q of the cell gate's sums and c_c of the step before; sum_q +=
// q.
template <class T>
struct LSTMBack {
  Index units;
  const T* past;
  const T* outer;
  const T* inner;
  const T* c_h;
  const T* more;  // may be null
  T* c_c;
  T* q;
  T* sum_q;
};
// The same for a GRU or a simple layer: c_h + more, of the step's state, to q of the sums in G and c_h of the step
// before, as far as it goes straight; past null: 0. reset not null, the reset gate behind the product: down = reset q.
template <class T>
struct StateBack {
  Index units;
  const T* past;
  const T* inner;
  const T* reset;
  const T* more;  // may be null
  T* c_h;
  T* q;
  T* down;
  T* sum_q;
  T* sum_down;
};

template <class T>
struct CellTable {
  void (*few_rows)(const FewRows<T>& args);
  void (*lstm_step)(const LSTMStep<T>& args);
  void (*lstm_back)(const LSTMBack<T>& args);
  void (*state_back)(const StateBack<T>& args);
  void (*slopes)(Index count, const T* factor, const T* x, const T* value, T* out);  // factor value / x, 0 where x is
};
struct CellIsa {
  CellTable<float> f32;
  CellTable<double> f64;
};

// Of the instruction set that runs.
template <class T>
const CellTable<T>& cells();

}  // namespace pylrp::kernels
