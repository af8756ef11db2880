"""Turn the JSON of ``run.py`` and ``networks.py`` into docs/performance.md's tables, and speed against batch size.

    python bench/report.py bench/results/<file>.json [more.json ...]

Where several files hold the same case, the last one counts. The text between ``<!-- bench:begin -->`` and
``<!-- bench:end -->`` is replaced in docs/performance.md; the plot, drawn if there is a sweep,
becomes ``docs/pictures/speed.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import goals
from cases import PRODUCTS_NEEDED
from timing import QUIET

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
CONVNETS = "convnets"  # the cases of networks.py
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADINGS = {
    "NumPy by hand": "NumPy",
    "torch by hand": "torch",
    "torch, W+ kept": "torch, W⁺ kept ¹",
    "zennit": "zennit ²",
    "captum": "captum ² ³",
    "Cython loops": "Cython loops ⁴",
    "torch forward": "torch, prediction alone",
}


def load(files: Sequence[Path]) -> Row:
    """Read the files into one: the last one's machine, the last measurement of each case."""
    runs = [json.loads(file.read_text()) for file in files]
    cases = {(case.get("group", CONVNETS), case["name"]): case for run in runs for case in run["cases"]}
    cpus = {run["machine"]["cpu"] for run in runs}
    if len(cpus) > 1:
        raise ValueError(f"these were measured on different machines: {', '.join(sorted(cpus))}")
    # Only run.py measures the machine's ceilings.
    machine = next((run["machine"] for run in reversed(runs) if run["machine"]["ceilings"]), runs[-1]["machine"])
    versions = {name: v for run in runs for name, v in run["machine"]["versions"].items()}
    found = [{**case, "group": group} for (group, _), case in cases.items()]
    return {**runs[-1], "machine": {**machine, "versions": versions}, "cases": found}


def medians(case: Row) -> dict[str, float]:
    """Return seconds by competitor."""
    return {row["name"]: row["median"] for row in case["rows"] if not row.get("obstacle")}


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def milliseconds(seconds: float) -> str:
    """Return a time with three digits, a dash for none."""
    value = seconds * 1e3
    return f"{value:.3g} ms" if 0 < value < 100 else f"{value:.0f} ms" if value else "–"


def network_table(cases: Sequence[Row]) -> str:
    """Return the times of pylrp and everybody else's as multiples of ``pylrp.relevance``."""
    lines = []
    for case in cases:
        times = medians(case)
        label = case["name"].replace(" b", ", batch ", 1).replace(" float64", ", float64")
        ratios = [f"{times[name] / times['pylrp']:.1f}×" if name in times else "–" for name in HEADINGS]
        ours = [milliseconds(times["pylrp"]), milliseconds(times.get("pylrp explain", 0))]
        lines.append([label, *ours, *ratios])
    return table(["network", "`relevance`", "`explain`", *HEADINGS.values()], lines)


def convnet_table(cases: Sequence[Row]) -> str:
    """Return predictions beside onnxruntime's, explanations beside zennit's."""
    lines = []
    for case in cases:
        times = medians(case)
        predicts = times["onnxruntime forward"]
        label = case["name"].replace(" b", ", batch ", 1)
        forward = times["pylrp forward"]
        lines.append([label, "prediction alone", milliseconds(forward), f"{forward / predicts:.1f}×", "–"])
        for name, seconds in times.items():
            composite = name.removeprefix("pylrp ")
            if composite not in (name, "forward"):
                other = times.get(f"zennit {composite}")
                theirs = f"{other / seconds:.1f}×" if other else "–"
                lines.append([label, composite, milliseconds(seconds), f"{seconds / predicts:.1f}×", theirs])
    header = ["network", "composite", "`explain`", "of onnxruntime's prediction", "zennit takes"]
    return table(header, lines)


def rule_table(cases: Sequence[Row], ceilings: goals.Ceilings) -> str:
    """Return for each rule what it needs, what pylrp's time would suffice for at the peak, and the others' times."""
    lines = []
    for case in cases:
        row = next(row for row in case["rows"] if row["name"] == "pylrp")
        times, needed = medians(case), PRODUCTS_NEEDED[case["rules"][0]]
        share = goals.shares(case, row, ceilings).get("FMA peak")
        paid = [f"{needed / share:.1f}", f"{share:.0%}"] if share else ["–", "–"]
        others = ("NumPy by hand", "torch by hand", "zennit")
        ratios = [f"{times[name] / times['pylrp']:.1f}×" if name in times else "–" for name in others]
        lines.append([case["rules"][0], str(needed), *paid, milliseconds(times["pylrp"]), *ratios])
    header = ["rule", "products needed", "paid", "of the peak", "`relevance`", "NumPy", "torch", "zennit ²"]
    return table(header, lines)


def markdown(run: Row) -> str:
    """Return the page's text."""
    machine, ceilings = run["machine"], run["machine"]["ceilings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    groups: dict[str, list[Row]] = {}
    for case in run["cases"]:
        groups.setdefault(case["group"], []).append(case)
    limits = ceilings.get(str(machine["threads"]), {})
    parts = [
        f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads for everybody, {run['date']}; {versions}. "
        "Medians of alternating rounds in one process, every result checked first. The question's rules: w² at the "
        "input, z+ above. `relevance` gets activations, `explain` computes them; the others' times are multiples of "
        "`relevance`, below 1 they are faster.",
        network_table(groups.get("network", [])),
        "¹ W⁺ and W² made beforehand: every weight is in memory twice. ² Its forward pass is included, it cannot do "
        "without. ³ It has no w² rule: z+ at the input too. ⁴ Compiled with -O3 -march=native, one thread.",
    ]
    if limits:
        parts.append(
            f"Measured in the same run: {limits['fma_peak']:.0f} GFLOP/s of float32 multiply-adds and "
            f"{limits['read_bandwidth']:.0f} GB/s of reading memory."
        )
    if "rule" in groups:
        parts.append(
            "Single rules on a layer of 4096 × 4096, batch 256. *Needed* are the products with W that the algebra "
            "cannot avoid for an input ≥ 0; *paid* is how many the time would suffice for at the measured peak."
        )
        parts.append(rule_table(groups["rule"], ceilings))
    if CONVNETS in groups:
        parts.append(
            "Convolutional networks on 224 × 224 pixels, prediction and explanation in one call: its time, that as a "
            "multiple of onnxruntime's prediction, and how many times as long zennit takes. VGG16 and ResNet50 have "
            "random weights, EfficientNet-Lite0 its own. *ten targets* are ten classes by epsilon_plus_flat."
        )
        parts.append(convnet_table(groups[CONVNETS]))
    if (busiest := max(case["others"] for case in run["cases"])) > QUIET:
        parts.append(f"Other programs kept up to {busiest:.1f} cores busy meanwhile: measure again on a quiet machine.")
    return "\n\n".join(parts)


def update(page: Path, text: str) -> None:
    """Replace what stands between the markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="tables and plot from the benchmark's JSON")
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, nargs="+", default=[ROOT / "docs" / "performance.md"])
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "pictures" / "speed.png")
    options = parser.parse_args()
    run = load(options.results)
    for page in options.page:
        update(page, markdown(run))
    sweep = [case for case in run["cases"] if case["group"] == "sweep"]
    if sweep:
        import plot

        plot.speed(sweep, run["machine"], options.plot)


if __name__ == "__main__":
    main()
