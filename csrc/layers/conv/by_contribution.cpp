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
constexpr Index kMostTargets = 16;   // that share a list
constexpr double kMostAlone = 1.25;  // entries of it, as a multiple of those that a target has

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

// The relevance of targets that go together, of a sample's position on: one behind the other.
struct TargetRows {
  const float* first;
  Index step, targets;
};
TargetRows rows_of(const RelevanceJob<float>& job, Index target, Index targets, Index sample, Index at) {
  const Matrix<const float>& relevance = job.relevance;
  return {relevance.row(target * job.batch + sample) + at, job.batch * relevance.stride, targets};
}

// Outputs with relevance, as a share: of each target, and of one of those that would go together.
struct Kept {
  double each, any;
};
// Of some of its positions.
Kept shares_with_relevance(const RelevanceJob<float>& job, Index channels) {
  const Index positions = job.relevance.cols / channels, apart = std::clamp<Index>(positions / 16, 1, 32);
  const Index targets = std::min(job.targets(), kMostTargets);
  const Buffer<float> values(targets * (channels + kernels::kSpare));
  const Buffer<std::uint16_t> steps(channels + kernels::kSpare);
  Index each = 0, any = 0, counted = 0;
  for (Index i = 0; i < job.batch; ++i) {
    for (Index p = apart / 2; p < positions; p += apart) {
      const TargetRows rows = rows_of(job, 0, targets, i, p * channels);
      for (Index t = 0; t < targets; ++t) {
        each += kernels::table<float>().nonzeros(channels, rows.first + t * rows.step, 0);
      }
      any += targets == 1 ? 0
                          : kernels::contributions()->compress_targets(channels, static_cast<int>(targets), rows.first,
                                                                       rows.step, values.data(),
                                                                       channels + kernels::kSpare, steps.data());
      counted += channels;
    }
  }
  const double all = static_cast<double>(std::max<Index>(counted, 1));
  return {static_cast<double>(each) / all / static_cast<double>(targets), static_cast<double>(any) / all};
}
// How many targets go together: where most have relevance at the same outputs, behind a ReLU, they have one list.
Index targets_together(const RelevanceJob<float>& job, const Kept& kept) {
  return kept.any > kMostAlone * kept.each ? 1 : std::min(job.targets(), kMostTargets);
}

// Contributions take the time of products where so many outputs have relevance: measured with 16 to 512 inputs. The sum
// across lanes that each output ends with weighs more where inputs are few.
double most_with_relevance(const ConvCall<float>& call) {
  if (is_apart(call.form.contributions->rule, call.rule)) {
    return 0.5;
  }
  return lanes() < 16 || call.weights.source_channels() <= 32 ? 0.6 : 0.8;
}

bool wins(const ConvCall<float>& call) {
  const RelevanceJob<float>& job = call.job;
  if (call.threads.bfloat16 || forced_left_path() == LeftPath::kTiles) {
    return false;
  }
  const Kept kept = shares_with_relevance(job, call.weights.target_channels());
  if (targets_together(job, kept) > 1) {  // sums are made once for many of them, as products do
    return kept.any < most_with_relevance(call);
  }
  const double targets = static_cast<double>(job.targets());
  return kept.each < most_with_relevance(call) * (1 + targets) / (2 * targets);
}

template <class T>
bool applies(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    // An entry without relevance reads no weights, which are to show up all the same if they are not finite.
    return call.form.contributions->finite && wins(call);
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
      : call(call_),
        constants(call.weights, call.rule, false),
        shares(constants.args),
        rule(call.form.contributions->rule) {
    const OfContribution& f = rule.denominators[0];
    apart = is_apart(rule, call.rule);
    plain = apart ? 0.0F : static_cast<float>(f.below);
    extra = apart ? 0.0F : static_cast<float>(f.above - f.below);
    const ConvWeights<float>& w = call.weights;
    in = w.source_channels();
    out = w.target_channels();
    stride = (in + lanes() - 1) / lanes() * lanes();
    weights = w.weight;
    if (stride != in) {
      own_weights.reset(out * stride);
      pad(w.weight, out, own_weights.data());
      weights = own_weights.data();
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
  // Rows of whole vectors.
  void pad(const float* from, Index rows, float* to) const {
    for (Index i = 0; i < rows; ++i) {
      std::fill(std::copy_n(from + i * in, in, to + i * stride), to + (i + 1) * stride, 0.0F);
    }
  }
  // What an entry of a list takes: its step, two sums and two constants, and the shares of each target.
  Index entry_bytes(Index targets) const { return 2 + (4 + (apart ? 2 : 1) * targets) * Index{sizeof(float)}; }
  Index row_bytes(Index targets) const {
    return most * entry_bytes(targets) + (stride + targets * (stride + out)) * Index{sizeof(float)};
  }

  const ConvCall<float>& call;
  ShareConstants<float> constants;
  kernels::Shares<float> shares;
  const ByContribution& rule;
  bool apart;
  float plain, extra;                   // of f
  Index in, out, stride, blocks, most;  // outputs of a block, at most
  const float* weights;
  Buffer<float> own_weights;
};

// Some positions of a sample, for targets that share their lists.
class ContributingBlock {
 public:
  ContributingBlock(const Contributing& of, Index rows, Index targets)
      : of_(of),
        rows_(rows),
        targets_(targets),
        size_(rows * of.most + kernels::kSpare),
        own_inputs_(of.stride == of.in ? 0 : rows * of.stride),
        own_sent_back_(sends_at_once() ? 0 : targets * rows * of.stride),
        memory_((4 + (of.apart ? 2 : 1) * targets) * size_),
        steps_(size_),
        begins_(static_cast<std::size_t>(rows + 1)) {
    float* at = memory_.data();
    for (float** entries : {&sums_[0], &sums_[1], &biases_[0], &biases_[1], &shares_[0]}) {
      *entries = at;
      at += size_;
    }
    shares_[1] = shares_[0] + (of.apart ? targets * size_ : 0);
  }
  void read(const float* x) {
    inputs_ = x;
    if (of_.stride != of_.in) {
      of_.pad(x, rows_, own_inputs_.data());
      inputs_ = own_inputs_.data();
    }
  }
  // out may be what was read, if there is one target.
  void run(const TargetRows& relevance, float* out, Index out_step, kernels::Absorbed* lost) {
    sent_back_ = sends_at_once() ? out : own_sent_back_.data();
    sent_step_ = sends_at_once() ? out_step : rows_ * of_.stride;
    for (Index block = 0; block < of_.blocks; ++block) {
      const Index first = of_.out * block / of_.blocks;
      make_lists(relevance, first, of_.out * (block + 1) / of_.blocks - first);
      make_sums(first);
      make_shares(first, lost);
      each_part(first, [&](const kernels::Contributions& part, Index column) { send(part, column, block > 0); });
    }
    for (Index i = 0; !sends_at_once() && i < targets_ * rows_; ++i) {
      std::copy_n(sent_back_ + i * of_.stride, of_.in, out + i / rows_ * out_step + i % rows_ * of_.in);
    }
  }

 private:
  bool sends_at_once() const { return of_.stride == of_.in && of_.blocks == 1; }
  // The relevance of the entries, which shares will take the place of.
  void make_lists(const TargetRows& relevance, Index first, Index outputs) {
    count_ = 0;
    for (Index i = 0; i < rows_; ++i) {
      begins_[static_cast<std::size_t>(i)] = count_;
      const float* const row = relevance.first + i * of_.out + first;
      count_ +=
          targets_ == 1
              ? kernels::table<float>().compress(outputs, row, 0, 0, shares_[0] + count_, steps_.data() + count_)
              : kernels::contributions()->compress_targets(outputs, static_cast<int>(targets_), row, relevance.step,
                                                           shares_[0] + count_, size_, steps_.data() + count_);
    }
    begins_[static_cast<std::size_t>(rows_)] = count_;
    std::fill_n(steps_.data() + count_, kernels::kSpare, std::uint16_t{0});
  }
  void send(const kernels::Contributions& part, Index column, bool add) const {
    float* const out = sent_back_ + column;
    if (!of_.apart) {
      kernels::contributions()->send_targets(part, static_cast<int>(targets_), shares_[0], size_, add, out, sent_step_);
      return;
    }
    for (Index t = 0; t < targets_; ++t) {
      kernels::contributions()->send(part, shares_[0] + t * size_, shares_[1] + t * size_, add, out + t * sent_step_);
    }
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
                                  .w = of_.weights + first * of_.stride + column,
                                  .x = inputs_ + column,
                                  .stride = of_.stride,
                                  .columns = std::min(width, of_.in - column),
                                  .plain = of_.plain,
                                  .extra = of_.extra},
           column);
    }
  }
  void make_sums(Index first) {
    each_part(first, [&](const kernels::Contributions& part, Index column) {
      if (column == 0) {
        return kernels::contributions()->sum(part, sums_[0], of_.apart ? sums_[1] : nullptr);
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
    for (Index t = 0; t < targets_; ++t) {
      float* const s[] = {shares_[0] + t * size_, shares_[1] + t * size_};
      kernels::table<float>().shares({.rows = 1,
                                      .cols = count_,
                                      .rule = shares,
                                      .z = sums_,
                                      .z_stride = count_,
                                      .r = s[0],
                                      .r_stride = count_,
                                      .s = s,
                                      .s_stride = count_,
                                      .ledger = lost + t,
                                      .ledger_step = 0});
      weigh(s);
    }
  }
  // From the shares of the groups to what contributions above and below zero are multiplied with.
  void weigh(float* const* shares) const {
    const std::vector<OfContribution>& f = of_.rule.sent;
    if (!of_.apart || (f[0] == OfContribution{1, 0} && f.size() > 1 && f[1] == OfContribution{0, 1})) {
      return;
    }
    float factors[2][2] = {};  // [side][group]
    for (std::size_t g = 0; g < f.size(); ++g) {
      factors[0][g] = static_cast<float>(f[g].above);
      factors[1][g] = static_cast<float>(f[g].below);
    }
    const float* const s = shares[0];
    const float* const t = f.size() > 1 ? shares[1] : s;
    for (Index e = 0; e < count_; ++e) {
      const float a = s[e], b = t[e];
      shares[0][e] = factors[0][0] * a + factors[0][1] * b;
      shares[1][e] = factors[1][0] * a + factors[1][1] * b;
    }
  }

  const Contributing& of_;
  Index rows_, targets_, size_, count_ = 0;
  const float* inputs_ = nullptr;             // (rows, stride)
  float* sent_back_ = nullptr;                // (rows, stride) of each target
  Index sent_step_ = 0;                       // from target to target
  Buffer<float> own_inputs_, own_sent_back_;  // where rows have to be padded or blocks added up
  Buffer<float> memory_, more_;
  Buffer<std::uint16_t> steps_;
  std::vector<Index> begins_;
  float *sums_[2], *biases_[2], *shares_[2];  // of each entry; shares: (targets, entries)
};

template <class T>
void run(const ConvCall<T>& call) {
  if constexpr (std::is_same_v<T, float>) {
    const RelevanceJob<float>& job = call.job;
    const Contributing shared(call);
    const Index targets = job.targets(), in = shared.in;
    const Index most = targets == 1 ? 1 : targets_together(job, shares_with_relevance(job, shared.out));
    const Index groups = (targets + most - 1) / most, together = (targets + groups - 1) / groups;
    const PositionTasks tasks(job.batch, count(call.weights.target()), shared.row_bytes(together), 1);
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(tasks.count() * targets));
    tasks.each(call.threads, [&](Index task, Index sample, Index first, Index rows) {
      for (Index g = 0; g < groups; ++g) {
        const Index t = targets * g / groups, count = targets * (g + 1) / groups - t;
        ContributingBlock block(shared, rows, count);
        block.read(job.inputs[0].row(sample) + first * in);
        block.run(rows_of(job, t, count, sample, first * shared.out),
                  job.results[0].row(t * job.batch + sample) + first * in, job.batch * job.results[0].stride,
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

ContributionForm contributions_of(const ConvWeights<float>& w, const LoweredRule& rule) {
  ContributionForm made;
  by_contribution(rule, &made.rule);
  const Matrix<const float> weights = w.matrix();
  made.finite = (kernels::table<float>().scan(weights.rows * weights.cols, weights.data) & kernels::kNotFinite) == 0;
  return made;
}

template <class T>
RelevancePath<T> by_contribution_path() {
  return {ConvPath::kByContribution, may_run<T>, applies<T>, run<T>};
}

template RelevancePath<float> by_contribution_path<float>();
template RelevancePath<double> by_contribution_path<double>();

}  // namespace pylrp
