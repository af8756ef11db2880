"""Where a pixel of a map differs from float64 by more than rounding: pools whose winner rounding decides.

    python bench/winners.py --image FILE --model FILE.onnx

Products by tiles and by lists of what is not zero sum in another order. Two entries of a 2 x 2 pool that differ by less
than that rounding change places, and all the relevance of that window goes to the other one. For each way: the largest
difference from float64, of the largest pixel; the windows with another winner than in float64, with the gap of the two
candidates in float64, relative to the larger one; and the largest difference from the map in float64 whose pools send
relevance where single precision has the winner. That one is made layer by layer, and shows that nothing but winners
differs. Dense areas of one colour have as many ties as windows: the first of them are printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import zeros
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv, Dense, MaxPool
from pylrp.network.graph import Graph, Node
from pylrp.rules.assignment import assign

WAYS = ("tiles", "counted", "lists", "pairs")
MOST = 3  # windows that are printed


def values_under(net: pylrp.Network, x: NDArray[Any]) -> tuple[list[Node], dict[str, NDArray[Any]]]:
    """Return the pools of windows of 2 x 2 and their inputs' values."""
    graph = net.graph
    pools = [node for node in graph.nodes if isinstance(node.layer, MaxPool)]
    wanted = sorted({pool.inputs[0] for pool in pools})
    inside = Graph(graph.inputs, graph.nodes, wanted, channels_last=graph.channels_last, dtype=graph.dtype)
    return pools, pylrp.Network.from_graph(inside).forward(x)


def windows(values: NDArray[Any]) -> NDArray[Any]:
    """Return one image's windows, (channels, rows, columns, 4)."""
    channels, rows, columns = values.shape[1], values.shape[2] // 2, values.shape[3] // 2
    cut = values[0][:, : 2 * rows, : 2 * columns].reshape(channels, rows, 2, columns, 2)
    gathered: NDArray[Any] = cut.transpose(0, 1, 3, 2, 4).reshape(channels, rows, columns, 4)
    return gathered


def to_winners(relevance: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Return the relevance below a pool, of one image: each window's goes to the largest of these values."""
    cut = windows(values)
    chosen = cut.argmax(-1)[..., None] == np.arange(4)
    sent = chosen * relevance[0][..., None]
    channels, rows, columns, _ = sent.shape
    below = np.zeros_like(values, dtype=relevance.dtype)
    gathered = sent.reshape(channels, rows, columns, 2, 2).transpose(0, 1, 3, 2, 4)
    below[0][:, : 2 * rows, : 2 * columns] = gathered.reshape(channels, 2 * rows, 2 * columns)
    return below


def by_winners(net: pylrp.Network, x: NDArray[Any], winners: dict[str, NDArray[Any]], composite: str) -> NDArray[Any]:
    """Return a chain's map, layer by layer from its last value on, pools' winners by these values of their inputs."""
    graph = net.graph
    rules = assign(graph, composite, "zennit").rules
    wanted = sorted({node.inputs[0] for node in graph.nodes} - set(graph.inputs))
    inside = Graph(graph.inputs, graph.nodes, wanted, channels_last=graph.channels_last, dtype=graph.dtype)
    values = pylrp.Network.from_graph(inside).forward(x)
    (first,) = graph.inputs
    values[first] = x
    relevance = net.explain(x, composite=composite, layers=[graph.nodes[-1].name]).layers[graph.nodes[-1].name]
    for node in reversed(graph.nodes):
        if isinstance(node.layer, MaxPool):
            relevance = to_winners(relevance, winners[node.inputs[0]])
            continue
        a = values[node.inputs[0]]
        alone = pylrp.Network.from_graph(Graph({node.inputs[0]: a.shape[1:]}, [node], [node.name], dtype=np.float64))
        top = relevance.reshape(alone.forward(a).shape)
        if isinstance(node.layer, (Conv, Dense)):
            relevance = alone.explain(a, target=top, rules=rules[node.name]).relevance
        else:
            relevance = alone.explain(a, target=top).relevance
    return relevance


def compare(net: pylrp.Network, exact: pylrp.Network, x: NDArray[Any], composite: str) -> tuple[float, float]:
    """Return the largest difference of a map from float64, and from float64 with single precision's winners."""
    pools, values = values_under(net, x)
    found, wide = net.explain(x, composite=composite).relevance, x.astype(np.float64)
    expected = exact.explain(wide, composite=composite).relevance
    same = by_winners(exact, wide, {pool.inputs[0]: values[pool.inputs[0]] for pool in pools}, composite)
    largest = float(np.abs(expected).max())
    return float(np.abs(found - expected).max()) / largest, float(np.abs(found - same).max()) / largest


def main() -> None:
    """Print a line for each way and each pool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    arguments = parser.parse_args()
    net, exact = pylrp.load(arguments.model), pylrp.load(arguments.model, dtype="float64")
    x = zeros.input_of(net, arguments.image)
    pools, known = values_under(exact, x.astype(np.float64))
    for way in WAYS:
        _core.force_left_path(way)
        values = values_under(net, x)[1]
        plain, same = compare(net, exact, x, "epsilon_plus_flat")
        _core.force_left_path("counted")
        print(f"{way}: largest difference from float64 {plain:.1e}, with the winners of single precision {same:.1e}")
        for pool in pools:
            right, found = windows(known[pool.inputs[0]]), windows(values[pool.inputs[0]])
            others = np.argwhere((right.argmax(-1) != found.argmax(-1)) & (right.max(-1) > 0))
            print(f"  {pool.name}: another winner in {len(others)} windows")
            for channel, row, column in others[:MOST]:
                second, first = np.sort(right[channel, row, column])[-2:]
                place = f"channel {channel}, row {row}, column {column}"
                print(f"    {place}: gap in float64 {(first - second) / first:.1e}")


if __name__ == "__main__":
    main()
