"""Transformers in torch, exported in every way: one prediction, one map, and that of an independent gradient."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

import pylrp

from .transformers import Bert, Decoder, Plain, Relevance, Sdpa, TextbookVit, Vit, relevance

OPERATIONS = {"eager": Plain, "sdpa": Sdpa}
COMPOSITES = {"attnlrp": True, "cp_lrp": False}  # whether relevance goes through the probabilities


def exported(network, example, opset, names=("x",), lengths=False):
    """Return a network as torch's exporter writes it, with an open batch, perhaps an open length."""
    import onnx

    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            network,
            example,
            file,
            input_names=list(names),
            dynamo=False,
            opset_version=opset,
            dynamic_axes={name: {0: "n", 1: "t"} if lengths else {0: "n"} for name in names},
        )
    return onnx.load_from_string(file.getvalue())


TOKENS = 7


def of_ids(kind, batch):
    """Return a network of token ids, and a batch for it; the second sample is padded."""
    torch.manual_seed(1)
    network = (Bert if kind.startswith("bert") else Decoder)(**KINDS[kind]).eval()
    ids, mask = torch.randint(0, 50, (batch, TOKENS)), torch.ones(batch, TOKENS, dtype=torch.long)
    mask[1, 4:] = 0
    types = (torch.arange(TOKENS) > 2).long().expand(batch, TOKENS)
    names = {"bert": ("input_ids", "attention_mask", "token_type_ids"), "decoder": ("input_ids",)}
    names["bert without types"], names["bert, infinite mask"] = names["bert"][:2], names["bert"]
    return network, dict(zip(names[kind], (ids, mask, types), strict=False))


KINDS = {"bert": {}, "bert, infinite mask": {"infinite": True}, "bert without types": {"types": False}, "decoder": {}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "operations", "opset"),
    [
        ("bert", "eager", 14),
        ("bert", "eager", 17),
        ("bert", "sdpa", 14),
        ("bert, infinite mask", "eager", 17),
        ("bert without types", "sdpa", 17),
        ("decoder", "eager", 14),
        ("decoder", "sdpa", 17),
    ],
)
def test_networks_of_token_ids(kind, operations, opset):
    network, x = of_ids(kind, 3)
    model = exported(network.use(OPERATIONS[operations]()), tuple(x.values()), opset, tuple(x))
    # The file has the roots of the scale in single precision.
    tolerance = 1e-9 if operations == "eager" else 1e-7
    net, single = pylrp.load(model, dtype="float64"), pylrp.load(model)
    wide = copy.deepcopy(network).double()
    ids, *rest = x.values()
    given = {name: value.numpy() for name, value in x.items()} if len(x) > 1 else ids.numpy()
    for composite, taylor in COMPOSITES.items():
        ex = net.explain(given, target=1, composite=composite)
        run = wide.use(Relevance(taylor)).behind
        logits, expected = relevance(wide, wide.embed(ids), 1, taylor, function=lambda rows, run=run: run(rows, *rest))
        by_token = expected.sum(-1)
        found = ex.relevance["input_ids"] if isinstance(ex.relevance, dict) else ex.relevance
        assert isinstance(ex.relevance, dict) == ("token_type_ids" in x)
        np.testing.assert_allclose(ex.output, logits, atol=tolerance)
        np.testing.assert_allclose(found, by_token, rtol=0, atol=tolerance * np.abs(expected).max())
        size = np.abs(expected).sum()
        for row in ex.ledger:
            assert np.abs(row.rounding).max() <= 1e-12 * size
        small = single.explain(given, target=1, composite=composite)
        found = small.relevance["input_ids"] if isinstance(small.relevance, dict) else small.relevance
        np.testing.assert_allclose(found, by_token, rtol=0, atol=5e-5 * np.abs(by_token).max())
        assert small.output.dtype == np.float32
        assert any(row.position.any() for row in ex.ledger)
        if len(x) > 1:  # what is masked takes nothing, and one sample does not change another
            words = ex.layers[next(iter(net.graph.inputs))]
            assert not words[1, 4:].any()
            alone = net.explain({name: a[1] for name, a in given.items()}, target=1, composite=composite)
            one = alone.relevance["input_ids"] if isinstance(alone.relevance, dict) else alone.relevance
            np.testing.assert_allclose(one, by_token[1], atol=1e-7 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")
def test_a_module_of_token_ids():
    network, x = of_ids("bert", 2)
    net = pylrp.load(network, x, dtype="float64")
    ex = net.explain({name: value.numpy() for name, value in x.items()}, target=2)
    assert ex.composite == "cp_lrp"
    assert {name: array.shape for name, array in ex.relevance.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids"), (2, TOKENS)
    )
    np.testing.assert_allclose(ex.output, network(**x).detach().numpy(), atol=1e-6)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return Vit().double().eval()


@pytest.mark.filterwarnings("ignore")  # torch's older exporter on its own age
@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_vision_transformer(vit, operations, opset):
    model = exported(vit.use(OPERATIONS[operations]()), (torch.zeros(2, 3, 12, 12).double(),), opset)
    net = pylrp.load(model)
    x = torch.randn(3, 3, 12, 12).double()
    for composite, taylor in COMPOSITES.items():
        ex = net.explain(x.numpy(), target=1, composite=composite)
        logits, expected = relevance(vit, x, 1, taylor)
        np.testing.assert_allclose(ex.output, logits, atol=1e-12)
        np.testing.assert_allclose(ex.relevance, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
        assert any(row.position.any() for row in ex.ledger)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_with_a_batch_of_its_own(vit, batch, tmp_path):
    """Sizes written out as numbers, the class token repeated; as it is, and rewritten by onnxruntime."""
    import onnxruntime

    path, rewritten = tmp_path / "vit.onnx", tmp_path / "basic.onnx"
    single = copy.deepcopy(vit.use(Plain())).float()  # onnxruntime has no convolution in double precision
    with torch.no_grad():
        torch.onnx.export(single, torch.zeros(batch, 3, 12, 12), path, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(rewritten)
    onnxruntime.InferenceSession(str(path), options)
    x = torch.randn(3, 3, 12, 12).double()
    _, expected = relevance(single.double(), x, 1)
    for each in (path, rewritten):
        ex = pylrp.load(each, dtype="float64").explain(x.numpy(), target=1, composite="attnlrp")
        np.testing.assert_allclose(ex.relevance, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")
def test_what_is_chosen_for_it(vit):
    net = pylrp.load(exported(vit.use(Plain()), (torch.zeros(2, 3, 12, 12).double(),), 17))
    ex = net.explain(np.random.default_rng(0).normal(size=(2, 3, 12, 12)), target=[0, 3])
    assert ex.composite == "attnlrp_gamma"
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
    rules = {row.rule for row in ex.ledger}
    assert {"Gamma(0.25, stabilizer=0)", "Flat(stabilizer=0)", "Value()"} <= rules


@pytest.mark.filterwarnings("ignore")
def test_the_encoder_of_torch():
    """With the batch first or the tokens first: one network, one map."""
    torch.manual_seed(2)
    first, last = TextbookVit().double().eval(), TextbookVit(batch_first=False).double().eval()
    last.load_state_dict(first.state_dict())
    x = torch.randn(3, 3, 12, 12).double()
    maps = []
    for network in (first, last):
        net = pylrp.load(network, torch.zeros(2, 3, 12, 12).double())
        ex = net.explain(x.numpy(), target=1, composite="attnlrp")
        np.testing.assert_allclose(ex.output, first(x).detach().numpy(), atol=1e-12)
        assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
        maps.append(ex.relevance)
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-9 * np.abs(maps[0]).max())


@pytest.mark.filterwarnings("ignore")
def test_sentences_of_any_length():
    network, x = of_ids("decoder", 2)
    net = pylrp.load(exported(network, tuple(x.values()), 17, tuple(x), lengths=True), dtype="float64")
    wide = copy.deepcopy(network).double()
    for length in (1, 4, 16):
        ids = torch.randint(0, 50, (2, length))
        ex = net.explain(ids.numpy(), target=1, composite="attnlrp")
        run = wide.use(Relevance()).behind
        logits, expected = relevance(wide, wide.embed(ids), 1, function=run)
        np.testing.assert_allclose(ex.output, logits, atol=1e-9)
        np.testing.assert_allclose(ex.relevance, expected.sum(-1), rtol=0, atol=1e-9 * np.abs(expected).max())
    with pytest.raises(ValueError, match="17"):  # there are 16 positions
        net.explain(np.ones((1, 17), np.int64))


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(8, 8)

    def forward(self, x):
        q = self.query(x)
        return torch.softmax(q @ q.transpose(1, 2) / 3, -1) @ x


class Attend(nn.Module):
    """torch's own attention; without batch_first inside it the batch is axis 1, and merged with the heads."""

    def __init__(self, batch_first):
        super().__init__()
        self.first, self.attn = batch_first, nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        x = self.attn(x, x, x, need_weights=False)[0]
        return x if self.first else x.transpose(0, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [SelfAttention(), Attend(True), Attend(False)], ids=["own", "first", "second"])
@pytest.mark.parametrize("batch", [1, 2, 3])  # 2 heads
def test_attention_as_a_module(part, batch):
    head = nn.Sequential(part, nn.Flatten(), nn.Linear(48, 3)).double().eval()
    net = pylrp.load(head, torch.zeros(batch, 6, 8).double())
    x = torch.randn(4, 6, 8).double()
    np.testing.assert_allclose(net.forward(x.numpy()), head(x).detach().numpy(), atol=1e-12)
    ex = net.explain(x.numpy(), target=0)
    assert ex.composite == "cp_lrp"
    assert max(np.abs(row.rounding).max() for row in ex.ledger) < 1e-12
