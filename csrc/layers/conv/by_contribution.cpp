// A kernel of one with inputs of both signs, where many outputs have no relevance (behind a ReLU): the contributions
// w a of the others one by one, each multiplied once for its sum and once for its share. That is 3 steps an entry where
// products with W+ and W- take 4, entries without relevance cost nothing, nothing cancels and no weights are mapped.
#include <algorithm>
#include <type_traits>

#include "kernels/contributions.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"
#include "layers/conv/positions.hpp"
#include "products/lists.hpp"
#include "rules/contributions.hpp"

namespace pylrp {
namespace {

constexpr Index kWeightBytes = Index{48} << 10;  // of a block of outputs, whose weights stay in the cache
constexpr Index kMostInputs = 512;               // more: not measured
constexpr std::size_t kMostGroups = 2;

Index lanes() { return kernels::table<float>().tile_cols / 2; }

// The usual products are four at least: else there is nothing to win.
bool has_four_products(const LoweredRule& rule) {
  std::size_t products = rule.back.size();
  for (const Sum& sum : rule.sums) {
    products += sum.size();
  }
  return products >= 4;
}

// Whether what is above and what is below zero is summed up apart; else one f is all.
bool is_apart(const ByContribution& made, const LoweredRule& rule) {
  return made.denominators.size() > 1 || rule.masked || !(made.denominators[0] == made.sent[0]);
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  ByContribution made;
  return std::is_same_v<T, float> && kernels::contributions() != nullptr && w.is_1x1() &&
         w.source_channels() <= kMostInputs && !rule.groups.empty() && rule.groups.size() <= kMostGroups &&
         !rule.sums.empty() && has_four_products(rule) && by_contribution(rule, &made) &&
         (kernels::contributions()->apart || !is_apart(made, rule));
}

// Of some of its positions.
double share_with_relevance(const Matrix<const float>& relevance, Index channels) {
  const Index positions = relevance.cols / channels, apart = std::clamp<Index>(positions / 16, 1, 32);
  Index kept = 0, counted = 0;
  for (Index i = 0; i < relevance.rows; ++i) {
    for (Index p = apart / 2; p < positions; p += apart) {
      kept += kernels::table<float>().nonzeros(channels, relevance.row(i) + p * channels, 0);
      counted += channels;
    }
  }
  return static_cast<double>(kept) / static_cast<double>(std::max<Index>(counted, 1));
}

// Contributions take the time of products where so many outputs have relevance: measured with 16 to 512 inputs. The sum
// across lanes that each output ends with weighs more where inputs are few.
double most_with_relevance(const ConvCall<float>& call) {
  ByContribution made;
  by_contribution(call.rule, &made);
  if (is_apart(made, call.rule)) {
    return 0.5;
  }
  return lanes() < 16 || call.weights.source_channels() <= 32 ? 0.6 : 0.8;
}

bool wins(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  if (call.threads.bfloat16 || forced_left_path() == LeftPath::kTiles) {
    return false;
  }
  const double share = share_with_relevance(job.relevance, call.weights.target_channels());
  // Products make the sums once for all targets.
  const double targets = static_cast<double>(job.targets());
  return share < most_with_relevance(call) * (1 + targets) / (2 * targets);
}

template <class T>
bool applies(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    const Matrix<const float> w = call.weights.matrix();
    // An entry without relevance reads no weights, which are to show up all the same if they are not finite.
    return wins(call) && (kernels::table<float>().scan(w.rows * w.cols, w.data) & kernels::kNotFinite) == 0;
  }
  return false;
}

void combine(const OfContribution& f, float* coef) {
  coef[0] = static_cast<float>(f.above);
  coef[1] = static_cast<float>(f.below);
}

// What all tasks read.
struct Contributing {
  explicit Contributing(const ConvCall<float>& call_)
      : call(call_), constants(call.weights, call.rule, false), shares(constants.args) {
    by_contribution(call.rule, &rule);
    const OfContribution& f = rule.denominators[0];
    apart = is_apart(rule, call.rule);
    plain = apart ? 0.0F : static_cast<float>(f.below);
    extra = apart ? 0.0F : static_cast<float>(f.above - f.below);
    const ConvWeights<float>& w = call.weights;
    in = w.source_channels();
    out = w.target_channels();
    stride = (in + lanes() - 1) / lanes() * lanes();
    weights.reset(out * stride);
    for (Index j = 0; j < out; ++j) {
      std::copy_n(w.at(j, 0, 0), in, weights.data() + j * stride);
      std::fill_n(weights.data() + j * stride + in, stride - in, 0.0F);
    }
    const Index fitting = std::clamp<Index>(kWeightBytes / (stride * Index{sizeof(float)}), 1, out);
    blocks = (out + fitting - 1) / fitting;
    most = (out + blocks - 1) / blocks;
    shares.sums = apart ? 2 : 1;
    for (std::size_t g = 0; g < rule.denominators.size(); ++g) {
      combine(apart ? rule.denominators[g] : OfContribution{1, 0}, shares.group[g].coef);
    }
    combine(rule.plain, shares.plain);
  }
  // What an entry of a list takes: its relevance, step and two sums, and two constants.
  static constexpr Index kEntryBytes = 5 * Index{sizeof(float)} + 2;
  Index row_bytes() const { return most * kEntryBytes + (2 * stride + out) * Index{sizeof(float)}; }

  const ConvCall<float>& call;
  ShareConstants<float> constants;
  kernels::Shares<float> shares;
  ByContribution rule;
  bool apart;
  float plain, extra;                   // of f
  Index in, out, stride, blocks, most;  // outputs of a block, at most
  Buffer<float> weights;
};

// Some positions of a sample, for one target after the other.
class ContributingBlock {
 public:
  ContributingBlock(const Contributing& of, Index rows)
      : of_(of),
        rows_(rows),
        size_(rows * of.most + kernels::kSpare),
        inputs_(rows * of.stride),
        sent_back_(rows * of.stride),
        memory_(5 * size_),
        steps_(size_),
        begins_(static_cast<std::size_t>(rows + 1)) {
    float* at = memory_.data();
    for (float** entries : {&relevance_, &sums_[0], &sums_[1], &biases_[0], &biases_[1]}) {
      *entries = at;
      at += size_;
    }
  }
  void read(const float* x) {
    for (Index i = 0; i < rows_; ++i) {
      float* const row = inputs_.data() + i * of_.stride;
      std::fill(std::copy_n(x + i * of_.in, of_.in, row), row + of_.stride, 0.0F);
    }
  }
  void run(const float* relevance, float* out, kernels::Absorbed* lost) {
    for (Index block = 0; block < of_.blocks; ++block) {
      const Index first = of_.out * block / of_.blocks;
      make_lists(relevance, first, of_.out * (block + 1) / of_.blocks - first);
      make_sums(first);
      make_shares(first, lost);
      each_part(first, [&](const kernels::Contributions& part, Index column) {
        kernels::contributions()->send(part, sums_[0], below(), block > 0, sent_back_.data() + column);
      });
    }
    for (Index i = 0; i < rows_; ++i) {
      std::copy_n(sent_back_.data() + i * of_.stride, of_.in, out + i * of_.in);
    }
  }

 private:
  void make_lists(const float* relevance, Index first, Index outputs) {
    count_ = 0;
    for (Index i = 0; i < rows_; ++i) {
      begins_[static_cast<std::size_t>(i)] = count_;
      count_ += kernels::table<float>().compress(outputs, relevance + i * of_.out + first, 0, 0, relevance_ + count_,
                                                 steps_.data() + count_);
    }
    begins_[static_cast<std::size_t>(rows_)] = count_;
    std::fill_n(steps_.data() + count_, kernels::kSpare, std::uint16_t{0});
  }
  // With the columns that the kernels take at once.
  template <class Body>
  void each_part(Index first, Body body) const {
    const Index most = kernels::contributions()->columns, parts = (of_.in + most - 1) / most;
    const Index width = (of_.stride / lanes() + parts - 1) / parts * lanes();
    for (Index column = 0; column < of_.in; column += width) {
      body(kernels::Contributions{.rows = rows_,
                                  .begins = begins_.data(),
                                  .at = steps_.data(),
                                  .w = of_.weights.data() + first * of_.stride + column,
                                  .x = inputs_.data() + column,
                                  .stride = of_.stride,
                                  .columns = std::min(width, of_.in - column),
                                  .plain = of_.plain,
                                  .extra = of_.extra},
           column);
    }
  }
  float* below() const { return of_.apart ? sums_[1] : nullptr; }
  void make_sums(Index first) {
    each_part(first, [&](const kernels::Contributions& part, Index column) {
      if (column == 0) {
        return kernels::contributions()->sum(part, sums_[0], below());
      }
      more_.reset(2 * size_);
      float* const more[] = {more_.data(), more_.data() + size_};
      kernels::contributions()->sum(part, more[0], of_.apart ? more[1] : nullptr);
      for (int side = 0; side < (of_.apart ? 2 : 1); ++side) {
        for (Index e = 0; e < count_; ++e) {
          sums_[side][e] += more[side][e];
        }
      }
    });
  }
  // Of each entry what the denominators hold at its output, `first` further than its step; null stays null.
  const float* at_entries(const float* of_outputs, Index first, float* to) const {
    if (of_outputs == nullptr) {
      return nullptr;
    }
    for (Index e = 0; e < count_; ++e) {
      to[e] = of_outputs[first + steps_.data()[e]];
    }
    return to;
  }
  void make_shares(Index first, kernels::Absorbed* lost) {
    kernels::Shares<float> shares = of_.shares;
    // Without constant terms, which no rule by contributions has, what is beside the sums is the bias.
    for (int g = 0; g < shares.groups; ++g) {
      shares.group[g].base = shares.group[g].bias = at_entries(shares.group[g].bias, first, biases_[g]);
    }
    Buffer<float> plain(shares.masked && shares.plain_base ? size_ : 0);
    shares.plain_base = shares.masked ? at_entries(shares.plain_base, first, plain.data()) : nullptr;
    kernels::table<float>().shares({.rows = 1,
                                    .cols = count_,
                                    .rule = shares,
                                    .z = sums_,
                                    .z_stride = count_,
                                    .r = relevance_,
                                    .r_stride = count_,
                                    .s = sums_,
                                    .s_stride = count_,
                                    .ledger = lost,
                                    .ledger_step = 0});
    weigh();
  }
  // From the shares of the groups to what contributions above and below zero are multiplied with.
  void weigh() {
    const std::vector<OfContribution>& f = of_.rule.sent;
    if (!of_.apart || (f[0] == OfContribution{1, 0} && f.size() > 1 && f[1] == OfContribution{0, 1})) {
      return;
    }
    float factors[2][2] = {};  // [side][group]
    for (std::size_t g = 0; g < f.size(); ++g) {
      factors[0][g] = static_cast<float>(f[g].above);
      factors[1][g] = static_cast<float>(f[g].below);
    }
    const float* const s = sums_[0];
    const float* const t = f.size() > 1 ? sums_[1] : s;
    for (Index e = 0; e < count_; ++e) {
      const float a = s[e], b = t[e];
      sums_[0][e] = factors[0][0] * a + factors[0][1] * b;
      sums_[1][e] = factors[1][0] * a + factors[1][1] * b;
    }
  }

  const Contributing& of_;
  Index rows_, size_, count_ = 0;
  Buffer<float> inputs_, sent_back_;  // (rows, stride)
  Buffer<float> memory_, more_;
  Buffer<std::uint16_t> steps_;
  std::vector<Index> begins_;
  float *relevance_, *sums_[2], *biases_[2];  // of each entry; the sums become shares
};

template <class T>
void run(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    const RelevanceJob<float>& job = call.job;
    const Contributing shared(call);
    const PositionTasks tasks(job.batch, count(call.weights.target()), shared.row_bytes(), 1);
    const Index targets = job.targets(), in = shared.in;
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks.count() * targets));
    tasks.each(call.threads, [&](Index task, Index sample, Index first, Index rows) {
      ContributingBlock block(shared, rows);
      block.read(job.inputs[0].row(sample) + first * in);
      for (Index t = 0; t < targets; ++t) {
        const Index row = t * job.batch + sample;
        block.run(job.relevance.row(row) + first * shared.out, job.results[0].row(row) + first * in,
                  &lost[static_cast<std::size_t>(task * targets + t)]);
      }
    });
    const BatchSlice all{0, job.batch, 0, targets};
    for (Index task = 0; task < tasks.count(); ++task) {
      add_lost(job, all, task / tasks.parts, &lost[static_cast<std::size_t>(task * targets)]);
    }
  }
}

}  // namespace

template <class T>
RelevancePath<T> by_contribution_path() {
  return {ConvPath::kByContribution, may_run<T>, applies<T>, run<T>};
}

template RelevancePath<float> by_contribution_path<float>();
template RelevancePath<double> by_contribution_path<double>();

}  // namespace pylrp
