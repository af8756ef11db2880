"""Zeros, layer by layer: their share of a layer's input and of its relevance, the way its products go, what that gains.

    python bench/zeros.py --image FILE --model FILE.onnx              a network of one's own on a picture
    python bench/zeros.py --image FILE --network efficientnet-lite0   of convnets.py; default: all three

Each layer with weights is timed alone, on one thread, with the input and the relevance that it has in an explanation of
the whole network: by tiles, as if nothing were zero, and the way that is chosen, in turns. Gain: the ratio of their
processor times, above 1 the chosen way is faster. Lists: the share of the multiply-adds that go by lists of what is not
zero.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv, Dense
from pylrp.network.graph import Graph

ROUNDS = 7


def ways(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the share of multiply-adds that go by lists, and the time by tiles as a multiple of the chosen way's."""
    seconds: dict[str, list[float]] = {"tiles": [], "counted": []}
    call()
    before = _core.left_work()
    call()
    work = {name: count - before[name] for name, count in _core.left_work().items()}
    for _ in range(ROUNDS):
        for way, times in seconds.items():
            _core.force_left_path(way)
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    _core.force_left_path("counted")
    every = work["tiles"] + work["lists"]
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    return work["lists"] / every if every else 0.0, medians["tiles"] / medians["counted"]


def zeros(values: NDArray[Any]) -> float:
    """Return the share of entries that are zero."""
    return float(np.mean(values == 0))


def look_at(net: pylrp.Network, x: NDArray[Any], composite: str) -> None:
    """Print a row of a table for each layer with weights, and one for the whole network."""
    graph = net.graph
    weighted = [node for node in graph.nodes if isinstance(node.layer, (Conv, Dense))]
    wanted = {node.inputs[0] for node in weighted if node.inputs[0] not in graph.inputs}
    inside = Graph(graph.inputs, graph.nodes, sorted(wanted), channels_last=graph.channels_last, dtype=graph.dtype)
    values = pylrp.Network.from_graph(inside).forward(x)
    explained = net.explain(x, composite=composite, layers="all")
    print("| layer | weights | zeros of a | forward: lists | gain | zeros of R | relevance: lists | gain |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for node in weighted:
        a = x if node.inputs[0] in graph.inputs else values[node.inputs[0]]
        top = explained.layers[node.name]
        alone = pylrp.Network([node.layer], input_shape=a.shape[1:])
        rule = pylrp.ZPlus() if isinstance(node.layer, Conv) else pylrp.Epsilon()
        forward = ways(partial(alone.forward, a))
        both = ways(partial(alone.explain, a, target=top, rules=rule))
        shape = " × ".join(str(size) for size in np.shape(vars(node.layer)["weight"]))
        columns = (
            f"{zeros(a):.0%} | {forward[0]:.0%} | {forward[1]:.2f} | {zeros(top):.0%} | {both[0]:.0%} | {both[1]:.2f}"
        )
        print(f"| {node.name} | {shape} | {columns} |", flush=True)
    share, gain = ways(lambda: net.forward(x))
    print(f"| prediction | | | {share:.0%} | {gain:.2f} | | | |")
    share, gain = ways(lambda: net.explain(x, composite=composite))
    print(f"| {composite} with prediction | | | | | | {share:.0%} | {gain:.2f} |", flush=True)


def picture(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a picture as a batch of one of an input of this shape (channels first), from 0 to 1."""
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB").resize((shape[2], shape[1])), np.float32) / 255
    return values.transpose(2, 0, 1)[None]


def input_of(net: pylrp.Network, path: Path) -> NDArray[Any]:
    """Return a picture as a network of images takes it, also one that takes its channels last."""
    (name,) = net.graph.inputs
    shape, channels_last = net.graph.inputs[name], name in net.graph.channels_last
    if shape[0] != 3:  # the network itself takes channels last
        shape, channels_last = (shape[2], *shape[:2]), True
    x = picture(path, shape)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last else x


def main() -> None:
    """Look at the networks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--network", action="append")
    parser.add_argument("--composite", default="epsilon_plus_flat")
    arguments = parser.parse_args()
    pylrp.set_threads(1)
    if arguments.model is not None:
        net = pylrp.load(arguments.model)
        look_at(net, input_of(net, arguments.image), arguments.composite)
        return
    import convnets
    import peers

    for wanted in arguments.network or ["vgg16", "efficientnet-lite0", "resnet50"]:
        print(f"\n{wanted}\n")
        x = (picture(arguments.image, (3, 224, 224)) - 0.5) / 0.5
        net = pylrp.load(convnets.network(wanted), peers.load("torch").from_numpy(x))
        look_at(net, x, arguments.composite)


if __name__ == "__main__":
    main()
