// Attention from its description: lengths, and where the heads' matrices lie.
#include <memory>
#include <string>
#include <utility>

#include "layers/attention/segmented.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

template <class T>
HeadMatrix matrix_of(const Fields<T>& fields, const std::string& name) {
  HeadMatrix matrix;
  matrix.at = fields.integers((name + "_at").c_str());
  const std::vector<Index> rest = fields.integers(name.c_str());
  require_fit(rest.size() == 3 && rest[0] >= 0, "where an attention's heads lie");
  matrix.input = static_cast<std::size_t>(rest[0]);
  matrix.row = rest[1];
  matrix.col = rest[2];
  return matrix;
}

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  Heads heads;
  std::vector<AddedToScores<T>> added;
  const std::vector<Index> lengths = fields.integers("lengths");
  require_fit(lengths.size() == 4, "the lengths of an attention");
  heads.queries = lengths[0];
  heads.keys = lengths[1];
  heads.width = lengths[2];
  heads.value_width = lengths[3];
  heads.scale = fields.real("scale");
  heads.cap = fields.real("cap");
  heads.q = matrix_of(fields, "q");
  heads.k = matrix_of(fields, "k");
  heads.v = matrix_of(fields, "v");
  heads.out = matrix_of(fields, "out");
  const Index count = fields.integer("added");
  for (Index number = 0; number < count; ++number) {
    const std::string name = "added" + std::to_string(number);
    AddedToScores<T> each;
    each.matrix = matrix_of(fields, name);
    const std::string constant = name + "_constant";
    each.is_input = !fields.has(constant.c_str());
    if (!each.is_input) {
      each.constant = fields.vector(constant.c_str());
    }
    added.push_back(std::move(each));
  }
  for (const Index covered : fields.integers("covered")) {
    heads.covered.push_back(covered != 0);
  }
  if (fields.has("segments")) {
    const std::vector<Index> given = fields.integers("segments");  // and what is added: input, by query, heads' step
    require_fit(given.size() == 4 && given[0] >= 0 && added.empty(), "the samples of an attention");
    const AddedBySegment more{static_cast<int>(given[1]), given[2] != 0, given[3]};
    return std::make_unique<SegmentedAttention<T>>(std::move(heads), static_cast<std::size_t>(given[0]), more);
  }
  return std::make_unique<AttentionLayer<T>>(std::move(heads), std::move(added));
}

}  // namespace

void register_attention(LayerKinds* kinds) { kinds->add("attention", make<float>, make<double>); }

}  // namespace pylrp
