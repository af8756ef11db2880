"""Layers as plain values: what a network is built from.

Each holds its arrays and settings, tells the shape it makes (:meth:`Layer.output_shape`) and what the core needs to
know; nothing is computed here. Every layer takes ``name=``, what it is called in a network. Shapes leave the batch
out and put channels first.

- ``linear.py``: Dense, PositionwiseDense, Conv, ConvTranspose, BatchNorm, Affine
- ``pooling.py``: MaxPool, AveragePool and their global and adaptive forms
- ``combine.py``: Add, Concat
- ``movement.py``: Flatten, Reshape, Transpose, Pad, Slice, Take, Expand, Upsample, ...
- ``resize.py``: Resize
- ``activations.py``: ReLU and its kin, Softmax, LocalResponseNorm, Normalize
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
    LocalResponseNorm,
    Log,
    LogSoftmax,
    Mish,
    Normalize,
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
from pylrp.layers.combine import Add, Concat
from pylrp.layers.custom import CustomLayer
from pylrp.layers.linear import Affine, BatchNorm, Conv, ConvTranspose, Dense, PositionwiseDense
from pylrp.layers.movement import (
    ChannelShuffle,
    DepthToSpace,
    Expand,
    Flatten,
    Movement,
    Pad,
    Reshape,
    Slice,
    SpaceToDepth,
    Take,
    Transpose,
    Upsample,
)
from pylrp.layers.pooling import (
    AdaptiveAveragePool,
    AdaptiveMaxPool,
    AveragePool,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool,
    Pool,
)
from pylrp.layers.resize import Resize
from pylrp.layers.windows import Windows

__all__ = [
    "ELU",
    "GELU",
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
    "Dropout",
    "Exp",
    "Expand",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Layer",
    "LeakyReLU",
    "LocalResponseNorm",
    "Log",
    "LogSoftmax",
    "MaxPool",
    "Mish",
    "Movement",
    "Normalize",
    "PReLU",
    "Pad",
    "Pool",
    "PositionwiseDense",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Resize",
    "Shape",
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
