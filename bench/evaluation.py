"""Pixel flipping: pylrp beside Quantus with zennit, the same maps, steps and curves.

    python bench/evaluation.py                    digits with the bundled network, photographs with EfficientNet-Lite0
    python bench/evaluation.py --case digits      the cases whose name contains this
    python bench/evaluation.py --output FILE      JSON (default: bench/build/evaluation.json)

Everybody explains the batch and flips it, most relevant first, in the same steps. Before anybody is timed the maps are
compared, and the curves of one and the same map; timed is everybody with the own map. zennit's composite is registered
in each call, as Quantus itself does. ``convnets.py`` has EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convnets
import machine
import numpy as np
import peers
from networks import own_modules
from timing import QUIET, Entrant, alternate, wait_for_quiet

Row = dict[str, Any]
WANTED = 20.0  # times as long as pylrp
TOLERANCE = 1e-3  # of the mean curve, in probability, and of a map, by its largest value


@dataclass(frozen=True)
class Case:
    """A network, inputs, and how they are flipped."""

    name: str
    network: str
    composite: str
    baseline: float
    numbers_a_step: int  # Quantus's steps must divide the numbers of a channel
    goal: bool = False


# Black is Quantus's default. Most of a digit is black already, and such a step changes nothing: pylrp notices and does
# not predict it again. With grey there is nothing to leave out; of tied pixels each side would flip others first, so
# that the rule is one without ties. Among the 150,528 numbers of a photograph some are all but tied: the float32 maps
# of two libraries put a few of them into different steps, which is why curves are compared with the same map.
CASES = (
    Case("100 digits, black, 112 steps", "mnist", "epsilon", 0.0, 7, goal=True),
    Case("100 digits, grey, 112 steps", "mnist", "deep_taylor", 0.1307, 7, goal=True),
    Case("8 photographs, grey, 21 steps", "efficientnet-lite0", "epsilon_alpha2_beta1", 0.0, 7168),
)


def digits() -> tuple[Any, Any, Any]:
    """Return the bundled network as a torch module and as pylrp's, and 100 digits, (100, 1, 28, 28)."""
    torch, pylrp, demo = (peers.load(name) for name in ("torch", "pylrp", "pylrp.demo"))
    weights, biases = demo.load_demo_network()
    nn, layers = torch.nn, pylrp.layers
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10)).eval().requires_grad_(False)
    for layer, W, b in zip((model[1], model[3]), weights, biases, strict=True):
        layer.weight.copy_(torch.from_numpy(W))
        layer.bias.copy_(torch.from_numpy(b))
    dense = [layers.Dense(W, b) for W, b in zip(weights, biases, strict=True)]
    net = pylrp.Network([layers.Flatten(), dense[0], layers.ReLU(), dense[1]], input_shape=(1, 28, 28))
    return model, net, np.divide(demo.load_demo_digits()[0][:, None], 255, dtype=np.float32)


def photographs() -> tuple[Any, Any, Any]:
    """Return EfficientNet-Lite0 both ways, and eight photographs that come with other packages, (8, 3, 224, 224)."""
    torch, pylrp, image = (peers.load(name) for name in ("torch", "pylrp", "PIL.Image"))
    science = Path(peers.load("skimage").__file__).parent / "data"
    names = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
    learn = Path(peers.load("sklearn").__file__).parent / "datasets" / "images"
    paths = [*(science / name for name in names), learn / "china.jpg", learn / "flower.jpg"]
    paths.append(Path(peers.load("matplotlib").get_data_path()) / "sample_data" / "grace_hopper.jpg")
    pixels = []
    for path in paths:
        photo = image.open(path).convert("RGB")
        side = min(photo.size)
        left, top = ((n - side) // 2 for n in photo.size)
        square = photo.crop((left, top, left + side, top + side)).resize((224, 224), image.Resampling.BICUBIC)
        pixels.append((np.asarray(square, np.float32).transpose(2, 0, 1) - 127) / 128)
    model = convnets.network("efficientnet-lite0")
    x = np.stack(pixels)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated
        path = Path(folder) / "network.onnx"
        torch.onnx.export(model, torch.from_numpy(x[:1]), str(path), dynamo=False, input_names=["input"])
        net = pylrp.load(path)
    return own_modules(model), net, x


def zennit_context(case: Case, model: Any) -> AbstractContextManager[Any]:
    """Return zennit's composite, registered while the context lasts."""
    if case.network != "mnist":
        context: AbstractContextManager[Any] = convnets.zennit_composite(model, case.composite).context(model)
        return context
    composites, rules = peers.load("zennit.composites"), peers.load("zennit.rules")
    first, last = rules.Epsilon(1e-6), rules.Epsilon(1e-6)
    if case.composite == "deep_taylor":
        exact = {"stabilizer": 1e-12, "zero_params": "bias"}
        first, last = rules.WSquare(**exact), rules.ZPlus(**exact)
    named = [(["1"], first), (["2"], rules.Pass()), (["3"], last)]
    context = composites.NameMapComposite(named).context(model)
    return context


def entrants(case: Case) -> list[tuple[str, Callable[[], Any]]]:
    """Return everybody's call, which gives the curve of each sample, (batch, steps); checks maps and curves first."""
    torch, quantus, evaluate = (peers.load(name) for name in ("torch", "quantus", "pylrp.evaluate"))
    model, net, x = digits() if case.network == "mnist" else photographs()
    numbers = x[0].size
    classes = net.forward(x).argmax(axis=1)
    metric = quantus.PixelFlipping(
        features_in_step=case.numbers_a_step, perturb_baseline=case.baseline, normalise=False, disable_warnings=True
    )

    def by_zennit(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        with zennit_context(case, model) as modified:
            values = torch.tensor(inputs).requires_grad_()
            out = modified(values)
            out.backward(gradient=torch.eye(out.shape[1])[torch.as_tensor(targets)])
            return values.grad.numpy()

    def flip(explain_func: Callable[..., Any] | None, maps: Any = None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Quantus warns of each step that changes nothing
            return np.array(metric(model, x, classes, a_batch=maps, explain_func=explain_func))

    def explained() -> Any:
        return net.explain(x, classes, case.composite, start="one").relevance

    def flipped(**kwargs: Any) -> Any:
        R = explained()
        return evaluate.pixel_flipping(
            net, x, R, target=classes, steps=numbers // case.numbers_a_step, layout=(numbers,),
            replacement=case.baseline, score="probability", **kwargs,
        )  # fmt: skip

    ours = evaluate.quantus_explain(case.composite, network=net, start="one")
    found: list[tuple[str, Callable[[], Any]]] = [
        ("pylrp", lambda: flipped(order=("most",)).scores["most"][:, 1:]),
        ("Quantus, zennit", lambda: flip(by_zennit)),
        ("Quantus, pylrp's maps", lambda: flip(ours)),
    ]
    if case.network == "mnist":
        found.append(("pylrp, most, least, 3 random", lambda: flipped().scores["most"][:, 1:]))
    R, curve = explained(), found[0][1]().mean(axis=0)
    require(case, "zennit's map", by_zennit(model, x, classes) / np.abs(R).max(), R / np.abs(R).max())
    require(case, "Quantus's curve of the same map", flip(None, R).mean(axis=0), curve)
    own = np.abs(flip(by_zennit).mean(axis=0) - curve).max()
    print(f"  the curve of Quantus with zennit's own map is {own:.1e} away")
    return found


def require(case: Case, what: str, values: Any, expected: Any) -> None:
    """End the program where somebody computes something else."""
    error = np.abs(values - expected).max()
    if not error <= TOLERANCE:  # so that NaN fails
        raise SystemExit(f"{case.name}: {what} is off by {error:.1e}, allowed are {TOLERANCE:.0e}")
    print(f"  {what} agrees to {error:.1e}")


def measure(case: Case, threads: int, rounds: int, budget: float) -> Row:
    """Check and time everybody on one case."""
    named = [(name, Entrant(call, lambda: peers.use_threads(threads))) for name, call in entrants(case)]
    others = alternate([entrant for _, entrant in named], rounds, budget)
    return {
        "name": case.name,
        "others": others,
        "rows": [{"name": name, **entrant.summary()} for name, entrant in named],
    }


def report(case: Case, row: Row) -> None:
    """Print a case's times, and whether its goal is reached."""
    if row["others"] > QUIET:
        print(f"  CAREFUL: other programs kept {row['others']:.2f} cores busy meanwhile")
    own = row["rows"][0]["median"]
    for entry in row["rows"]:
        spread = (entry["upper_quartile"] - entry["lower_quartile"]) / entry["median"] / 2
        print(f"  {entry['name']:<32} {entry['median'] * 1e3:9.1f} ms  +-{spread:4.0%}  {entry['median'] / own:6.1f}")
    if case.goal:
        slow, ratio = row["rows"][1]["name"], row["rows"][1]["median"] / own
        verdict = "reached" if ratio >= WANTED else "MISSED"
        print(f"    {slow} / pylrp: {ratio:.2f}, wanted {WANTED:.2f}  {verdict}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="pixel flipping beside Quantus with zennit")
    parser.add_argument(
        "--case", action="append", default=[], metavar="TEXT", help="only cases with this in their name"
    )
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="for everybody (default: 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each case")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "build" / "evaluation.json")
    options = parser.parse_args(arguments)
    missing = [name for name in ("torch", "zennit", "quantus", "skimage") if not peers.installed(name)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    peers.load("zennit.composites")  # makes torchvision importable, for Quantus
    peers.use_threads(options.threads)
    facts = machine.describe(options.threads)
    print(f"{facts['cpu']}, {facts['isa']}, {options.threads} threads, {facts['compiler']}")
    rows = []
    for case in CASES:
        if options.case and not any(text in case.name for text in options.case):
            continue
        print(f"\n{case.name}")
        wait_for_quiet(10.0)
        rows.append(measure(case, options.threads, options.rounds, options.seconds))
        report(case, rows[-1])
        options.output.parent.mkdir(parents=True, exist_ok=True)
        document = {"date": datetime.date.today().isoformat(), "machine": facts, "cases": rows}
        options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
