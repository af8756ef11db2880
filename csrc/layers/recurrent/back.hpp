// A step of a cell on the way back, in all generality: with stabilisers, f(0) != 0, peepholes, other functions.
// relevance.cpp goes over the steps; what most layers ask for is a kernel there.
#pragma once

#include "kernels/table.hpp"
#include "layers/recurrent/cell.hpp"

namespace pylrp {

// What each input gets of that which stabilisers and biases took, of the step behind.
template <class T>
struct SpreadOfStep {
  T h = 0, c = 0;
};

// A stabiliser; `spreads`: what it and biases take goes to all inputs in equal parts, not to the ledger.
template <class T>
struct StabiliserOfStep {
  T epsilon = 0;
  bool used = false, spreads = false;
};

// One step of one sample: c_h and c_c are read and written, q are the coefficients of the sum in G.
template <class T>
struct StepBack {
  const Cell& cell;
  const KeptArrays& arrays;
  const T* kept;  // arrays.count * units
  StabiliserOfStep<T> stabiliser;
  const T *bias, *state_bias;  // of the sum in G; state_bias: GRU with reset_after
  Index features;
  T *c_h, *c_c, *q;
  SpreadOfStep<T>* spread;
  T* spread_x;  // what each feature gets
  kernels::Absorbed* lost;
};
template <class T>
void run_back(const StepBack<T>& step);

// sum of a b in float64
template <class T>
double dot(const T* a, const T* b, Index count);

}  // namespace pylrp
