"""Relevance of any torch module as input times gradient, with rules in place of torch's own derivatives.

A mode of torch sees every function that a module calls, whatever its classes: the values stay, products are halved,
probabilities, gates and statistics are constants, ``f(x)`` is ``x`` times the constant ``f(x) / x`` (Achtibat et al.
2024; Ali et al. 2022). No code of pylrp, and nothing that knows a model.
"""

from __future__ import annotations

import math
import types

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Rules", "relevance"]

_CURVES = {F.gelu, F.silu, F.relu, F.tanh, torch.tanh, torch.relu, torch.Tensor.tanh, torch.Tensor.relu, F.leaky_relu,
           torch._C._nn.gelu, F.hardswish, F.mish}  # fmt: skip
_GATES = {torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus}
_STATISTICS = {torch.rsqrt, torch.Tensor.rsqrt, torch.sqrt, torch.Tensor.sqrt, torch.Tensor.norm, torch.norm,
               torch.linalg.vector_norm, torch.reciprocal, torch.Tensor.reciprocal}  # fmt: skip
_MATRICES = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.einsum}
_PRODUCTS = {torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__}
_QUOTIENTS = {torch.div, torch.Tensor.div, torch.Tensor.__truediv__, torch.Tensor.__rtruediv__}
_SUMS_OF_PRODUCTS = {torch.baddbmm, torch.Tensor.baddbmm}
#: Written in Python, of functions that have rules.
_COMPOSED = {F.normalize, F.multi_head_attention_forward}
_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax}


def half(y):
    return y / 2 + (y / 2).detach()


def _without_dispatch(function):
    """Return a function of torch's own in Python that calls others as if nobody had asked for itself."""
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    settled = function.__globals__ | dict.fromkeys(names, lambda *given: False)
    return types.FunctionType(
        function.__code__, settled, function.__name__, function.__defaults__, function.__closure__
    )


class Rules(TorchFunctionMode):
    """``attnlrp`` (``taylor``), or ``cp_lrp``: the value path alone, and of gated products the branch without f."""

    def __init__(self, taylor=True):
        super().__init__()
        self.taylor, self.curves = taylor, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _COMPOSED:
            with self:
                return _without_dispatch(function)(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self.apply(function, args, kwargs)

    def apply(self, function, args, kwargs):
        single = torch.float32 in (*args[1:], kwargs.get("dtype")) and function is torch.Tensor.to
        if function is torch.Tensor.float or single:
            return args[0].double()  # some models compute statistics, angles, probabilities in single precision
        if kwargs.get("dtype") == torch.float32 and function in _SOFTMAX:
            kwargs = kwargs | {"dtype": None}
        if function is F.layer_norm:
            return self.layer_norm(*args, **kwargs)
        if function in (F.group_norm, torch.group_norm):
            return self.group_norm(*args, **{k: v for k, v in kwargs.items() if k != "cudnn_enabled"})
        if getattr(F, "rms_norm", None) is function:
            return self.rms_norm(*args, **kwargs)
        if function in _QUOTIENTS and isinstance(args[1], torch.Tensor):
            of, by = args if function is not torch.Tensor.__rtruediv__ else args[::-1]
            return of / by.detach()
        if function in _SUMS_OF_PRODUCTS:
            given = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
            product = half(given["batch1"] @ given["batch2"])
            return given.get("beta", 1) * given["input"] + given.get("alpha", 1) * product
        if function is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        computed = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad and a.grad_fn is not None]
        if function in _CURVES:
            return self.curve(function, args[0], args[1:], kwargs)
        if function in _GATES | _STATISTICS:
            return function(*args, **kwargs).detach()
        if function in _SOFTMAX:
            made = function(*args, **kwargs)
            return made if self.taylor else made.detach()
        made = function(*args, **kwargs)
        if function in _MATRICES | _PRODUCTS and len(computed) == 2:
            if computed[0] is computed[1]:  # x * x: of a statistic
                return made
            gated = [any(c is each for each in self.curves) for c in computed]
            if function in _PRODUCTS and sum(gated) == 1 and not self.taylor:
                one, other = computed
                return one * other.detach() if gated[1] else one.detach() * other
            return half(made)
        return made

    def curve(self, function, x, args, kwargs):
        y = function(x, *args, **{k: v for k, v in kwargs.items() if k != "inplace"})
        made = x * torch.where(x == 0, 0.5, y / x).detach() if x.requires_grad else y
        self.curves.append(made)
        return made

    @staticmethod
    def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
        axes = tuple(range(-len(shape), 0))
        centred = x - x.mean(axes, keepdim=True)
        y = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt().detach()
        y = y if weight is None else y * weight.detach()
        return y if bias is None else y + bias.detach()

    @staticmethod
    def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
        parts = x.reshape(len(x), groups, -1)
        y = Rules.layer_norm(parts, parts.shape[2:], eps=eps).reshape(x.shape)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        y = y if weight is None else y * weight.detach().reshape(shape)
        return y if bias is None else y + bias.detach().reshape(shape)

    @staticmethod
    def rms_norm(x, shape, weight=None, eps=None):
        axes = tuple(range(-len(shape), 0))
        y = x * (x.square().mean(axes, keepdim=True) + (eps or torch.finfo(x.dtype).eps)).rsqrt().detach()
        return y if weight is None else y * weight.detach()

    def attention(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        q, k, v = query, key, value
        if enable_gqa:
            k, v = (each.repeat_interleave(q.shape[-3] // each.shape[-3], -3) for each in (k, v))
        s = half(q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if is_causal:
            s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
        if attn_mask is not None:
            s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask
        p = torch.nan_to_num(s.softmax(-1))
        return half(p @ v) if self.taylor else p.detach() @ v


def relevance(call, x, top, taylor=True):
    """Return (output, relevance of x), arrays in float64.

    Parameters
    ----------
    call : callable
        Of ``x``, returns the tensor that is explained.
    x : tensor
        Float64: pixels, or the rows of a table.
    top : tensor
        Coefficients of the output's entries: relevance starts as output times them.
    """
    x = x.detach().double().requires_grad_()
    with torch.enable_grad(), Rules(taylor):
        y = call(x * 1.0)
        total = (y * top).sum()
    gradient = torch.autograd.grad(total, x)[0]
    return y.detach().numpy(), (x * gradient).detach().numpy()
