"""All composites on the same photographs, and what the evaluation says about each: for docs/choosing-a-rule.md.

    python examples/composites_on_a_photo.py [--output FILE]    draw the picture, print the table
    python examples/composites_on_a_photo.py --write            and put the table into the page

EfficientNet-Lite0 with its trained weights, as in photo.py, which says what to install; scikit-learn has two more of
the four photographs. The evaluation takes about a minute. Exit code 1 if the composites that the page recommends for
photographs don't do better than a random order, or explain the cat with the cup. tests/peers/test_examples.py measures
a part of the table again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import photo
from numpy.typing import NDArray

import pylrp
from pylrp.evaluate import Evaluation, evaluate
from pylrp.plot import heatmap, new_figure
from pylrp.rules.composites import TRANSFORMERS

Array = NDArray[Any]
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "choosing-a-rule.md"
MARKED = re.compile(r"(<!-- measured: composites -->\n).*?(\n<!-- end -->)", re.DOTALL)
#: Those for convolutional networks.
NAMES = tuple(name for name in pylrp.COMPOSITES if name not in TRANSFORMERS)
RECOMMENDED = ("epsilon_plus_flat", "epsilon_gamma_box")
HEAD = ["composite", "flipping: area between the curves", "with noise: largest change", "random weights: correlation"]
HEAD += ["cat on its half", "espresso on its half"]


def pixels() -> list[Array]:
    """Return the four photographs as uint8 (224, 224, 3): a cat, a cup of espresso, a palace, a daisy."""
    from sklearn.datasets import load_sample_images

    return [*(p.pixels for p in photo.photographs()), *(photo.square(p) for p in load_sample_images().images)]


def judged(net: pylrp.Network, names: Iterable[str]) -> Evaluation:
    """Return what pixel flipping, noise, and random weights say about these composites' maps of the photographs."""
    return evaluate(
        net,
        np.stack([photo.as_input(p) for p in pixels()]),
        {name: photo.composite_for(name) for name in names},
        checks=("flipping", "sensitivity", "randomisation"),
        steps=14,
        patch=16,
        repeats=1,
        draws=3,
        stages=1,
    )


def on_their_halves(net: pylrp.Network, name: str) -> tuple[float, float]:
    """Return the shares of the positive relevance for cat and for espresso on their halves of the common picture."""
    together = photo.as_input(photo.both(*photo.photographs()))
    ex = net.explain(together, targets=[photo.CAT, photo.ESPRESSO], composite=photo.composite_for(name))
    cat, cup = ex.relevance.sum(axis=1, dtype=np.float64)
    left = np.broadcast_to(np.arange(photo.SIDE) < photo.SIDE // 2, cat.shape)
    return photo.share_inside(cat, left), photo.share_inside(cup, ~left)


def rows(net: pylrp.Network, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the cells by composite, best first by the area between the curves of pixel flipping."""
    found = judged(net, names)
    cells = {}
    for name in sorted(names, key=lambda name: -found.curves[name].abpc.mean()):
        areas = found.curves[name].abpc
        cells[name] = [
            f"{areas.mean():.1f} ({areas.min():.1f} to {areas.max():.1f})",
            f"{found.sensitivity[name].maximum.mean():.2f}",
            f"{found.randomisation[name].spearman[:, -1].mean():.2f}".replace("-0.00", "0.00"),
            *(f"{share:.0%}" for share in on_their_halves(net, name)),
        ]
    return cells


def draw(net: pylrp.Network, path: Path) -> None:
    """Write the picture: the cat and the cup, each by every composite, every map on its own scale."""
    figure = new_figure(10, 8.7, dpi=130)
    axes = figure.subplots(4, 5)
    for upper, shown in zip((0, 2), photo.photographs(), strict=True):
        first, *panels = axes[upper : upper + 2].flat
        first.imshow(shown.pixels)
        first.set_axis_off()
        first.set_title(photo.NAMES[shown.target], fontsize=10, weight="bold")
        for ax, name in zip(panels, NAMES, strict=True):
            ex = net.explain(photo.as_input(shown.pixels), shown.target, photo.composite_for(name))
            heatmap(ax, ex.relevance.sum(axis=0))
            ax.set_title(name, fontsize=9)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.965, 0.04, 0.13)
    figure.savefig(path, pil_kwargs={"quality": 88})  # of JPEG


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, evaluate, print; return the exit code."""
    parser = argparse.ArgumentParser(description="All composites on the same photographs.")
    parser.add_argument("--output", type=Path, default=DOCS / "pictures" / "composites.jpg")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    net = photo.load_network()
    draw(net, options.output)
    print(f"picture: {options.output}")

    found = rows(net, NAMES)
    lines = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *([f"`{name}`", *cells] for name, cells in found.items())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if options.write:
        text, count = MARKED.subn(lambda m: m[1] + table + m[2], PAGE.read_text(encoding="utf-8"))
        if count != 1:
            parser.error(f"{PAGE} has no markers for the table")
        PAGE.write_text(text, encoding="utf-8")
    return 0 if all(holds(found[name]) for name in RECOMMENDED) else 1


def holds(cells: Sequence[str]) -> bool:
    """Return whether a composite beats a random order on each photograph, and tells the cat from the cup."""
    worst = float(cells[0].partition("(")[2].partition(" ")[0])
    return worst > 0 and all(float(cell.rstrip("%")) > 75 for cell in cells[-2:])


if __name__ == "__main__":
    raise SystemExit(main())
