"""The table that ``pylrp explain`` prints while it works: a line for each input and class."""

from __future__ import annotations

from typing import Any

from pylrp.cli.session import Session
from pylrp.inputs import Entry, Item
from pylrp.network.explanation import Explanation
from pylrp.present.account import Account, absorbed, ledgers, reached, scores, targets
from pylrp.present.names import numbered_class_name
from pylrp.present.outputs import Outputs

__all__ = ["Table", "clipped"]

_WIDEST_NAME, _WIDEST_CLASS = 44, 30
_SHARE_SHOWN = 0.001  # of the score: causes of less are left out


class Table:
    """Prints an explained sample as a line; the first line is preceded by the heads of the columns.

    Parameters
    ----------
    session : Session
    against : int or None
        The class that the explained one is compared with.
    quiet : bool
        Print nothing.
    """

    def __init__(self, session: Session, against: int | None, *, quiet: bool):
        self._session, self._quiet = session, quiet
        self._against = against
        self._outputs = Outputs(session.network, session.top, {}, session.probability)
        self._name = min(_WIDEST_NAME, max(5, *(len(entry.name) for entry in session.entries)))
        every = range(session.classes) if session.labels else [session.classes - 1]
        longest = max(len(self._class_text(i, start)) for i in every for start in (-1.0, 1.0))
        self._class = min(_WIDEST_CLASS, max(5, longest))
        self._chance = self._outputs.probability is not None and self._against is None
        self._empty = True

    def show(self, entry: Entry, item: Item, ex: Explanation) -> None:
        """Print the lines of one sample."""
        if self._quiet:
            return
        if self._empty:
            self._head()
        values = scores(ex, self._session.top)
        for target, sum_, ledger in zip(targets(ex), reached(ex), ledgers(ex), strict=True):
            start = float(values[target] - (0 if self._against is None else values[self._against]))
            cells = [
                clipped(entry.name, self._name).ljust(self._name),
                *([self._class_text(target, start)[: self._class].ljust(self._class)] if self._has_classes else []),
                f"{start:>10.4g}",
                *([f"{100 * self._probability(values, target):>9.1f} %"] if self._chance else []),
                f"{sum_ + 0.0:>9.4g}",
                _causes(absorbed(ledger), sum_),
            ]
            print("  ".join(cells) + self._remark(item))

    @property
    def _has_classes(self) -> bool:
        return self._session.classes > 1 or self._session.labels is not None

    def _head(self) -> None:
        self._empty = False
        if self._session.two and self._session.labels is not None:
            below, above = self._session.labels
            middle = f"{self._session.middle:g}"
            rule = f"one output: above {middle} it predicts {above}, below {below}"
            print(f"{rule}; relevance above 0 is evidence for {above}")
        start = "output" if self._against is None else "difference"
        heads = ["input".ljust(self._name), *(["class".ljust(self._class)] if self._has_classes else [])]
        heads += [f"{start:>10}", *([f"{'probability':>11}"] if self._chance else []), f"{'relevance':>9}"]
        print("\n" + "  ".join([*heads, "absorbed on the way"]))

    def _class_text(self, target: int, start: float) -> str:
        """Return the class that was explained; of one output for two classes the one that is predicted."""
        session = self._session
        if session.two and session.labels is not None:
            return session.labels[int(start > session.middle)]
        name = numbered_class_name(target, session.labels)
        return name if self._against is None else f"{name}, not {numbered_class_name(self._against, session.labels)}"

    def _probability(self, values: Any, target: int) -> float:
        chances = self._outputs.probabilities(values)
        chance = 0.0 if chances is None else float(chances[target])
        return 1 - chance if self._session.two and values[0] <= self._session.middle else chance

    def _remark(self, item: Item) -> str:
        remarks = [item.note] if item.note else []
        if item.truth is not None:
            truth, labels = item.truth, self._session.labels
            if labels is not None and self._session.numbered and truth.isdigit() and int(truth) < len(labels):
                truth = labels[int(truth)] if self._session.two else numbered_class_name(int(truth), labels)
            remarks.insert(0, f"true class {truth}")
        return f"  ({'; '.join(remarks)})" if remarks else ""


def _causes(taken: dict[str, float], reached: float) -> str:
    account = Account(sum(taken.values()) + reached, reached, taken)
    return ", ".join(f"{each.name} {v:.4g}" for each, v in account.main_causes(_SHARE_SHOWN)) or "nothing"


def clipped(text: str, width: int) -> str:
    """Return the end of a text that is too long: of file names the end tells most."""
    return text if len(text) <= width else "…" + text[1 - width :]
