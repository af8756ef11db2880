"""What bfloat16 costs in accuracy and saves in time: maps with ``precision="bfloat16"`` beside those in float32.

    python bench/precision.py                                    the demo's digits, and large dense layers, one sample
    python bench/precision.py --efficientnet --image FILE        EfficientNet-Lite0, its own weights (with torch)
    python bench/precision.py --model FILE.onnx --image FILE     a network of one's own on a picture
    python bench/precision.py --model FILE.onnx --tokens 48      a text model, on random ids
    python bench/precision.py --no-zeros                         products without zeros: time alone

For each composite a row: the largest and the median difference of an entry that is not zero, as a share of the sample's
largest entry, Spearman's correlation of the two maps (the mean over samples; nan where a map is the same everywhere),
whether the same class is predicted, and the time in bfloat16 as a multiple of that in float32 (median processor time of
alternating calls on one thread).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from batch_one import network as dense_network
from numpy.typing import NDArray
from zeros import input_of, picture

import pylrp
from pylrp import _core
from pylrp.demo import load_demo_digits, load_demo_network
from pylrp.layers import Conv, Dense, ReLU

Array = NDArray[Any]
COMPOSITES = ("epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "deep_taylor")
OF_TEXTS = ("cp_lrp", "attnlrp", "epsilon")
rounds = 7  # alternating calls


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's correlation; ties share their mean rank. NaN where a map is the same everywhere."""
    if one.min() == one.max() or other.min() == other.max():
        return float("nan")

    def ranks(values: Array) -> Array:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(count)
        return ((last - (count - 1) / 2)[place]).ravel()

    return float(np.corrcoef(ranks(one.ravel()), ranks(other.ravel()))[0, 1])


def ratio(exact: Callable[[], Any], rounded: Callable[[], Any]) -> float:
    """Return the second's processor time as a multiple of the first's."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, times in zip((exact, rounded), seconds, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return statistics.median(seconds[1]) / statistics.median(seconds[0])


def compare(name: str, net: pylrp.Network, x: Any, composites: Sequence[Any]) -> None:
    """Print a row for each composite."""
    for composite in composites:

        def call(precision: str | None = None, composite: Any = composite) -> pylrp.Explanation:
            return net.explain(x, composite=composite, precision=precision, threads=1)

        exact, rounded = call(), call("bfloat16")
        maps, others = np.asarray(exact.relevance), np.asarray(rounded.relevance)
        if exact.settings["single"]:
            maps, others = maps[None], others[None]
        axes = tuple(range(1, maps.ndim))
        gaps = np.abs(maps - others) / np.abs(maps).max(axis=axes, keepdims=True)
        correlation = np.mean([rank_correlation(a, b) for a, b in zip(maps, others, strict=True)])
        agree = np.mean(np.asarray(exact.target) == np.asarray(rounded.target))
        print(
            f"| {name} | {composite} | {gaps.max():.1e} | {np.median(gaps[maps != 0]):.1e} | {correlation:.5f} | "
            f"{agree:.0%} | {ratio(call, lambda: call('bfloat16')):.2f} |",
            flush=True,
        )


def one_sample() -> None:
    """The classifier of VGG16, one sample: weights are read from memory."""
    weights, acts, out = dense_network([25088, 4096, 4096, 1000])
    layers: list[Any] = [Dense(weights[0])]
    for weight in weights[1:]:
        layers += [ReLU(), Dense(weight)]
    compare("25088-4096-4096-1000, random", pylrp.Network(layers), acts[0], ("epsilon", "deep_taylor"))
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return
    halves = [weight.astype(bfloat16) for weight in weights]
    times = ratio(
        lambda: pylrp.relevance(weights, acts, out, threads=1),
        lambda: pylrp.relevance(halves, acts, out, threads=1, precision="bfloat16"),
    )
    print(f"| the same by `relevance`, weights given in bfloat16 | deep_taylor | | | | | {times:.2f} |", flush=True)


def without_zeros() -> None:
    """Products whose operands have no zeros: nothing but multiply-adds."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    dense = pylrp.Network([Dense(draw(1000, 1000))])
    conv = pylrp.Network([Conv(draw(128, 128, 3, 3), padding=1)], input_shape=(128, 56, 56))
    for name, net, x in (
        ("dense, 256 x 1000 x 1000", dense, draw(256, 1000)),
        ("3 x 3, 128 to 128, 56 x 56", conv, draw(1, 128, 56, 56)),
    ):
        top = np.asarray(net.forward(x))

        def call(precision: str | None, net: Any = net, x: Any = x, top: Array = top) -> Any:
            return net.explain(x, top, "epsilon", precision=precision, threads=1)

        call(None), call("bfloat16")
        times = ratio(lambda: call(None), lambda: call("bfloat16"))
        print(f"| {name}, no zeros | epsilon | | | | | {times:.2f} |", flush=True)


def main() -> None:
    """Print the table of what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--efficientnet", action="store_true")
    parser.add_argument("--no-zeros", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--composite", action="append")
    args = parser.parse_args()
    global rounds
    rounds = args.rounds
    print(f"Products in bfloat16: {_core.bfloat16_instruction()}\n")
    print("| network | composite | largest | median | rank correlation | same class | time |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    if args.no_zeros:
        without_zeros()
    elif args.efficientnet:
        import convnets
        import peers

        x = (picture(args.image, (3, 224, 224)) - 0.5) / 0.5
        net = pylrp.load(convnets.network("efficientnet-lite0"), peers.load("torch").from_numpy(x))
        compare("EfficientNet-Lite0", net, x, args.composite or COMPOSITES)
    elif args.model is not None and args.tokens is not None:
        net = pylrp.load(args.model)
        ids = np.random.default_rng(0).integers(1000, 20000, (4, args.tokens))
        names = list(net.graph.facts.sides.names) if net.graph.facts.sides else []
        texts = {
            name: ids if "ids" in name and "type" not in name else (ids > 0).astype(np.int64) * ("mask" in name)
            for name in names
        }
        compare(args.model.stem, net, texts, args.composite or OF_TEXTS)
    elif args.model is not None:
        net = pylrp.load(args.model)
        compare(args.model.stem, net, input_of(net, args.image), args.composite or COMPOSITES)
    else:
        (first, second), (b1, b2) = load_demo_network()
        net = pylrp.Network([Dense(first, b1), ReLU(), Dense(second, b2)])
        digits = load_demo_digits()[0].reshape(-1, 784).astype(np.float32) / 255
        compare("demo, 784-300-10", net, digits, COMPOSITES)
        one_sample()


if __name__ == "__main__":
    main()
