"""pylrp beside torch with LXT's efficient rules, and beside zennit's Gamma, on the transformers of ``transformers.py``.

    python bench/transformer_peers.py                       all cases, one thread, the processor's time
    python bench/transformer_peers.py --threads 2           wall time
    python bench/transformer_peers.py --cases minilm-16

The models are the ONNX files of ``transformers.py``, written once more in torch with LXT's rules and the file's
weights: its normalisation, its functions of one value, its factors at queries, keys and values; attention is torch's
fused one. Gamma is zennit's, made fit for a gradient by LXT's patch, as LXT's own vision transformer has it. Before the
clock starts maps must agree: the tokens' (LXT divides by x + 1e-10), and for images those behind the patches. Printed
is how many times as long the other takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import onnx
import peers
from onnx import numpy_helper

import pylrp


def _cases() -> Any:
    """Return our ``transformers.py`` under another name: LXT asks for the library of that one."""
    here = Path(__file__).parent
    spec = importlib.util.spec_from_file_location("transformer_cases", here / "transformers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here.resolve()]
    return module


peers.load("zennit.rules")  # makes torchvision importable, which LXT imports
cases = _cases()
Call = Callable[[], Any]
#: What torch's result may differ by, of the largest.
AGREES, AGREES_GAMMA = 1e-3, 2e-2


class _Encoder:
    """A model of ``transformers.py`` in torch, by the file's weights in the order in which they were made."""

    def __init__(self, path: Path, case: tuple[int, int, int, int], composite: str):
        torch, self.rules = peers.load("torch"), peers.load("lxt.efficient.rules")
        self.torch, self.nn = torch, torch.nn.functional
        self.case, self.composite = case, composite
        arrays = [numpy_helper.to_array(constant) for constant in onnx.load(path).graph.initializer]
        self.arrays = [torch.tensor(a) for a in arrays if a.dtype == np.float32 and a.size > 1]
        self.layers = self._made()

    def _made(self) -> dict[str, Any]:
        """Return the layers by name; what zennit hooks must be a module of its own."""
        rest = iter(self.arrays)
        depth, width, _, tokens = self.case
        made: dict[str, Any] = {}
        if tokens:
            made["words"], made["places"], made["norm"] = next(rest), next(rest), self._norm(rest)
        else:
            made["patches"] = self._layer(self.torch.nn.Conv2d(3, width, cases.PATCH, cases.PATCH), rest)
            made["class"], made["places"] = next(rest), next(rest)
        for i in range(depth):
            if not tokens:
                made[f"norm a {i}"] = self._norm(rest)
            for part in "qkvo":
                made[f"{part} {i}"] = self._linear(rest)
            made[f"norm b {i}"] = self._norm(rest)
            made[f"up {i}"], made[f"down {i}"] = self._linear(rest), self._linear(rest)
            if tokens:
                made[f"norm a {i}"] = self._norm(rest)
        if not tokens:
            made["norm"] = self._norm(rest)
        made["head"] = self._linear(rest)
        if next(rest, None) is not None:
            raise ValueError("the file has more weights than the model in torch")
        return made

    def _layer(self, layer: Any, rest: Any) -> Any:
        layer.weight.data, layer.bias.data = next(rest), next(rest)
        return layer.requires_grad_(False)

    def _linear(self, rest: Any) -> Any:
        weight, bias = next(rest), next(rest)
        layer = self.torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.T.contiguous(), bias
        return layer.requires_grad_(False)

    def _norm(self, rest: Any) -> Any:
        return self._layer(self.torch.nn.LayerNorm(self.case[1]), rest)

    def modules(self) -> Any:
        """Return the layers as one module."""
        kinds = {name: layer for name, layer in self.layers.items() if hasattr(layer, "forward")}
        return self.torch.nn.ModuleDict(kinds)

    def _attention(self, i: int, x: Any) -> Any:
        count, tokens, width = x.shape
        heads = self.case[2]
        parts = (self.layers[f"{part} {i}"](x).view(count, tokens, heads, -1).transpose(1, 2) for part in "qkv")
        q, k, v = parts
        if self.composite == "attnlrp":
            q, k, v = (self.rules.divide_gradient(part, n) for part, n in ((q, 4), (k, 4), (v, 2)))
        else:
            q, k = self.rules.stop_gradient(q), self.rules.stop_gradient(k)
        mixed = self.nn.scaled_dot_product_attention(q, k, v)
        return self.layers[f"o {i}"](mixed.transpose(1, 2).reshape(count, tokens, width))

    def _wide(self, i: int, x: Any) -> Any:
        hidden = self.rules.identity_rule_implicit(self.nn.gelu, self.layers[f"up {i}"](x))
        return self.layers[f"down {i}"](hidden)

    def text(self, ids: Any) -> np.ndarray:
        """Return one number a token."""
        rows = self.layers["words"][ids].requires_grad_()
        x = self.layers["norm"](rows + self.layers["places"])
        for i in range(self.case[0]):
            x = self.layers[f"norm b {i}"](x + self._attention(i, x))
            x = self.layers[f"norm a {i}"](x + self._wide(i, x))
        self.layers["head"](x.mean(1))[:, 0].sum().backward()
        return np.asarray((rows * rows.grad).sum(-1).detach().numpy())

    def image(self, pixels: Any) -> np.ndarray:
        """Return the relevance of the patches' and the class token's entries."""
        patches = self.layers["patches"](pixels.requires_grad_()).flatten(2).transpose(1, 2)
        rows = self.torch.cat([self.layers["class"].expand(len(pixels), -1, -1), patches], 1) + self.layers["places"]
        rows.retain_grad()
        x = rows
        for i in range(self.case[0]):
            x = x + self._attention(i, self.layers[f"norm a {i}"](x))
            x = x + self._wide(i, self.layers[f"norm b {i}"](x))
        self.layers["head"](self.layers["norm"](x)[:, 0])[:, 0].sum().backward()
        return np.asarray((rows * rows.grad).detach().numpy())


def _patched() -> None:
    """Put LXT's normalisation into torch's class, and its patch for gradients into zennit; once a process."""
    torch, patches = peers.load("torch"), peers.load("lxt.efficient.patches")
    peers.load("zennit.rules")
    patches.patch_method(patches.layer_norm_forward, torch.nn.LayerNorm)
    peers.load("lxt.efficient.zennit_patches").monkey_patch_zennit()


def _hooked(module: Any) -> Any:
    """Register zennit's rules and return them: gamma 0.25 at linear layers; flat, as ours has it, at the patches."""
    torch, rules = peers.load("torch"), peers.load("zennit.rules")
    kinds = [(torch.nn.Conv2d, rules.Flat(stabilizer=1e-9)), (torch.nn.Linear, rules.Gamma(0.25, stabilizer=1e-9))]
    composite = peers.load("zennit.composites").LayerMapComposite(kinds)
    composite.register(module)
    return composite


def _agree(name: str, ours: np.ndarray, theirs: np.ndarray, most: float) -> None:
    off = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not off <= most:
        raise ValueError(f"{name}: the maps differ by {off:.1e} of the largest")
    print(f"  {name}: maps within {off:.0e} of the largest", flush=True)


def _calls(net: Any, feed: dict[str, Any], model: _Encoder, threads: int) -> tuple[Call, Call]:
    """Return what is compared: our explanation and theirs, once their maps were found equal."""
    torch, way = peers.load("torch"), model.composite
    if model.case[3]:
        ids = torch.tensor(feed["input_ids"])

        def theirs() -> np.ndarray:
            return model.text(ids)

        x: Any = feed
        ours = net.explain(x, target=0, composite=way, threads=threads).relevance
    else:
        x = feed["image"]

        def theirs() -> np.ndarray:
            return model.image(torch.tensor(x))

        behind = next(node.inputs[0] for node in net.graph.nodes if node.layer.kind == "layernorm")
        ours = net.explain(x, target=0, composite=way, threads=threads, layers=[behind]).layers[behind]
    _agree(way, ours, theirs(), AGREES_GAMMA if way == "attnlrp_gamma" else AGREES)
    return lambda: net.explain(x, target=0, composite=way, threads=threads), theirs


def measure(name: str, threads: int, rounds: int) -> None:
    """Print how many times as long the others take."""
    case = cases.CASES[name]
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        feed = cases.make(case, path)
        net = pylrp.load(path)
        ways = ("cp_lrp", "attnlrp") if case[3] else ("cp_lrp", "attnlrp", "attnlrp_gamma")
        models = {way: _Encoder(path, case, way) for way in ways}
    print(name, flush=True)
    for way, model in models.items():
        hooks = _hooked(model.modules()) if way == "attnlrp_gamma" else None
        mine, theirs = _calls(net, feed, model, threads)
        seconds = cases.ratios({"pylrp": mine, "torch": theirs}, rounds, clock)
        other = "torch with LXT's rules" if hooks is None else "zennit's Gamma"
        ratio = np.median(seconds["torch"] / seconds["pylrp"])
        took = ", ".join(f"{1e3 * np.median(taken):.1f}" for taken in seconds.values())
        print(f"  {name} {way}: {other} takes {ratio:.2f} times as long ({took} ms)", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--cases", nargs="*", choices=list(cases.CASES), default=list(cases.CASES))
    asked = parser.parse_args()
    peers.use_threads(asked.threads)
    _patched()
    facts = machine.describe(asked.threads)
    versions = ", ".join(f"{name} {facts['versions'].get(name)}" for name in ("pylrp", "torch", "zennit"))
    print(f"{facts['cpu']}, {facts['isa']}, {asked.threads} of {facts['cores']} threads; {versions}")
    for name in asked.cases:
        measure(name, asked.threads, asked.rounds)


if __name__ == "__main__":
    main()
