// What is added to attention's scores: which keys that leaves open to a query, and the row of it. For attention.cpp.
//
// An added number that is the largest there is closes its place (layers/shift.cpp): the score is -inf.
#pragma once

#include <cstddef>
#include <vector>

#include "base/view.hpp"

namespace pylrp {

// Where a head's matrix lies: in which input, where it begins for each head, the steps of its rows and columns.
struct HeadMatrix {
  std::size_t input = 0;
  std::vector<Index> at;
  Index row = 0, col = 0;
};

// What is added to the scores (queries, keys): a constant, or an input.
template <class T>
struct AddedToScores {
  HeadMatrix matrix;
  bool is_input = true;
  std::vector<T> constant;
};

// The keys that a query may see, in [first, last); the others are closed.
struct Open {
  Index first = 0, last = 0;
  Index count() const { return last - first; }
};

// All that is added in a layer.
template <class T>
class Masks {
 public:
  Masks() = default;
  Masks(std::vector<AddedToScores<T>> added, Index queries, Index keys);
  const std::vector<AddedToScores<T>>& added() const { return added_; }

 private:
  template <class>
  friend class MasksOfHead;
  void find_open(std::size_t number);

  std::vector<AddedToScores<T>> added_;  // without the numbers of constants that only close
  Index keys_ = 0;
  std::vector<Open> open_;         // of the queries, by the constants, of all heads together
  std::vector<bool> only_closes_;  // 0 wherever open_ is
};

// The same for one head of one sample.
template <class T>
class MasksOfHead {
 public:
  // inputs: the layer's, as rows of the sample.
  MasksOfHead(const Masks<T>& masks, const std::vector<const T*>& inputs, std::size_t head);
  Open open(Index query) const;
  // From open.first on; null: nothing is added. Valid until the next call.
  const T* row(Index query, const Open& open);

 private:
  struct Source {
    const T* from;  // of this head
    Index row, col;
    bool is_input;
  };
  const Masks<T>& masks_;
  std::vector<Source> sources_;  // without those that only close
  Open open_;                    // by the sources that are the same for all queries
  std::vector<T> memory_;
};

}  // namespace pylrp
