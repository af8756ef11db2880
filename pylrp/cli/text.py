"""``pylrp explain --text``: texts by the model's tokenizer, words coloured in the terminal; ``explain.py`` calls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pylrp._files import atomically
from pylrp.cli.arguments import ExplainArguments
from pylrp.cli.texts import Texts
from pylrp.inputs.text import TextSample
from pylrp.network.explanation import Explanation
from pylrp.present.account import Account, absorbed, ledgers
from pylrp.present.names import numbered_class_name
from pylrp.present.numbers import number
from pylrp.present.text import shown
from pylrp.present.words import joined, terminal_of

__all__ = ["run"]

_AT_ONCE, _NAME = 64, 60


def run(args: ExplainArguments) -> int:
    """Explain texts, and return the exit status."""
    job = _Job(args)
    job.texts.print_notes()
    samples = job.texts.samples()
    if not samples:
        return 1
    at_once = len(samples) if any(path.suffix.lower() == ".npz" for path in job.outputs) else args.batch or _AT_ONCE
    for first in range(0, len(samples), at_once):
        job.explain(samples[first : first + at_once])
    for path in job.finish():
        if not args.quiet:
            print(f"wrote {shown(str(path))}")
    return 1 if job.texts.failed else 0


class _Job:
    """Texts, and what is written of them."""

    def __init__(self, args: ExplainArguments):
        self.args = args
        self.texts = Texts(args)
        self.outputs = [Path(text) for text in args.output]
        for path in self.outputs:
            if path.suffix.lower() not in (".png", ".pdf", ".svg", ".npz", ".html"):
                raise ValueError(f"-o {path}: of texts .png, .pdf, .svg (one text), .npz or .html are written")
            if path.suffix.lower() in (".png", ".pdf", ".svg") and len(self.texts.given) > 1:
                raise ValueError(f"-o {path} is one picture, there are {len(self.texts.given)} texts: write .html")
            if not path.parent.is_dir():
                raise FileNotFoundError(f"-o {path}: there is no folder {path.parent}")
        if self.texts.by_position and any(path.suffix.lower() == ".html" for path in self.outputs):
            raise ValueError(f"a report shows classes, {self.texts.top!r} has a row for each token: write .png or .npz")
        self.written: list[Path] = []
        self._report: Any = None

    def explain(self, samples: Sequence[TextSample]) -> None:
        """Explain some texts: print them, and write what is asked for."""
        texts = self.texts
        target: Any = None
        targets = None
        if self.args.targets is None:
            target = texts.target(samples)
        else:
            targets = [texts.entry(text, "--targets") for text in self.args.targets]
        against = None if self.args.against is None else texts.entry(self.args.against, "--against")
        ex = texts.network.explain(
            [sample.x for sample in samples], target, texts.rules, targets=targets, against=against,
            start=self.args.start, output=self.args.top_name, convention=self.args.convention,
            precision=self.args.precision,
        ).with_tokens([sample.tokens for sample in samples])  # fmt: skip
        for i, sample in enumerate(samples):
            if not self.args.quiet:
                self._tell(sample, ex[i])
            self._write(sample, ex[i], None if target is None else target[i], targets)
        for path in self.outputs:
            if path.suffix.lower() == ".npz":
                ex.save(path)
                self.written.append(path)

    def _tell(self, sample: TextSample, ex: Explanation) -> None:
        first = next(iter(ex.relevance)) if isinstance(ex.relevance, dict) else None
        R = ex.relevance if first is None else ex.relevance[first]
        maps = R if isinstance(ex.ledger, list) else R[None]
        classes = [None] * len(maps) if ex.target is None else [int(t) for t in np.ravel(ex.target)]
        for relevance, target, ledger in zip(maps, classes, ledgers(ex), strict=True):
            reached = float(np.sum(relevance, dtype=np.float64))
            name = "the target given" if target is None else numbered_class_name(target, self.texts.labels)
            taken = absorbed(ledger)
            account = Account(sum(taken.values()) + reached, reached, taken)
            causes = ", ".join(f"{each.name} {value:.4g}" for each, value in account.main_causes(0.001))
            print(f"{sample.given.name}: {name}, relevance {number(reached)}; absorbed: {causes or 'nothing'}")
            _print_words(joined(sample.tokens, relevance))

    def _write(self, sample: TextSample, ex: Explanation, target: Any, targets: Any) -> None:
        if any(path.suffix.lower() == ".html" for path in self.outputs):  # one report, however many files of it
            self._add(sample, target, targets)
        for path in self.outputs:
            if path.suffix.lower() not in (".html", ".npz"):
                figure = ex.plot(labels=None if self.texts.labels is None else list(self.texts.labels), pyplot=False)
                atomically(path, lambda part, figure=figure: figure.savefig(part))  # type: ignore[misc]
                self.written.append(path)

    def _add(self, sample: TextSample, target: Any, targets: Any) -> None:
        from pylrp.report import Report

        if self._report is None:
            probability = None if self.args.probability == "none" else self.args.probability
            self._report = Report(self.texts.network, self.texts.labels, probability=probability)
        asked = targets if targets is not None else None if target is None else [target]
        self._report.add(
            sample.x, name=_name(sample), tokens=sample.tokens, composites=self.texts.rules,
            targets=asked, top=self.args.top, output=self.args.top_name, convention=self.args.convention,
        )  # fmt: skip

    def finish(self) -> list[Path]:
        """Write what is not written yet; return all that was."""
        for path in self.outputs:
            if path.suffix.lower() == ".html":
                self._report.write(path)
                self.written.append(path)
        return list(dict.fromkeys(self.written))


def _name(sample: TextSample) -> str:
    """Return what a report calls a text: where it begins, and where its second sentence does."""
    parts = [sample.given.text] if sample.given.pair is None else [sample.given.text, sample.given.pair]
    most = _NAME // len(parts)
    return shown(" / ".join(part if len(part) <= most else part[: most - 1] + "…" for part in parts))


def _print_words(words: Any) -> None:
    if sys.stdout.isatty():
        try:
            from rich.console import Console

            Console().print(terminal_of(words))
            return
        except ImportError:  # plain, then
            pass
    print("  " + " ".join(f"{shown(word.text)} {number(word.relevance)}" for word in words))
