// What a sample makes of its tokens where these are rows of the batch: the first, the last, the sum or the mean of
// them, in each of its rows, so that what follows takes rows as before. Relevance of all these rows goes back together.
//
//   first, last   R_x = R, of that token
//   sum, mean     y = w sum_t x_t,   R_x = w x R / y
#include "layers/segments.hpp"

#include <algorithm>

#include "base/pieces.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

enum class Pick { kFirst, kLast, kSum, kMean };

template <class T>
class SegmentsLayer : public Layer<T> {
 public:
  explicit SegmentsLayer(Pick pick) : pick_(pick) {}
  Flow flow() const override { return adds() ? Flow::kProportional : Flow::kRouted; }
  bool hands_to(std::size_t input, const CompiledRule*) const override { return input == 0; }
  bool reads_output(const CompiledRule*, bool) const override { return adds(); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    require_fit(inputs.size() == 2 && inputs[0] == output && inputs[1] == 2, "tokens and their samples");
  }

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads& threads) const override {
    each_segment(inputs[1], 1, output.cols, threads, [&](Index, const Segment& of) {
      T* const made = output.row(of.first);
      if (adds()) {
        const std::vector<double> sums = sum_of_rows(inputs[0], of.first, of.count);
        std::transform(sums.begin(), sums.end(), made, [&](double sum) { return static_cast<T>(weight(of) * sum); });
      } else {
        std::copy_n(inputs[0].row(picked(of)), output.cols, made);
      }
      for (Index i = 1; i < of.count; ++i) {
        std::copy_n(made, output.cols, output.row(of.first + i));
      }
    });
  }

  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    Stabilizer<double> exact(nullptr);
    exact.epsilon = 0;
    each_segment(job.inputs[1], job.targets(), job.relevance.cols, threads, [&](Index target, const Segment& of) {
      const Index shift = target * job.batch, cols = job.relevance.cols;
      std::vector<double> share = sum_of_rows(job.relevance, shift + of.first, of.count);
      for (Index i = 0; i < of.count; ++i) {
        std::fill_n(job.results[0].row(shift + of.first + i), cols, T(0));
      }
      if (!adds()) {
        std::transform(share.begin(), share.end(), job.results[0].row(shift + picked(of)),
                       [](double r) { return static_cast<T>(r); });
        return;
      }
      for (std::size_t j = 0; j < share.size(); ++j) {
        const double y = static_cast<double>(job.output.row(of.first)[j]);
        share[j] = weight(of) * exact.share(share[j], y, &job.absorbed[shift + of.first]);
      }
      for (Index i = of.first; i < of.first + of.count; ++i) {
        const T* const x = job.inputs[0].row(i);
        std::transform(share.begin(), share.end(), x, job.results[0].row(shift + i),
                       [](double q, T value) { return static_cast<T>(q * static_cast<double>(value)); });
      }
    });
  }

 private:
  bool adds() const { return pick_ == Pick::kSum || pick_ == Pick::kMean; }
  double weight(const Segment& of) const { return pick_ == Pick::kMean ? 1.0 / static_cast<double>(of.count) : 1.0; }
  Index picked(const Segment& of) const { return pick_ == Pick::kFirst ? of.first : of.first + of.count - 1; }

  static std::vector<double> sum_of_rows(const Matrix<const T>& from, Index first, Index count) {
    std::vector<double> sums(static_cast<std::size_t>(from.cols));
    for (Index i = first; i < first + count; ++i) {
      std::transform(sums.begin(), sums.end(), from.row(i), sums.begin(),
                     [](double sum, T value) { return sum + static_cast<double>(value); });
    }
    return sums;
  }

  template <class Body>
  static void each_segment(const Matrix<const T>& given, Index targets, Index cols, const Threads& threads, Body body) {
    const std::vector<Segment> segments = segments_of(given);
    const Index count = static_cast<Index>(segments.size());
    parallel_for(count * targets, threads.alone_if(targets * given.rows * cols < 2 * kPiece),
                 [&](Index task) { body(task / count, segments[static_cast<std::size_t>(task % count)]); });
  }

  Pick pick_;
};

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const Index pick = fields.integer("pick");
  require_fit(pick >= 0 && pick <= 3, "what a sample takes of its tokens");
  return std::make_unique<SegmentsLayer<T>>(static_cast<Pick>(pick));
}

}  // namespace

void register_segments(LayerKinds* kinds) { kinds->add("segments", make<float>, make<double>); }

}  // namespace pylrp
