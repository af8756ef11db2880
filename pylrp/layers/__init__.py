"""Layers as plain values: what a network is built from.

Each holds its arrays and settings, tells the shape it makes (:meth:`Layer.output_shape`) and what the core needs to
know; nothing is computed here. Every layer takes ``name=``, what it is called in a network. Shapes leave the batch
out and put channels first.

- ``dense.py``: Dense; ``conv.py``: Conv, ConvTranspose, PositionwiseDense; ``scaling.py``: BatchNorm, Affine
- ``pooling.py``: MaxPool, AveragePool and their global and adaptive forms
- ``combine.py``: Add, Concat; ``matmul.py``: MatMul; ``multiply.py``: Multiply, Divide;
  ``shift.py``: Shift, ShiftBy, ScaleBy
- ``movement.py``: Flatten, Reshape, Transpose, Expand; ``slices.py``: Pad, Slice, Take
- ``blocks.py``: Upsample, DepthToSpace, SpaceToDepth, ChannelShuffle
- ``resize.py``: Resize; ``recurrent.py``: LSTM, GRU, RNN
- ``quantise.py``: values rounded to steps, as quantised networks have them
- ``function.py``: Function, any other function of one value; ``activations.py``: ReLU and its kin, Softmax
- ``normalisation.py``: LayerNorm, RMSNorm, GroupNorm, InstanceNorm, Normalize, LocalResponseNorm
- ``base.py``: Layer and the facts that each class states; ``custom.py``: CustomLayer, which users write
"""

from pylrp.layers.activations import (
    ELU,
    GELU,
    Activation,
    Clip,
    Dropout,
    Exp,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyReLU,
    Log,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from pylrp.layers.base import Layer, Shape
from pylrp.layers.blocks import ChannelShuffle, DepthToSpace, SpaceToDepth, Upsample
from pylrp.layers.combine import Add, Concat
from pylrp.layers.conv import Conv, ConvTranspose, PositionwiseDense
from pylrp.layers.custom import CustomLayer
from pylrp.layers.dense import Dense
from pylrp.layers.function import Function
from pylrp.layers.matmul import MatMul
from pylrp.layers.movement import Expand, Flatten, Movement, Reshape, Transpose
from pylrp.layers.multiply import Divide, Multiply
from pylrp.layers.normalisation import GroupNorm, InstanceNorm, LayerNorm, LocalResponseNorm, Normalize, RMSNorm
from pylrp.layers.pooling import (
    AdaptiveAveragePool,
    AdaptiveMaxPool,
    AveragePool,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool,
    Pool,
)
from pylrp.layers.quantise import DynamicQuantize, Quantize
from pylrp.layers.recurrent import GRU, LSTM, RNN, Recurrent
from pylrp.layers.resize import Resize
from pylrp.layers.scaling import Affine, BatchNorm
from pylrp.layers.shift import ScaleBy, Shift, ShiftBy
from pylrp.layers.slices import Pad, Slice, Take
from pylrp.layers.windows import Windows

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdaptiveAveragePool",
    "AdaptiveMaxPool",
    "Add",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "ChannelShuffle",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CustomLayer",
    "Dense",
    "DepthToSpace",
    "Divide",
    "Dropout",
    "DynamicQuantize",
    "Exp",
    "Expand",
    "Flatten",
    "Function",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LocalResponseNorm",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Mish",
    "Movement",
    "Multiply",
    "Normalize",
    "PReLU",
    "Pad",
    "Pool",
    "PositionwiseDense",
    "Quantize",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Recurrent",
    "Reshape",
    "Resize",
    "ScaleBy",
    "Shape",
    "Shift",
    "ShiftBy",
    "SiLU",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Take",
    "Tanh",
    "Transpose",
    "Upsample",
    "Windows",
]
