"""Where a pixel of a map differs from float64 by more than rounding: pools whose winner rounding decides.

    python bench/winners.py --image FILE --model FILE.onnx

Products by tiles and by lists of what is not zero sum in another order. Two entries of a 2 x 2 pool that differ by less
than that rounding change places, and all the relevance of that window goes to the other one. For each way: the largest
difference from float64, of the largest pixel; the windows with another winner than in float64, with the gap of the two
candidates in float64, relative to the larger one; and the largest difference outside what these windows send to.
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
from pylrp.layers import Conv, MaxPool
from pylrp.network.graph import Graph, Node

WAYS = ("tiles", "counted", "lists", "pairs")


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


def reach(net: pylrp.Network, pool: Node) -> tuple[int, int]:
    """Return how many pixels of the input a pixel below a pool is, and how far beyond it relevance goes."""
    scale, margin = 1, 0
    for node in net.graph.nodes:
        if node is pool:
            break
        if isinstance(node.layer, Conv):
            margin += scale
        elif isinstance(node.layer, MaxPool):
            scale *= 2
    return scale, margin


def main() -> None:
    """Print a line for each way and each window with another winner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    arguments = parser.parse_args()
    net, exact = pylrp.load(arguments.model), pylrp.load(arguments.model, dtype="float64")
    x = zeros.input_of(net, arguments.image)
    pools, known = values_under(exact, x.astype(np.float64))
    expected = exact.explain(x.astype(np.float64), composite="epsilon_plus_flat", layers="all")
    largest = float(np.abs(expected.relevance).max())
    for way in WAYS:
        _core.force_left_path(way)
        values = values_under(net, x)[1]
        difference = np.abs(net.explain(x, composite="epsilon_plus_flat").relevance - expected.relevance) / largest
        _core.force_left_path("counted")
        image = difference[0].max(-1) if difference.shape[-1] == 3 else difference[0].max(0)
        print(f"{way}: largest difference from float64 {image.max():.1e}, mean {image.mean():.1e}")
        elsewhere = np.ones(image.shape, bool)
        for pool in pools:
            right, found = windows(known[pool.inputs[0]]), windows(values[pool.inputs[0]])
            other = (right.argmax(-1) != found.argmax(-1)) & (right.max(-1) > 0)
            scale, margin = reach(exact, pool)
            for channel, row, column in np.argwhere(other):
                second, first = np.sort(right[channel, row, column])[-2:]
                place = f"channel {channel}, row {row}, column {column}"
                print(f"  {pool.name}: another winner in {place}: gap in float64 {(first - second) / first:.1e}")
                top, left = 2 * scale * int(row) - margin, 2 * scale * int(column) - margin
                size = 2 * scale + 2 * margin
                elsewhere[max(top, 0) : top + size, max(left, 0) : left + size] = False
        print(f"  largest difference outside what these windows send to: {image[elsewhere].max():.1e}")


if __name__ == "__main__":
    main()
