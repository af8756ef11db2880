"""Which pixels made it a 5? The bundled MNIST network as plain arrays: weights and activations in, relevance out.

    python examples/mnist_arrays.py [--output mnist_arrays.png]

This is the whole of LRP for somebody who has a network as matrices: predict, choose where relevance starts, call
`pylrp.relevance`, read the ledger. Then it checks that the map is right about the network: without the 40 most
relevant pixels the logit of the digit must fall much further than without 40 at random. Exit code 1 if it does not.
Needs matplotlib for the picture. tests/docs/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.demo import load_demo_digits, load_demo_network
from pylrp.plot import heatmap, new_figure

Array = NDArray[Any]
ERASED = 40  # pixels, 5 % of the image
SHOWN = 6  # digits in the picture


def forward(W: list[Array], b: list[Array], x: Array) -> tuple[Array, Array]:
    """Return the hidden activations and the logits: the network by hand."""
    hidden = np.maximum(x @ W[0].T + b[0], 0)
    return hidden, hidden @ W[1].T + b[1]


def loss(W: list[Array], b: list[Array], x: Array, order: Array) -> Array:
    """Return how far the predicted class's logit falls when the first pixels of `order` are made black, (n,)."""
    logits = forward(W, b, x)[1]
    erased = x.copy()
    np.put_along_axis(erased, order[:, :ERASED], 0, axis=1)
    rows, top = np.arange(len(x)), logits.argmax(1)
    fall: Array = logits[rows, top] - forward(W, b, erased)[1][rows, top]
    return fall


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the digits; return the exit code."""
    parser = argparse.ArgumentParser(description="Which pixels made it a 5? MNIST from arrays.")
    parser.add_argument("--output", type=Path, default=Path("mnist_arrays.png"))
    options = parser.parse_args(arguments)

    # What you bring: W[l] is (n_out, n_in), one row a neuron; x is (samples, 784), as the network was trained, 0 to 1.
    W, b = load_demo_network()
    images, labels = load_demo_digits()
    x = images.reshape(len(images), -1).astype(np.float32) / 255
    hidden, logits = forward(W, b, x)
    top = logits.argmax(1)
    print(f"{len(x)} digits, {np.mean(top == labels):.0%} read right")

    # Relevance starts at the logit of the predicted digit. Epsilon in both layers: evidence for and against.
    out = np.where(np.arange(10) == top[:, None], logits, 0)
    R, ledger = pylrp.relevance(W, [x, hidden], out, rules="epsilon", biases=b, ledger=True)
    print(ledger)

    # All of it is accounted for: what starts is what arrives at the pixels, and what the biases and epsilon took.
    absorbed = sum(layer.absorbed for layer in ledger)
    lost = np.abs(out.sum(1) - absorbed - R.sum(1)).max()
    print(f"relevance that nobody accounts for: {lost:.1e} of a logit of {out.sum(1).mean():.1f}")

    # Is the map right? Erase the pixels that it calls most relevant; and as many of the pen's pixels at random.
    rng = np.random.default_rng(0)
    by_relevance = np.argsort(-R, axis=1)
    by_lot = np.argsort(-(x > 0).astype(float) - rng.random(x.shape) / 2, axis=1)
    fall, chance = loss(W, b, x, by_relevance), loss(W, b, x, by_lot)
    print(f"without the {ERASED} most relevant pixels the logit falls by {fall.mean():.1f}, ", end="")
    print(f"without {ERASED} pixels of the pen at random by {chance.mean():.1f}")

    draw(options.output, x, R, top)
    return 0 if lost < 1e-3 and fall.mean() > 2 * chance.mean() else 1


def draw(path: Path, x: Array, R: Array, top: Array) -> None:
    """Write the first digits, and below each its relevance."""
    figure = new_figure(1.5 * SHOWN, 3.5, dpi=150)
    axes = figure.subplots(2, SHOWN)
    for i, (upper, lower) in enumerate(axes.T):
        upper.imshow(x[i].reshape(28, 28), cmap="gray_r")
        upper.set_axis_off()
        upper.set_title(f"read as {top[i]}", fontsize=10)
        heatmap(lower, R[i].reshape(28, 28), outline=x[i].reshape(28, 28))
    figure.text(0.5, 0.02, "red spoke for the digit it was read as, blue against it", ha="center", fontsize=9)
    figure.subplots_adjust(0.01, 0.08, 0.99, 0.92, 0.05, 0.02)
    figure.savefig(path)
    print(f"picture: {path}")


if __name__ == "__main__":
    raise SystemExit(main())
