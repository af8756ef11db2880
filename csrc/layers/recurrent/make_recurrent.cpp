// Recurrent layers from their description: gates in the core's order, weights packed.
#include <algorithm>
#include <utility>

#include "layers/recurrent/recurrent.hpp"
#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void RecurrentLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  const SequencePlaces& p = places_;
  require_fit(p.steps > 0 && p.features >= 0 && p.x_step >= 0 && p.x_feature >= 0 && p.y_step >= 0 && p.y_unit >= 0,
              "the steps of a sequence");
  const Index entries = checked_product({p.steps, std::max<Index>(p.features, 1)}, "a sequence");
  const Index made = checked_product({p.steps, states()}, "a sequence of states");
  for (const Index step : {p.x_step, p.x_feature, p.y_step, p.y_unit}) {
    require_fit(step <= kMostEntries, "the steps of a sequence");
  }
  const auto reach = [](Index rows, Index row, Index cols, Index col) {
    return checked_product({rows - 1, row}, "a sequence") + checked_product({cols - 1, col}, "a sequence");
  };
  require_fit(!inputs.empty() && entries > 0 && inputs[0] == checked_product({p.steps, p.features}, "a sequence") &&
                  (p.features == 0 || reach(p.steps, p.x_step, p.features, p.x_feature) < inputs[0]),
              "a sequence and the weights of a recurrent layer");
  require_fit(p.sequence < 0 ||
                  (p.sequence <= output - made && reach(p.steps, p.y_step, states(), p.y_unit) < output - p.sequence),
              "the sequence that a recurrent layer makes");
  require_fit(p.last_h <= output - states() && p.last_c <= output - states(), "the states of a recurrent layer");
  Index taken = 1;
  const auto require_input = [&](int input, Index size, Index other) {
    if (input >= 0) {
      ++taken;
      const std::size_t k = static_cast<std::size_t>(input);
      require_fit(input > 0 && k < inputs.size() && (inputs[k] == size || inputs[k] == other),
                  "the inputs of a recurrent layer");
    }
  };
  require_input(inputs_.lengths, 1, p.steps);
  require_input(inputs_.h, states(), states());
  require_input(inputs_.c, states(), states());
  require_fit(taken == static_cast<Index>(inputs.size()), "the inputs of a recurrent layer");
  checked_product({kept_entries(true), Index{sizeof(T)}}, "what a recurrent layer keeps");
}

template void RecurrentLayer<float>::require_sizes(const std::vector<Index>&, Index) const;
template void RecurrentLayer<double>::require_sizes(const std::vector<Index>&, Index) const;

namespace {

// The rows of some gates in the core's order; order[i]: the block of rows in which gate i lies.
template <class T>
std::vector<T> ordered(Matrix<const T> given, Index first, Index units, const std::vector<Index>& order) {
  std::vector<T> made;
  for (const Index gate : order) {
    for (Index j = 0; j < units; ++j) {
      const T* const row = given.row(first + gate * units + j);
      made.insert(made.end(), row, row + given.cols);
    }
  }
  return made;
}

template <class T>
std::unique_ptr<Panels<T>> packed(const T* rows, Index count, Index cols, Direction direction) {
  auto panels = std::make_unique<Panels<T>>(Matrix<const T>{rows, count, cols, cols}, WeightMap{}, direction, nullptr);
  panels->make();
  for (Index p = 0; p < panels->count(); ++p) {
    panels->pack(p);
  }
  return panels;
}

// One of some rows of numbers, or none.
template <class T>
std::vector<T> row_of(const Fields<T>& fields, const char* name, Index row, Index size) {
  if (!fields.has(name)) {
    return {};
  }
  const Matrix<const T> given = fields.matrix(name);
  require_fit(given.cols == size && row < given.rows, "the numbers beside a recurrent layer's weights");
  return {given.row(row), given.row(row) + size};
}

template <class T>
Cell cell_of(const std::string& kind, const Fields<T>& fields, Index units, std::size_t direction) {
  Cell cell;
  cell.kind = kind == "lstm" ? CellKind::kLSTM : (kind == "gru" ? CellKind::kGRU : CellKind::kRNN);
  cell.units = units;
  const std::vector<double> a = fields.reals("alphas"), b = fields.reals("betas");
  Activation* const parts[] = {&cell.gate, &cell.inner, &cell.outer};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t at = 3 * direction + i;
    require_fit(at < a.size() && at < b.size(), "the activations of a recurrent layer");
    *parts[i] = activation_named(fields.text("activations", {at}), a[at], b[at]);
  }
  cell.clip = fields.real("clip");
  cell.reset_after = fields.flag("reset_after");
  cell.coupled = fields.flag("coupled");
  return cell;
}

template <class T>
OneDirection<T> direction_of(const std::string& kind, const Fields<T>& fields, Index number) {
  const Matrix<const T> weight = fields.matrix("weight"), state = fields.matrix("recurrent");
  const Index units = state.cols;
  OneDirection<T> made;
  made.cell = cell_of(kind, fields, units, static_cast<std::size_t>(number));
  const Index sums = made.cell.sums(), first = number * sums;
  const std::vector<Index> order = fields.integers("order");
  require_fit(
      units > 0 && state.rows == weight.rows && first + sums <= weight.rows &&
          static_cast<Index>(order.size()) == made.cell.gates() &&
          std::all_of(order.begin(), order.end(), [&](Index gate) { return gate >= 0 && gate < made.cell.gates(); }),
      "the weights of a recurrent layer");
  made.reverse = fields.integer("reverse", {static_cast<std::size_t>(number)}) != 0;
  const std::vector<T> w = ordered(weight, first, units, order), u = ordered(state, first, units, order);
  const Index inner = sums - units;  // the cell gate's first row
  const bool two = kind == "gru" && !made.cell.reset_after;
  made.input = packed(w.data(), sums, weight.cols, Direction::kForward);
  made.state = packed(u.data(), two ? inner : sums, units, Direction::kForward);
  if (two) {
    made.last_state = packed(u.data() + inner * units, units, units, Direction::kForward);
  }
  made.input_back = packed(w.data() + inner * weight.cols, units, weight.cols, Direction::kBackward);
  made.state_back = packed(u.data() + inner * units, units, units, Direction::kBackward);
  for (const auto& [name, bias] : {std::pair{"bias", &made.bias}, std::pair{"state_bias", &made.state_bias}}) {
    bias->assign(static_cast<std::size_t>(sums), T(0));
    if (fields.has(name)) {
      const Matrix<const T> given = fields.matrix(name);
      require_fit(given.rows == weight.rows && given.cols == 1, "the biases of a recurrent layer");
      *bias = ordered(given, first, units, order);
    }
  }
  if (!made.cell.reset_after) {
    std::transform(made.bias.begin(), made.bias.end(), made.state_bias.begin(), made.bias.begin(), std::plus<>());
  }
  made.peepholes = row_of(fields, "peepholes", number, 3 * units);
  made.first_h = row_of(fields, "first_h", number, units);
  made.first_c = row_of(fields, "first_c", number, units);
  return made;
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string& kind, const Fields<T>& fields) {
  const std::vector<Index> x = fields.integers("x"), y = fields.integers("y"), ends = fields.integers("ends");
  require_fit(x.size() == 4 && y.size() == 3 && ends.size() == 2, "the places of a sequence");
  const Index directions = static_cast<Index>(fields.integers("reverse").size());
  require_fit(directions == 1 || directions == 2, "the directions of a recurrent layer");
  std::vector<OneDirection<T>> made;
  for (Index number = 0; number < directions; ++number) {
    made.push_back(direction_of(kind, fields, number));
  }
  require_fit(fields.matrix("weight").cols == x[1] && fields.matrix("weight").rows == directions * made[0].cell.sums(),
              "a sequence and the weights of a recurrent layer");
  const std::vector<Index> inputs = fields.integers("inputs");
  require_fit(inputs.size() == 3, "the inputs of a recurrent layer");
  const SequencePlaces places{x[0], x[1], x[2], x[3], y[0], y[1], y[2], ends[0], ends[1], fields.flag("carried")};
  const RecurrentInputs numbers{static_cast<int>(inputs[0]), static_cast<int>(inputs[1]), static_cast<int>(inputs[2])};
  return std::make_unique<RecurrentLayer<T>>(places, numbers, std::move(made));
}

}  // namespace

void register_recurrent(LayerKinds* kinds) {
  for (const char* kind : {"lstm", "gru", "rnn"}) {
    kinds->add(kind, make<float>, make<double>);
  }
}

}  // namespace pylrp
