"""Models of transformers, from files: predictions by onnxruntime, maps by an independent gradient, the ledger."""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pylrp
from pylrp.errors import UnsupportedLayer

from .exports import exported
from .gradient_rules import Rules
from .model_zoo import LOADS, REFUSED
from .test_huggingface import MODELS, transformers

runtime = pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
ALWAYS = ("DebertaV2ForSequenceClassification", "Dinov2ForImageClassification", "ConvNextV2ForImageClassification")
PAGE = Path(__file__).parents[2] / "docs" / "which-models.md"
#: What is explained of what a model returns, the first that there is.
MAIN = ("logits", "image_embeds", "text_embeds", "last_hidden_state")


def made(name, config, settings):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = getattr(transformers, config)(**settings)
            getattr(transformers, name)
        except (ModuleNotFoundError, RuntimeError) as error:  # a torchvision that was built for another torch
            pytest.skip(str(error).splitlines()[0])
        for way in ("sdpa", "eager"):
            try:
                config._attn_implementation = way
                model = getattr(transformers, name)(config).eval().requires_grad_(False)
                break
            except ValueError:  # the class has no other
                continue
    model.config.use_cache = False
    for label, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.add_(0.2 * torch.randn_like(weight))
        elif weight.abs().max() == 0:
            weight.add_(0.1 * torch.randn_like(weight))
        elif "conv" not in label and weight.std() < 0.1:  # so that attention looks at something
            weight.mul_(4)
    return model


def batch(kind):
    torch.manual_seed(1)
    if kind.startswith("image"):
        size = int(kind.split()[1])
        return {"pixel_values": torch.randn(2, 3, size, size)}
    if kind in ("wave", "mel", "spectrum"):
        shape = {"wave": (120,), "mel": (8, 20), "spectrum": (16, 16)}[kind]
        return {"input_features" if kind == "mel" else "input_values": torch.randn(2, *shape)}
    ids, mask = torch.randint(2, 58, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    ids[:, 4], mask[1, 5:] = 59, 0
    found = {"input_ids": ids} if kind == "ids" else {"input_ids": ids, "attention_mask": mask}
    return found | ({"decoder_input_ids": torch.randint(2, 60, (2, 5))} if kind == "two texts" else {})


class GateInAGate(Rules):
    """WavLM's gates ``s(a) (c s(b) - 1) + 2``: s(a) takes nothing, s(b) is a signal there, with ``s(0)`` a constant."""

    def apply(self, function, args, kwargs):
        if function is torch.sigmoid and args[0].shape[-1] == 2:
            z = args[0]
            return 0.5 + z * torch.where(z == 0, 0.25, (z.sigmoid() - 0.5) / z).detach()
        if function is torch.Tensor.chunk and args[0].shape[-1] == 2:
            a, b = function(*args, **kwargs)
            return a.detach(), b
        return super().apply(function, args, kwargs)


class Expected:
    """YOSO's attention ``f(q k) v``, f(z) = (1 - acos(z) / pi)^n, by its rules: its own derivative is another one's."""

    @staticmethod
    def apply(of_queries, of_keys, q, k, v, config):
        z, n = q @ k.transpose(-1, -2), config["hash_code_len"]
        with torch._C.DisableTorchFunction():
            f = (1 - z.detach().acos() / torch.pi) ** n
            made = 0.5**n + z * torch.where(z == 0, 1.0, (f - 0.5**n) / z).detach()
        return (made * of_queries[:, :, None] * of_keys[:, None]) @ v


@contextlib.contextmanager
def own_rules(model):
    """Yield the rules of a model, with what it computes by a derivative of its own made of functions."""
    name = type(model).__name__
    if name.startswith("Yoso"):
        from transformers.models.yoso import modeling_yoso as file

        kept, file.YosoCumulation = file.YosoCumulation, Expected
        yield Rules
        file.YosoCumulation = kept
    else:
        yield GateInAGate if name.startswith("WavLM") else Rules


class Call(nn.Module):
    """A model with positional arguments, and one tensor of what it returns."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *given):
        returned = self.model(**dict(zip(self.names, given, strict=True)))
        return next(returned[key] for key in MAIN if returned.get(key) is not None)


def wide(model):
    """Return it in float64, with functions that it writes out as functions of torch's."""
    found = copy.deepcopy(model).double()
    for part in found.modules():
        if type(part).__name__ in ("NewGELUActivation", "GELUTanh", "BloomGelu"):
            part.forward = lambda x: nn.functional.gelu(x, approximate="tanh")
        if type(part).__name__ == "QuickGELUActivation":
            part.forward = lambda x: x * torch.where(x == 0, 0.5, torch.sigmoid(1.702 * x)).detach()
    return found


def expected(model, x, top_of, taylor):
    """Return the prediction and the relevance of each input that carries some: input times gradient."""
    given = {name: value.double() if value.is_floating_point() else value for name, value in x.items()}
    leaves = {name: v.clone().requires_grad_() for name, v in given.items() if v.is_floating_point()}
    ids = [name for name in given if name.endswith("input_ids")]
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == 60]
    for table in tables:  # rows of a table in place of the ids that choose them

        def rows(indices, table=table, look_up=table.forward):
            for name in ids:
                if indices.shape == given[name].shape and torch.equal(indices, given[name]):
                    leaves.setdefault((name, id(table)), look_up(indices).detach().clone().requires_grad_())
                    return leaves[name, id(table)] * 1.0
            return look_up(indices)

        table.forward = rows
    torch.set_default_dtype(torch.float64)  # some make masks of the default's
    try:
        with own_rules(model) as rules, torch.enable_grad(), rules(taylor):
            y = Call(model, list(given))(*(leaves[n] * 1.0 if n in leaves else v for n, v in given.items()))
            total = (y * top_of(y)).sum()
    finally:
        torch.set_default_dtype(torch.float32)
        for table in tables:
            del table.forward
    found = {}
    for key, gradient in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
        R = (leaves[key] * gradient).detach().numpy()
        name, R = (key[0], R.sum(-1)) if isinstance(key, tuple) else (key, R)
        found[name] = found.get(name, 0) + R
    return y.detach().numpy(), found


def one_entry(y):
    """Ones at an entry in the middle of the axes before the last."""
    top = torch.zeros_like(y)
    top[(slice(None), *(n // 2 for n in y.shape[1:-1]), min(3, y.shape[-1] - 1))] = 1
    return top


CASES = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.nightly) for name in LOADS]


@pytest.mark.parametrize("name", CASES)
def test_models_from_files(name, tmp_path):
    config, settings, kind, close = LOADS[name]
    model, x = made(name, config, settings), batch(kind)
    path = exported(Call(model, list(x)).eval(), x, tmp_path / "a.onnx", "torchscript 17", lengths=kind == "text")
    given = {key: value.numpy() for key, value in x.items()}
    of_runtime = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, given)[0]
    net, model = pylrp.load(path, dtype="float64"), wide(model.eval())
    for composite, taylor in (("cp_lrp", False), ("attnlrp", True)):
        y, wanted = expected(model, x, one_entry, taylor)
        top = one_entry(torch.tensor(y)).numpy()
        ex = net.explain(given if len(given) > 1 else next(iter(given.values())), top * y, composite)
        np.testing.assert_allclose(ex.output, of_runtime, rtol=0, atol=2e-5 * np.abs(y).max())
        found = ex.relevance if isinstance(ex.relevance, dict) else {next(iter(wanted)): ex.relevance}
        assert found.keys() == wanted.keys()
        for key, R in wanted.items():
            assert np.abs(R).max() > 0
            np.testing.assert_allclose(found[key], R, rtol=0, atol=close * np.abs(R).max())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) <= 1e-9 * np.abs(top * y).sum()


@pytest.mark.nightly
@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_refused(name):
    """By a typed error that names the operator and a way out."""
    config, settings, kind, operator = REFUSED[name]
    with pytest.raises(UnsupportedLayer) as error:
        pylrp.load(made(name, config, settings), batch(kind))
    assert operator in error.value.operator or operator in str(error.value)
    assert error.value.way_out


def test_the_page_lists_them():
    """Each class that is tried stands in its table, and no other one does."""
    loads, refused = PAGE.read_text().split("## What is refused")
    listed = [set(re.findall(r"^\| `(\w+)`", part, re.MULTILINE)) for part in (loads, refused)]
    assert listed == [{*LOADS, *(name for name, _, _ in MODELS.values())}, set(REFUSED)]
