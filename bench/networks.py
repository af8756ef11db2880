"""Convolutional networks: pylrp beside onnxruntime's forward pass and zennit's explanations.

    python bench/networks.py                      VGG16, ResNet50, EfficientNet-Lite0
    python bench/networks.py --case resnet        the cases whose name contains this
    python bench/networks.py --output FILE        JSON (default: bench/build/networks.json)

Every result is checked against the others' before it is timed; all take turns in one process. Ratios above 1 say how
many times as long as pylrp somebody takes. ``convnets.py`` has the networks.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convnets
import machine
import numpy as np
import peers
from timing import QUIET, Entrant, alternate, wait_for_quiet

Row = dict[str, Any]
THREE = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")
TARGETS = tuple(range(0, 1000, 100))


@dataclass(frozen=True)
class Case:
    """A network, a batch, and the composites to time."""

    network: str
    batch: int
    composites: tuple[str, ...] = THREE

    @property
    def name(self) -> str:
        """Return what the case is called."""
        return f"{self.network} b{self.batch}"


CASES = (
    Case("vgg16", 1),
    Case("vgg16", 4),
    Case("efficientnet-lite0", 1),
    Case("efficientnet-lite0", 8),
    Case("resnet50", 1, ("epsilon_plus_flat",)),
)

# What is wanted: (case, slow, fast, at least so many times as long).
GOALS = (
    *((f"{network}", "onnxruntime forward", "pylrp forward", 1 / limit)
      for network, limit in (("vgg16 b1", 1.3), ("vgg16 b4", 1.3), ("efficientnet-lite0 b1", 2.0),
                             ("efficientnet-lite0 b8", 2.0), ("resnet50 b1", 2.0))),
    *((f"vgg16 b{batch}", "onnxruntime forward", "pylrp epsilon_plus_flat", 1 / 3.5) for batch in (1, 4)),
    *((f"vgg16 b{batch}", f"zennit {name}", f"pylrp {name}", ratio)
      for batch in (1, 4) for name, ratio in zip(THREE, (2.2, 4.0, 3.0), strict=True)),
    *((f"efficientnet-lite0 b{batch}", f"zennit {name}", f"pylrp {name}", 10.0) for batch in (1, 8) for name in THREE),
    ("efficientnet-lite0 b1", "onnxruntime forward", "pylrp epsilon_plus_flat", 1 / 6),
    ("efficientnet-lite0 b1", "pylrp epsilon_plus_flat", "pylrp ten targets", 1 / 5),
    ("resnet50 b1", "zennit epsilon_plus_flat", "pylrp epsilon_plus_flat", 5.0),
)  # fmt: skip


def entrants(
    case: Case, threads: int, folder: Path, stack: ExitStack, image: Any = None
) -> list[tuple[str, Callable[[], Any]]]:
    """Return everybody's calls, checked against each other; zennit's hooks stay until the stack is closed.

    Pixels are random, or an image (1, 3, 224, 224) for every sample.
    """
    torch, pylrp, onnxruntime = (peers.load(name) for name in ("torch", "pylrp", "onnxruntime"))
    model = convnets.network(case.network)
    torch.manual_seed(1)
    x = torch.randn(case.batch, 3, 224, 224)
    if image is not None:
        x = torch.from_numpy(image).repeat(case.batch, 1, 1, 1)
    values = x.numpy()
    path = folder / f"{case.network}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, x, path, dynamo=False, input_names=["input"], dynamic_axes={"input": {0: "n"}})
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    net = pylrp.load(path)

    def onnx_forward() -> Any:
        return session.run(None, {"input": values})[0]

    def forward() -> Any:
        return net.forward(values, threads=threads)

    out = onnx_forward()
    check(f"{case.name}: forward pass", forward(), out, 1e-4)
    top = torch.zeros(out.shape)
    rows = torch.arange(case.batch)
    top[rows, out.argmax(1)] = torch.from_numpy(out.max(1))
    found: list[tuple[str, Callable[[], Any]]] = [("pylrp forward", forward), ("onnxruntime forward", onnx_forward)]
    for name in case.composites:
        bounds = {"low": -convnets.BOUND, "high": convnets.BOUND} if name.endswith("box") else {}
        composite = pylrp.composite(name, **bounds)

        def ours(composite: Any = composite) -> Any:
            return net.explain(values, composite=composite, threads=threads).relevance

        # Registering the hooks and merging BatchNorm stay untimed; each composite has a model of its own.
        modified = stack.enter_context(convnets.zennit_composite(model, name).context(own_modules(model)))

        def theirs(modified: Any = modified) -> Any:
            image = x.clone().requires_grad_()
            modified(image).backward(gradient=top)
            return image.grad.numpy()

        exact = in_double(model, name, x[:1], top[:1])
        compare(f"{case.name}: {name}", ours()[:1], theirs()[:1], exact)
        found += [(f"pylrp {name}", ours), (f"zennit {name}", theirs)]
    if case.network == "efficientnet-lite0" and case.batch == 1:
        found.append(
            ("pylrp ten targets", lambda: net.explain(values, targets=TARGETS, composite=THREE[0], threads=threads))
        )
    return found


def in_double(model: Any, name: str, x: Any, top: Any) -> Any:
    """Return zennit's relevance in float64."""
    with convnets.zennit_composite(model, name).context(copy.deepcopy(own_modules(model)).double()) as modified:
        image = x.double().requires_grad_()
        modified(image).backward(gradient=top.double())
        return image.grad.numpy()


def own_modules(model: Any) -> Any:
    """Return a copy for zennit, sums as its modules. Large weights are shared: nobody writes to them."""
    shared = {id(p): p for p in model.parameters() if p.numel() > 10**7}
    return convnets.shared().sums_as_modules(copy.deepcopy(model, shared), True)


def compare(what: str, ours: Any, theirs: Any, exact: Any) -> None:
    """Stop if our float32 is further from zennit's float64 than 1e-4, and than twice zennit's float32."""
    errors = [float(np.abs(found - exact).max() / np.abs(exact).max()) for found in (ours, theirs)]
    print(f"  {what}: {errors[0]:.1e} from float64, zennit {errors[1]:.1e}")
    if not errors[0] <= max(1e-4, 2 * errors[1]):  # so that NaN fails
        raise SystemExit(f"{what}: too far from zennit's float64")


def check(what: str, found: Any, expected: Any, tolerance: float) -> None:
    """Stop if somebody computes something else."""
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error <= tolerance:  # so that NaN fails
        raise SystemExit(f"{what}: off by {error:.1e} of the largest value, allowed are {tolerance:.0e}")
    print(f"  {what}: agrees to {error:.1e}")


def measure(case: Case, threads: int, rounds: int, budget: float) -> Row:
    """Check and time everybody on one case."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls = entrants(case, threads, Path(folder), stack)
        named = [(name, Entrant(call, lambda: peers.use_threads(threads))) for name, call in calls]
        others = alternate([entrant for _, entrant in named], rounds, budget)
    return {
        "name": case.name,
        "others": others,
        "rows": [{"name": name, **entrant.summary()} for name, entrant in named],
    }


def report(case: Row) -> None:
    """Print a case's times, and its goals."""
    medians = {row["name"]: row["median"] for row in case["rows"]}
    if case["others"] > QUIET:
        print(f"  CAREFUL: other programs kept {case['others']:.2f} cores busy meanwhile")
    for row in case["rows"]:
        spread = (row["upper_quartile"] - row["lower_quartile"]) / row["median"] / 2
        print(f"  {row['name']:<32} {row['median'] * 1e3:9.1f} ms  +-{spread:4.0%}")
    for name, slow, fast, wanted in GOALS:
        if name == case["name"]:
            ratio = medians[slow] / medians[fast]
            verdict = "reached" if ratio >= wanted else "MISSED"
            print(f"    {slow} / {fast}: {ratio:.2f}, wanted {wanted:.2f}  {verdict}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="convolutional networks beside onnxruntime and zennit")
    parser.add_argument(
        "--case", action="append", default=[], metavar="TEXT", help="only cases with this in their name"
    )
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="for everybody (default: 2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each case")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "build" / "networks.json")
    options = parser.parse_args(arguments)
    missing = [name for name in ("torch", "zennit", "onnxruntime") if not peers.installed(name)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    peers.use_threads(options.threads)
    facts = machine.describe(options.threads)
    print(f"{facts['cpu']}, {facts['isa']}, {options.threads} threads, {facts['compiler']}")
    cases = []
    for case in CASES:
        if options.case and not any(text in case.name for text in options.case):
            continue
        print(f"\n{case.name}")
        wait_for_quiet(20.0)
        cases.append(measure(case, options.threads, options.rounds, options.seconds))
        report(cases[-1])
        options.output.parent.mkdir(parents=True, exist_ok=True)
        document = {"date": datetime.date.today().isoformat(), "machine": facts, "cases": cases}
        options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
