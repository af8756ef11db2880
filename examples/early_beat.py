"""When did the heart stumble? A Keras LSTM trained here, on heartbeats into which we put an early beat ourselves.

    python examples/early_beat.py [--output early_beat.png]

Each signal is four seconds of regular beats at 10 samples a second. In half of them one beat comes too early, is wide,
and a pause follows: an extrasystole. The LSTM learns from the labels alone whether there is one, never when. If the
map is right, relevance for "early beat" must lie where we put it. The script prints which share of the positive
relevance does, beside the share of the time that the window takes up, what the leave-one-segment-out correlation is,
and where the rest of the score stayed. Exit code 1 if the network has not learned it or the map misses.
Needs Keras 3 and a backend; training takes some 10 seconds. tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp

Array = NDArray[Any]
RATE, STEPS = 10, 40
REACH = 4  # steps to either side of the early beat
NAMES = ("regular", "early beat")


def beats(n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return signals (n, STEPS, 1), whether each has an early beat, and where that is."""
    x = 0.05 * rng.normal(size=(n, STEPS, 1))
    labels, places = rng.integers(2, size=n), np.full(n, -1)
    time = np.arange(STEPS)
    for i in range(n):
        gap = rng.uniform(8, 9.5)
        at = rng.uniform(0, gap) + gap * np.arange(-1, 6) + rng.normal(scale=0.2, size=7)
        inside = np.flatnonzero((at > 2 * REACH) & (at < STEPS - 2 * REACH))
        early = rng.choice(inside) if labels[i] else -1
        at[early] -= 0.4 * gap if labels[i] else 0
        for k, place in enumerate(at):
            height, width = (0.9, 1.5) if k == early else (1.0, 0.7)
            x[i, :, 0] += height * np.exp(-0.5 * ((time - place) / width) ** 2)
        places[i] = round(at[early]) if labels[i] else -1
    return x.astype(np.float32), labels, places


def train(x: Array, labels: Array) -> Any:
    """Return a Keras model: an LSTM, the largest value of each of its states over time, a logit for each class."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(1)
    given = keras.Input((STEPS, 1))
    states = keras.layers.LSTM(8, return_sequences=True)(given)
    model = keras.Model(given, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling1D()(states)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss)
    model.fit(x, labels, batch_size=50, epochs=15, verbose=0)
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="When did the heart stumble? A Keras LSTM.")
    parser.add_argument("--output", type=Path, default=Path("early_beat.png"))
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    net = pylrp.load(train(*beats(400, rng)[:2]))
    x, labels, places = beats(200, rng)
    said = net.forward(x).argmax(1)
    accuracy = (said == labels).mean()
    found = (said == 1) & (labels == 1)
    x, places = x[found], places[found]

    ex = net.explain(x, target=1, against=0, composite="epsilon")
    R = np.maximum(ex.relevance[..., 0], 0)
    window = np.abs(np.arange(STEPS) - places[:, None]) <= REACH
    share = (R * window).sum(1) / R.sum(1)
    left_out = pylrp.evaluate.leave_one_segment_out(net, x, ex.relevance, target=1, segments=10, baseline="mean")
    flipped = pylrp.evaluate.segment_flipping(net, x, ex.relevance, target=1, segments=10, baseline="mean")
    print(f"accuracy {accuracy:.3f}; {len(x)} early beats found")
    print(
        f"positive relevance within {REACH / RATE:.2f} s of it: {share.mean():.0%}, in {window.mean():.0%} of the time"
    )
    print(f"correlation with leaving a segment out: {np.nanmean(left_out.pearson):.2f}, random maps 0")
    print(flipped.table())
    print(ex[0].ledger)
    ex[0].plot(options.output, sample_rate=RATE, labels=NAMES)
    print(f"wrote {options.output}")
    right = accuracy > 0.9 and share.mean() > 2.5 * window.mean() and np.nanmean(left_out.pearson) > 0.5
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
