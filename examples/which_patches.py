"""Which patches make a digit? A small vision transformer, trained here on pylrp's hundred digits, explained.

    python examples/which_patches.py [--output patches.png]

torch trains it (some seconds), pylrp explains the module as it is: patches by a convolution, attention, GELU,
LayerNorm, a class token.

The script checks the maps against the network: blank the 3 of 16 patches with most relevance, and see how far the logit
falls; it must fall by more than without the 3 patches with least relevance in at least 80 of the 100 digits, and on
average by twice as much as without 3 patches that are drawn. Exit code 1 if not. Needs

    pip install torch onnx matplotlib

tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.demo import load_demo_digits

Array = NDArray[Any]
SIDE, PATCH, WIDTH, HEADS, BLOCKS = 28, 7, 32, 4, 2
STEPS, BATCH, SHIFT = 250, 100, 2
BLANKED, OFTEN, TIMES = 3, 80, 2.0
SHOWN = (0, 1, 2, 3, 4, 5, 6, 7)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Which patches make a digit?")
    parser.add_argument("--output", type=Path, default=Path("patches.png"))
    options = parser.parse_args(arguments)
    images, labels = load_demo_digits()
    x = images[:, None].astype(np.float32) / 255 - 0.5
    net = trained(x, labels.astype(np.int64))
    right = net.forward(x).argmax(1) == labels
    print(f"{int(right.sum())} of {len(x)} digits are read as what they are")
    ex = net.explain(x, target=labels.astype(int), composite="attnlrp")
    by_patch = sums(ex.relevance[:, 0])
    order = np.argsort(-by_patch, axis=1)
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(by_patch.shape[1]) for _ in x])
    falls: dict[str, Any] = {}
    for name, places in (("most", order), ("least", order[:, ::-1]), ("drawn", drawn)):
        changed = blanked(x, places[:, :BLANKED])
        falls[name] = (net.forward(x) - net.forward(changed))[np.arange(len(x)), labels]
    won = int((falls["most"] > falls["least"]).sum())
    falls = {name: float(fall.mean()) for name, fall in falls.items()}
    print(
        f"without the {BLANKED} patches with most relevance the logit falls by {falls['most']:.2f}, without those with"
    )
    print(f"least by {falls['least']:.2f}, without drawn ones by {falls['drawn']:.2f}; by more in {won} digits")
    draw(images, by_patch, options.output)
    held = won >= OFTEN and falls["most"] >= TIMES * falls["drawn"]
    return 0 if held and right.mean() > 0.9 else 1


def trained(x: Array, labels: Array) -> pylrp.Network:
    """Return a vision transformer that reads these digits, moved about by a pixel or two while it learned."""
    import torch
    from torch import nn

    class Transformer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
            self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
            self.positions = nn.Parameter(0.1 * torch.randn(1, 1 + (SIDE // PATCH) ** 2, WIDTH))
            block = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(block, BLOCKS, enable_nested_tensor=False)
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
            found: torch.Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
            return found

    torch.manual_seed(0)
    torch.set_num_threads(1)  # small products
    rng = np.random.default_rng(0)
    model = Transformer()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=STEPS)
    padded = np.pad(x, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), constant_values=-0.5)
    for _ in range(STEPS):
        down, right = rng.integers(0, 2 * SHIFT + 1, 2)
        batch = torch.from_numpy(padded[:BATCH, :, down : down + SIDE, right : right + SIDE].copy())
        loss = nn.functional.cross_entropy(model(batch), torch.from_numpy(labels[:BATCH]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return pylrp.load(model.eval(), torch.zeros(2, 1, SIDE, SIDE))


def sums(maps: Array) -> Array:
    """Return the sum over each patch, (digits, patches)."""
    count = SIDE // PATCH
    found: Array = maps.reshape(-1, count, PATCH, count, PATCH).sum((2, 4)).reshape(len(maps), -1)
    return found


def blanked(x: Array, places: Array) -> Array:
    """Return digits with some patches as dark as the ground."""
    count, changed = SIDE // PATCH, x.copy()
    for image, own in zip(changed[:, 0], places, strict=True):
        for place in own:
            row, column = divmod(int(place), count)
            image[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = -0.5
    return changed


def draw(images: Array, maps: Array, path: Path) -> None:
    """Write some digits, and the relevance of their patches."""
    from pylrp.plot import new_figure

    figure = new_figure(1.2 * len(SHOWN), 2.6)
    for column, at in enumerate(SHOWN):
        count = SIDE // PATCH
        for row, picture in enumerate((images[at], maps[at].reshape(count, count))):
            axes = figure.add_subplot(2, len(SHOWN), row * len(SHOWN) + column + 1)
            most = np.abs(picture).max()
            axes.imshow(picture, **({"cmap": "gray"} if row == 0 else {"cmap": "RdBu_r", "vmin": -most, "vmax": most}))
            axes.axis("off")
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
