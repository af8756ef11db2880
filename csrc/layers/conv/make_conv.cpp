// A convolution from its description.
#include "base/error.hpp"
#include "layers/conv/conv.hpp"
#include "layers/registry.hpp"

namespace pylrp {
namespace {

// weight: (out_channels, taps * in_channels / groups), depthwise (taps, channels).
template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  const auto axes = [&](const char* name) {
    const std::vector<Index> given = fields.integers(name);
    require_fit(given.size() == 3, name);
    return Axes{given[0], given[1], given[2]};
  };
  ConvWeights<T> conv{};
  conv.shape = {axes("in"),
                axes("out"),
                axes("kernel"),
                axes("stride"),
                axes("dilation"),
                axes("pad"),
                fields.integer("in_channels"),
                fields.integer("out_channels"),
                fields.integer("groups")};
  require_countable(conv.shape);
  conv.transposed = fields.flag("transposed");
  const Matrix<const T> weight = fields.matrix("weight");
  const bool depthwise = conv.depthwise();
  const Index rows = depthwise ? conv.shape.taps() : conv.shape.out_channels;
  const Index cols = depthwise ? conv.shape.in_channels : conv.shape.taps() * conv.shape.group_in();
  if (weight.rows != rows || weight.cols != cols || weight.stride != cols) {
    throw Error("a convolution's weights do not fit its shape");
  }
  conv.weight = weight.data;
  conv.bias_by_position = fields.flag("bias_by_position");
  conv.bias = fields.vector_or_null("bias", conv.bias_size());
  return std::make_unique<ConvLayer<T>>(conv);
}

}  // namespace

void register_conv(LayerKinds* kinds) { kinds->add("conv", make<float>, make<double>); }

}  // namespace pylrp
