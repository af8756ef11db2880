// A graph with the layouts of its values: arrays of Python in, a forward pass, arrays out. For network.cpp.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/compiled_rule.hpp"
#include "bindings/layout.hpp"
#include "bindings/lock.hpp"
#include "bindings/register.hpp"
#include "engine/graph.hpp"

namespace pylrp::bindings {

template <class T>
struct GraphWithLayouts {
  Graph<T> graph;
  std::vector<Layout> layouts;  // of each value

  void check_value(std::size_t value) const {
    if (value >= graph.values()) {
      throw py::value_error("there is no such value");
    }
  }

  struct Run {
    ForwardValues<T> forward;
    std::vector<Buffer<T>> converted;  // inputs in the core's layout
  };
  // forward(inputs as views): the values.
  template <class Forward>
  Run begin(const py::list& arrays, const std::vector<std::size_t>& wanted, const Threads& threads,
            Forward forward) const {
    if (arrays.size() != graph.inputs()) {
      throw py::value_error("the number of inputs does not fit");
    }
    std::for_each(wanted.begin(), wanted.end(), [&](std::size_t value) { check_value(value); });
    std::vector<Matrix<const T>> inputs;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      inputs.push_back(matrix<T>(arrays[i], "x"));
      if (inputs[i].cols != graph.size(i) || inputs[i].rows != inputs[0].rows) {
        throw py::value_error("the input's width does not fit");
      }
      checked_product({inputs[i].rows, inputs[i].cols}, "x");
    }
    Run run;
    const Unlocked unlocked;
    with_team(threads, [&] {
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        if (scan_rows(inputs[i]) & kernels::kNotFinite) {
          throw Error("x is not finite");
        }
        const Layout& layout = layouts[i];
        if (!layout.same()) {
          run.converted.emplace_back(checked_product({inputs[i].rows, layout.size()}, "x"), graph.workspace());
          const Matrix<T> made{run.converted.back().data(), inputs[i].rows, layout.size(), layout.size()};
          to_core(layout, inputs[i], made, threads);
          inputs[i] = {made.data, made.rows, made.cols, made.stride};
        }
      }
      run.forward = forward(inputs);
    });
    return run;
  }

  // Little work is done before another thread is awake: then the calling thread is alone.
  Threads threads_worth(int count, const py::list& inputs, Index targets) const {
    const py::array first = inputs.empty() ? py::array() : py::reinterpret_borrow<py::array>(inputs[0]);
    const Index samples = first.ndim() > 0 ? first.shape(0) : 1;
    const auto work = static_cast<double>(bounded_product({graph.work(), samples, targets}));
    return threads_for(count).alone_if(work < kWorthTeam);
  }

  // finite: becomes false where a number is not.
  py::list outputs_of(const Run& run, const std::vector<std::size_t>& wanted, const Threads& threads,
                      bool* finite = nullptr) const {
    py::list outputs;
    for (const std::size_t value : wanted) {
      const Layout& layout = layouts[value];
      Matrix<T> user;
      outputs.append(new_array<T>(false, run.forward.batch, layout.size(), &user));
      const Matrix<const T> core = run.forward.values[value];
      if (layout.same()) {
        for (Index i = 0; i < core.rows; ++i) {
          std::copy_n(core.row(i), core.cols, user.row(i));
        }
      } else {
        to_user(layout, core, user, threads);
      }
      if (finite != nullptr && (scan_rows(core) & kernels::kNotFinite)) {
        *finite = false;
      }
    }
    return outputs;
  }
};

}  // namespace pylrp::bindings
