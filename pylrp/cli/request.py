"""What :meth:`pylrp.Network.explain` is asked for by a command, and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pylrp.cli.arguments import Arguments
from pylrp.cli.session import Session
from pylrp.errors import AbsorbedValue
from pylrp.network.classes import ClassIndex, as_indices
from pylrp.network.explanation import Explanation
from pylrp.network.network import Network
from pylrp.present.outputs import Outputs
from pylrp.present.targets import one_target
from pylrp.rules.composites import Composite

__all__ = ["ExplainRequest", "ReportRequest", "explain_request"]


@dataclass(frozen=True)
class ExplainRequest:
    """The arguments of Network.explain, but for the input.

    Attributes
    ----------
    start, output, convention : str
    target, against : int or None
        Indices of classes.
    targets : list of int or None
    composite : Composite or None
    layers : "all", tuple of str or None
        Whose relevance is kept.
    report : ReportRequest or None
        What a report shows besides.
    precision : str or None
    """

    start: Literal["logit", "one"]
    output: str | None
    convention: str
    target: ClassIndex | None = None
    targets: list[ClassIndex] | None = None
    against: ClassIndex | None = None
    composite: Composite | None = None
    layers: Literal["all"] | tuple[str, ...] | None = None
    report: ReportRequest | None = None
    precision: str | None = None

    def explain(self, network: Network, x: Any) -> Explanation:
        """Return the explanation of a batch, of the classes and layers that a report shows as well."""
        report = self.report
        if report is None:
            return self._explain(network, x)
        extended = self
        if report.ranks_classes:
            extended = replace(extended, targets=report.top_classes(network, x))
        wanted = [] if self.layers is None or self.layers == "all" else self.layers
        more = list(report.layers)
        while True:
            if self.layers != "all":
                extended = replace(extended, layers=tuple(dict.fromkeys([*wanted, *more])))
            try:
                return extended._explain(network, x)
            except AbsorbedValue as absorbed:  # part of another layer under these rules: a report goes without
                if absorbed.value not in more or absorbed.value in wanted:
                    raise
                more.remove(absorbed.value)

    def asked_for(self, ex: Explanation) -> Explanation:
        """Return an explanation without the classes that only a report shows."""
        return one_target(ex, 0) if self.report is not None and self.report.ranks_classes else ex

    def _explain(self, network: Network, x: Any) -> Explanation:
        return network.explain(
            x,
            self.target,
            self.composite,
            targets=self.targets,
            against=self.against,
            start=self.start,
            output=self.output,
            layers=self.layers,
            convention=self.convention,
            precision=self.precision,
        )


@dataclass(frozen=True)
class ReportRequest:
    """What a report shows beyond what other outputs do, so that a sample is explained once for all of them.

    Attributes
    ----------
    outputs : Outputs
    output : str
        The value where relevance starts.
    layers : tuple of str
    top : int or None
        How many classes of each sample; None where the classes are given, or cannot be ranked.
    two : bool
        Whether one logit decides between two classes: then class 1 is what others show, whatever is predicted.
    """

    outputs: Outputs
    output: str
    layers: tuple[str, ...]
    top: int | None
    two: bool

    @property
    def ranks_classes(self) -> bool:
        """Return whether the classes are those of the largest scores."""
        return self.top is not None

    def top_classes(self, network: Network, x: Any) -> list[Any]:
        """Return the classes to explain, one a sample each; first comes the one that the other outputs show."""
        found = network.forward(x)
        rows = np.asarray(found[self.output] if isinstance(found, dict) else found)
        ranked = [self._ranked(row) for row in rows]
        return [as_indices(np.array(classes)) for classes in zip(*ranked, strict=True)]

    def shown(self, ex: Explanation) -> Sequence[int]:
        """Return the positions of a report's classes among those that were explained, of one sample."""
        classes = [int(target) for target in np.ravel(ex.target)]
        if self.top is None:
            return range(len(classes))
        output = ex.output[self.output] if isinstance(ex.output, dict) else ex.output
        return [classes.index(each) for each in self.outputs.ranked(self.outputs.scores(output))[: self.top]]

    def _ranked(self, row: Any) -> list[int]:
        ranked = self.outputs.ranked(self.outputs.scores(row))
        return sorted(ranked, reverse=True) if self.two else ranked[: self.top]


def explain_request(args: Arguments, session: Session) -> ExplainRequest:
    """Return what is asked for, but for the rules and the layers.

    Raises
    ------
    ValueError
        If a class is unknown, or options exclude each other.
    """
    if args.target is not None and args.targets is not None:
        raise ValueError("give --target or --targets, not both")
    if args.against is not None and args.targets is not None:
        raise ValueError("--against goes with one --target")

    def number(text: str | None, option: str) -> ClassIndex | None:
        return None if text is None else session.class_number(text, option)

    target = number(args.target, "--target")
    targets = None if args.targets is None else [session.class_number(text, "--targets") for text in args.targets]
    against = number(args.against, "--against")
    return ExplainRequest(
        args.start, args.top_name, args.convention, target, targets, against, precision=args.precision
    )
