"""A mapping of rules that does not change and has a hash, as ``composites.py`` keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pylrp.rules.terms import Rule

__all__ = ["ByKind"]


class ByKind(Mapping[str, Rule]):
    """Rules by kind of layer, or by name: a dict that does not change, with a hash."""

    def __init__(self, rules: Mapping[str, Rule]):
        self._rules = dict(rules)

    def __getitem__(self, key: str) -> Rule:
        return self._rules[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __hash__(self) -> int:
        return hash(frozenset(self._rules.items()))

    def __repr__(self) -> str:
        return repr(self._rules)
