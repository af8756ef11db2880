"""Draw speed against batch size, with the two ceilings of the machine; ``report.py`` hands over a sweep's cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

Row = dict[str, Any]
INK, GREY = "#222222", "#8a8a8a"
STYLES: dict[str, dict[str, Any]] = {
    "pylrp": {"color": "#c1272d", "linewidth": 2.8, "marker": "o", "zorder": 5},
    "torch by hand": {"color": "#e08214", "linewidth": 1.6, "marker": "s"},
    "NumPy by hand": {"color": "#1b7837", "linewidth": 1.6, "marker": "^"},
    "captum": {"color": "#2166ac", "linewidth": 1.6, "marker": "D"},
    "zennit": {"color": "#762a83", "linewidth": 1.6, "marker": "v"},
    "torch forward": {"color": GREY, "linewidth": 1.4, "linestyle": (0, (4, 2))},
}
LABELS = {"torch forward": "torch, prediction alone", "captum": "captum (z+ at the input)"}


def speed(cases: Sequence[Row], machine: Row, target: Path) -> None:
    """Draw the picture into a PNG."""
    cases = sorted(cases, key=lambda case: int(case["batch"]))
    batches = np.array([case["batch"] for case in cases])
    limits = machine["ceilings"].get(str(machine["threads"]), {})
    figure, axes = plt.subplots(figsize=(9, 5.4), dpi=160, layout="constrained")
    axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="explanations per second")
    ends: dict[str, float] = {}
    for name, style in STYLES.items():
        rows = [(case["batch"], row) for case in cases for row in case["rows"] if row["name"] == name]
        timed = [(batch, batch / row["median"]) for batch, row in rows if not row["obstacle"]]
        if timed:
            axes.plot(*zip(*timed, strict=True), markersize=5, markeredgewidth=0, **style)
            ends[name] = timed[-1][1]
    if limits:
        _draw_ceilings(axes, batches, cases, limits)
    ticks = 4 ** np.arange(np.log2(batches[-1]) // 2 + 1, dtype=int)
    axes.set_xticks(ticks, [f"{batch:,}" for batch in ticks])
    axes.minorticks_off()
    axes.set_xlim(batches[0] / 1.15, batches[-1] * 1.15)
    axes.yaxis.set_major_formatter("{x:,g}")
    for name, y in _spread(ends).items():
        axes.annotate(
            LABELS.get(name, name),
            (batches[-1] * 1.25, y),
            annotation_clip=False,
            va="center",
            color=STYLES[name]["color"],
            weight="bold" if name == "pylrp" else "normal",
        )
    widths = "-".join(str(width) for width in cases[0]["widths"])
    axes.set_title(
        f"Relevance of a {widths} network: w² at the input, z+ above",
        loc="left",
        color=INK,
        fontsize=11.5,
        weight="bold",
        pad=24,
    )
    text = f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads, {cases[0]['dtype']}; higher is better"
    axes.text(0, 1.025, text, transform=axes.transAxes, color=GREY, fontsize=9)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    plt.close(figure)


def _draw_ceilings(axes: Any, batches: Any, cases: Sequence[Row], limits: dict[str, float]) -> None:
    """Draw one read of the needed weights a batch and the needed multiply-adds at the peak: nobody is above both."""
    fine = np.geomspace(batches[0] / 1.15, batches[-1] * 1.15, 300)
    lines = []
    for limit, need in (("read_bandwidth", "bytes"), ("fma_peak", "flops")):
        per_sample = np.array([case[need] / case["batch"] for case in cases])
        per_sample = np.exp(np.interp(np.log(fine), np.log(batches), np.log(per_sample)))
        lines.append(limits[limit] * 1e9 / per_sample)
        axes.plot(fine, lines[-1], color=INK, linewidth=1, linestyle=":", zorder=1)
    ceiling = np.minimum(*lines)
    bottom, top = axes.get_ylim()[0], ceiling.max() * 2.6
    axes.fill_between(fine, ceiling, top, color="#f3f0ea", linewidth=0, zorder=0)
    axes.set_ylim(bottom, top)
    style = {"color": INK, "fontsize": 8.5, "rotation_mode": "anchor"}
    x, y = fine[8], lines[0][8] * 1.4
    slope = np.log(lines[0][80] / lines[0][8]) / np.log(fine[80] / x)  # in the picture's scale
    axes.annotate(
        f"memory: {limits['read_bandwidth']:.0f} GB/s",
        (x, y),
        rotation=np.degrees(np.arctan(slope * y / x)),
        transform_rotates_text=True,
        **style,
    )
    axes.annotate(f"arithmetic: {limits['fma_peak']:.0f} GFLOP/s", (fine[-8], lines[1][-1] * 1.35), ha="right", **style)


def _spread(ends: dict[str, float], factor: float = 1.32) -> dict[str, float]:
    """Move labels apart, upwards, until neighbours are at least a factor apart."""
    placed: dict[str, float] = {}
    last = 0.0
    for name in sorted(ends, key=lambda name: ends[name]):
        last = max(ends[name], last * factor)
        placed[name] = last
    return placed
