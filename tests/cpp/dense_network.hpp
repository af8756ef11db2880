// Dense layers one above the other, for the tests of the engine and of threads.
#pragma once

#include <array>
#include <vector>

#include "net.hpp"

namespace pylrp {

// What stands between the layers, and their rules from the input up. Where a rule can reuse z = W a + b, the plan finds
// it in the activations (a ReLU, if relevance vanishes with its output) or must keep it beside them.
struct Kind {
  bool smooth;  // leaky ReLU and tanh, at the top too; else ReLU between the layers
  std::array<const char*, 3> rules;
};
inline constexpr Kind kQuestion{false, {"w^2", "z+", "epsilon"}};
inline constexpr Kind kKinds[] = {kQuestion,
                                  {false, {"epsilon", "epsilon", "epsilon"}},
                                  {false, {"epsilon", "w^2", "epsilon"}},
                                  {true, {"epsilon", "z+", "epsilon"}}};

// Dense layers one above the other.
template <class T>
struct Network {
  Net<T> net;
  std::vector<std::size_t> inputs, outputs;  // of each layer: what it reads, what it makes before the activation
  std::size_t top;
  Inputs<T> x;

  explicit Network(const std::vector<Index>& widths, Index batch, const Kind& kind = kQuestion, bool spied = true)
      : net({widths.front()}, spied), top(0), x(net, 1, batch, 5, true) {
    const std::size_t depth = widths.size() - 1;
    for (std::size_t l = 0; l < depth; ++l) {
      inputs.push_back(top);
      top = net.dense(top, widths[l + 1], kind.rules[l + 3 - depth]);  // with fewer layers those at the top
      outputs.push_back(top);
      if (kind.smooth) {
        top = net.activation(net.activation(top, {ActivationKind::kLeakyReLU, 0.5}), {ActivationKind::kTanh});
      } else if (l + 1 < depth) {
        top = net.relu(top);
      }
    }
  }
  // wanted: the inputs of the layers and the top.
  Question<T> question(int threads, bool values = true) const {
    Question<T> question{top, 1, {}, inputs, {}, threads};
    if (values) {
      question.wanted = inputs;
    }
    question.wanted.push_back(top);
    return question;
  }
  Answer<T> explain(const Plan<T>& plan, int threads) { return ask(net, plan, x, question(threads)); }
  // Everything in an answer.
  std::vector<T> numbers(const Answer<T>& answer) const {
    std::vector<T> all = answer.values[top];
    for (const std::size_t value : inputs) {
      all.insert(all.end(), answer.relevance[value].begin(), answer.relevance[value].end());
    }
    return all;
  }
};

}  // namespace pylrp
