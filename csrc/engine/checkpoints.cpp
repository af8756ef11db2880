#include "engine/checkpoints.hpp"

#include <cmath>

namespace pylrp {

template <class T>
std::vector<std::size_t> checkpoints(const Graph<T>& graph, std::size_t start) {
  std::vector<std::size_t> chosen;
  if (start < graph.inputs()) {
    return chosen;
  }
  const std::size_t top = start - graph.inputs();
  std::vector<std::size_t> last_reader(top + 1, 0);  // of the nodes' values; 0: none up to the start
  double all = 0;
  for (std::size_t n = 0; n <= top; ++n) {
    all += static_cast<double>(graph.nodes()[n].size);
    for (const std::size_t value : graph.nodes()[n].inputs) {
      if (value >= graph.inputs()) {
        last_reader[value - graph.inputs()] = n;
      }
    }
  }
  std::vector<std::size_t> ends(top + 1, 0);  // how many values are read last by a node
  for (std::size_t n = 0; n <= top; ++n) {
    if (last_reader[n] > n) {
      ++ends[last_reader[n]];
    }
  }
  std::size_t alive = 0;
  double since = 0;
  for (std::size_t n = 0; n < top; ++n) {
    alive -= ends[n];
    const bool read = last_reader[n] > n;
    alive += read ? 1 : 0;
    const double size = static_cast<double>(graph.nodes()[n].size);
    since += size;
    if (read && alive == 1 && since * since >= all * size) {
      chosen.push_back(n);
      since = 0;
    }
  }
  return chosen;
}

template std::vector<std::size_t> checkpoints<float>(const Graph<float>&, std::size_t);
template std::vector<std::size_t> checkpoints<double>(const Graph<double>&, std::size_t);

}  // namespace pylrp
