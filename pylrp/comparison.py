"""``pylrp.compare``: how far the conventions of the LRP libraries lie apart on one network, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.api import Arrays, Rules, relevance
from pylrp.errors import MissingRule
from pylrp.present import html
from pylrp.present.text import nearest
from pylrp.rules.conventions import CONVENTIONS

__all__ = ["Comparison", "by_convention", "compare"]

Explained = TypeVar("Explained")


@dataclass(frozen=True)
class Comparison:
    """Relevances of one network under several conventions.

    Attributes
    ----------
    relevance : dict of str to list of ndarray
        ``[R_input, R_1, ..., R_output]`` by convention.
    missing : dict of str to str
        Conventions that lack one of the rules, and which.
    """

    relevance: dict[str, list[NDArray[Any]]]
    missing: dict[str, str]

    @property
    def reference(self) -> str:
        """Return the first convention: the others are compared with it."""
        return next(iter(self.relevance))

    def difference(self, convention: str) -> list[float]:
        """Return, layer by layer from the input up, max ``|R - R_reference| / max |R_reference|``."""
        pairs = zip(self.relevance[convention], self.relevance[self.reference], strict=True)
        result = []
        for mine, theirs in pairs:
            scale = float(np.max(np.abs(theirs), initial=0))
            gap = float(np.max(np.abs(mine - theirs), initial=0))
            result.append(gap / scale if scale else (0.0 if gap == 0 else np.inf))
        return result

    def table(self) -> str:
        """Return the differences as text, output first."""
        about, rows, missing = self._parts()
        lines = [row[0].ljust(8) + "".join(f"{cell:>26}" for cell in row[1:]) for row in rows]
        return "\n".join([about, *lines, *missing])

    def _parts(self) -> tuple[str, list[list[str]], list[str]]:
        """Return what the table shows, its cells with the head first, and what is missing in it."""
        names = list(self.relevance)
        depth = len(self.relevance[self.reference])
        gaps = {name: self.difference(name) for name in names}
        sums = {name: [float(np.sum(r, dtype=np.float64)) for r in self.relevance[name]] for name in names}
        about = f"largest difference to {self.reference}, relative to its largest relevance; (sum of relevance)"
        rows = [["layer", *names]]
        for l in reversed(range(depth)):
            label = "input" if l == 0 else ("output" if l == depth - 1 else f"R_{l}")
            rows.append([label, *(f"{gaps[name][l]:.3g} ({sums[name][l]:.5g})" for name in names)])
        return about, rows, [f"{name}: not compared, {why}" for name, why in self.missing.items()]

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        about, rows, missing = self._parts()
        return html.html(html.lines([about]), html.table(rows), html.lines(missing))


def compare(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = "epsilon",
    biases: Sequence[ArrayLike | None] | None = None,
    conventions: Sequence[str] = ("zennit", "captum", "innvestigate", "lrp_toolbox"),
    threads: int | None = None,
) -> Comparison:
    """Explain one network under several conventions.

    Parameters
    ----------
    W_list, acts, out, biases, threads
        As for :func:`pylrp.relevance`.
    rules : default "epsilon"
        As for :func:`pylrp.relevance`; epsilon is the rule that every library has.
    conventions : sequence of str
        The first one that has all the rules is the reference.

    Returns
    -------
    Comparison
        Prints as a table, layer by layer.

    Raises
    ------
    ValueError
        If a convention is unknown or none has all the rules, and as :func:`pylrp.relevance` does.
    """
    unknown = [name for name in conventions if name not in CONVENTIONS]
    if unknown:
        raise ValueError(
            f"unknown convention {unknown[0]!r}{nearest(unknown[0], CONVENTIONS)}; choose from {', '.join(CONVENTIONS)}"
        )

    def explain(convention: str) -> list[NDArray[Any]]:
        return relevance(
            W_list,
            acts,
            out,
            rules=rules,
            biases=biases,
            return_layers=True,
            threads=threads,
            convention=convention,
        )

    missing: dict[str, str] = {}
    return Comparison(by_convention(conventions, explain, missing), missing)


def by_convention(
    conventions: Sequence[str], explain: Callable[[str], Explained], missing: dict[str, str]
) -> dict[str, Explained]:
    """Return what ``explain`` gives under each convention; ``missing`` gets those that lack a rule, and why."""
    found = {}
    for name in conventions:
        if name in missing:
            continue
        try:
            found[name] = explain(name)
        except MissingRule as error:
            missing[name] = str(error)
    if not found:
        raise ValueError("no convention has all the rules: " + "; ".join(missing.values()))
    return found
