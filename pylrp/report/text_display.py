"""Token ids and their relevance as the page draws them: words on coloured ground; ``sample.py`` calls in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.present.words import joined
from pylrp.report.encode import short

__all__ = ["TextDisplay"]

Array = NDArray[Any]


class TextDisplay:
    """How token ids are shown.

    Parameters
    ----------
    name : str
        Of the input.
    ids : ndarray of int, shape (tokens,)
    tokens : sequence of str, optional
        Their text, as the tokenizer calls them. Default: the ids.

    Raises
    ------
    ValueError
        If there are not as many tokens as ids.
    """

    kind = "text"

    def __init__(self, name: str, ids: Array, tokens: Sequence[str] | None):
        self.name, self._shape = name, np.shape(ids)
        self._tokens = list(map(str, np.ravel(ids))) if tokens is None else list(map(str, tokens))
        # Padding without relevance is a word here: all targets have the same words.
        self._words = joined(self._tokens, np.ones(int(np.prod(self._shape))))

    def plane(self, relevance: Array) -> Array:
        """Return relevance of the tokens as that of words, (1, words), float64."""
        values = np.asarray(relevance, np.float64).reshape(-1)
        return np.array([[values[word.first : word.last + 1].sum() for word in self._words]])

    def input_data(self) -> dict[str, Any]:
        """Return the words for the page: text, whether it is a special token, the sentence."""
        words = [[word.text, int(word.special), word.segment] for word in self._words]
        return {"name": self.name, "kind": self.kind, "shape": list(self._shape), "words": words}

    def map_data(self, relevance: Array, positions: Array | None = None) -> dict[str, Any]:
        """Return relevance of the tokens for the page, one number a word, and what their positions took."""
        made = {"values": [short(value) for value in self.plane(relevance)[0]]}
        if positions is not None and np.shape(positions) == self._shape and np.any(positions):
            made["positions"] = [short(value) for value in self.plane(positions)[0]]
        return made

    def speaks(self, index: int) -> bool:
        """Tell whether a word is one of the text: special tokens stand apart."""
        return not self._words[index].special

    def feature(self, index: int) -> str:
        """Return a word."""
        return f"“{self._words[index].text}”"
