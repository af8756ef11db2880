"""Where in the signal is it? A 1-D convolutional network trained here, on signals whose pattern we put there ourselves.

    python examples/find_the_beat.py [--output find_the_beat.png]

Each signal is noise, 256 samples long, with one of two beats at a random place; the network only learns *which* beat it
is, never where. If the map is right, relevance must lie where we put the beat. The script prints which share of the
positive relevance does, beside the share of the time that the beat takes up. Exit code 1 if the map misses. The
network is trained with NumPy alone, in a few seconds; matplotlib draws. tests/docs/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import pylrp
from pylrp.layers import Conv, Dense, Flatten, GlobalAveragePool, ReLU
from pylrp.plot import new_figure, signal

Array = NDArray[Any]
LENGTH, BEAT, FILTERS, WIDTH = 256, 32, 12, 17
NAMES = ("slow beat", "fast beat")
SHOWN = 3


def make_signals(n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return signals (n, LENGTH), which beat each holds, and where it starts."""
    labels, starts = rng.integers(2, size=n), rng.integers(LENGTH - BEAT, size=n)
    time = np.arange(BEAT) / BEAT
    beats = np.stack([np.sin(2 * np.pi * turns * time) * np.hanning(BEAT) for turns in (2, 4)])
    x = 0.3 * rng.normal(size=(n, LENGTH))
    np.put_along_axis(x, starts[:, None] + np.arange(BEAT), 1.5 * beats[labels] + 0.3 * rng.normal(size=(n, BEAT)), 1)
    return x.astype(np.float32), labels, starts


def train(x: Array, labels: Array, rng: np.random.Generator) -> list[Array]:
    """Return filters (FILTERS, WIDTH), their biases, the readout (2, FILTERS) and its biases: Adam on cross-entropy."""
    filters = [rng.normal(size=(FILTERS, WIDTH)) / 4, np.zeros(FILTERS)]
    weights = [*filters, rng.normal(size=(2, FILTERS)), np.zeros(2)]
    mean, square = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(1, 401):
        chosen = rng.integers(len(x), size=64)
        windows = sliding_window_view(x[chosen], WIDTH, axis=1)  # (64, positions, WIDTH)
        z = windows @ weights[0].T + weights[1]
        features = np.maximum(z, 0).mean(1)
        logits = features @ weights[2].T + weights[3]
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - np.eye(2)[labels[chosen]]) / 64
        at_z = (z > 0) * (error @ weights[2])[:, None] / z.shape[1]
        gradient = np.einsum("npf,npw->fw", at_z, windows, optimize=True)
        gradients = [gradient, at_z.sum((0, 1)), error.T @ features, error.sum(0)]
        for w, g, m, v in zip(weights, gradients, mean, square, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g**2 - v)
            w -= 0.02 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return [w.astype(np.float32) for w in weights]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Where in the signal is it? A 1-D convolutional network.")
    parser.add_argument("--output", type=Path, default=Path("find_the_beat.png"))
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    filters, biases, readout, offsets = train(*make_signals(1000, rng)[:2], rng)
    net = pylrp.Network(
        [
            Conv(filters[:, None], biases, name="filters"),
            ReLU(),
            GlobalAveragePool(),
            Flatten(),
            Dense(readout, offsets, name="beat"),
        ],
        input_shape=(1, LENGTH),
    )
    print(net.summary("epsilon_plus"))

    x, labels, starts = make_signals(200, rng)
    ex = net.explain(x[:, None], composite="epsilon_plus")
    said = ex.output.argmax(1)
    accuracy = float(np.mean(said == labels))
    print(f"\n{len(x)} signals it has not seen, {accuracy:.1%} right")

    R = ex.relevance[:, 0].astype(np.float64)
    time = np.arange(LENGTH)
    inside = (time >= starts[:, None]) & (time < starts[:, None] + BEAT)
    positive = np.maximum(R, 0)
    share = (positive * inside).sum(1) / positive.sum(1)
    peaks = inside[np.arange(len(x)), R.argmax(1)].mean()
    print(f"positive relevance within the beat: {share.mean():.0%} (it takes up {BEAT / LENGTH:.1%} of the time)")
    print(f"the largest relevance lies within the beat in {peaks:.1%} of the signals")

    figure = new_figure(8, 1.7 * SHOWN + 0.5, dpi=150)
    axes = figure.subplots(SHOWN, sharex=True)
    for i, ax in enumerate(axes):
        signal(ax, R[i], x[i])
        ax.plot(
            [starts[i], starts[i] + BEAT], [0.03, 0.03], color="black", linewidth=3, transform=ax.get_xaxis_transform()
        )
        ax.set_title(f"{NAMES[said[i]]}, {share[i]:.0%} of the positive relevance on it", fontsize=9, loc="left")
    axes[-1].set_xlabel("sample; the black bar is where the beat was put, which the network was never told", fontsize=8)
    figure.tight_layout()
    figure.savefig(options.output)
    print(f"picture: {options.output}")
    return 0 if accuracy > 0.9 and share.mean() > 0.5 and peaks > 0.9 else 1


if __name__ == "__main__":
    raise SystemExit(main())
