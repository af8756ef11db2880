"""What was typed, as typed values: argparse's namespace becomes one of these where a command begins."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pylrp.inputs import Preparation, TableOptions

__all__ = ["Arguments", "CompareArguments", "EvaluateArguments", "ExplainArguments", "VerifyArguments"]

_Any = TypeVar("_Any", bound="Arguments")
_PREPARATION = tuple(field.name for field in dataclasses.fields(Preparation))


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The options that commands share, each with the value it has where a command lacks it.

    Attributes
    ----------
    model : str
    inputs : tuple of str
    recursive : bool
    preparation : Preparation
        How an image becomes an input.
    table : TableOptions
        Which columns of a table are no features.
    input_shape : tuple of int or None
    keep_top : bool
    labels : str or None
        A file with the names of the classes.
    probability : str
    target, against : str or None
        Classes, by number or name.
    targets : tuple of str or None
    start : str
    top_name : str or None
        The value where relevance starts.
    convention : str
    precision : str or None
    composite : str or None
    rule : tuple of str
        LAYER=RULE each.
    low, high : tuple of float or None
        Bounds of the input.
    batch : int or None
        Inputs at a time.
    quiet : bool
    """

    model: str
    inputs: tuple[str, ...] = ()
    recursive: bool = False
    preparation: Preparation = dataclasses.field(default_factory=Preparation)
    table: TableOptions = dataclasses.field(default_factory=TableOptions)
    input_shape: tuple[int, ...] | None = None
    keep_top: bool = False
    labels: str | None = None
    probability: Literal["auto", "softmax", "sigmoid", "given", "none"] = "auto"
    target: str | None = None
    targets: tuple[str, ...] | None = None
    against: str | None = None
    start: Literal["logit", "one"] = "logit"
    top_name: str | None = None
    convention: str = "zennit"
    precision: str | None = None
    composite: str | None = None
    rule: tuple[str, ...] = ()
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    batch: int | None = None
    quiet: bool = False

    @classmethod
    def read(cls: type[_Any], namespace: argparse.Namespace) -> _Any:
        """Return what argparse has read.

        Raises
        ------
        OptionError
            If options about images exclude each other.
        """
        typed = vars(namespace)
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name in typed:
                value = typed[field.name]
                found[field.name] = tuple(value) if isinstance(value, list) else value
        if "pixel_max" in typed:
            found["preparation"] = Preparation(**{name: typed[name] for name in _PREPARATION})
        if "label_column" in typed:
            found["table"] = TableOptions(typed["label_column"], typed["drop"])
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class TextArguments(Arguments):
    """Of commands that take texts.

    Attributes
    ----------
    text : tuple of str
        Texts.
    text_pair : str or None
        The second sentence of one.
    tokenizer : str or None
        A tokenizer.json.
    """

    text: tuple[str, ...] = ()
    text_pair: str | None = None
    tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainArguments(TextArguments):
    """Of ``pylrp explain``.

    Attributes
    ----------
    output : tuple of str
        What to write.
    picture, overlay : str or None
    layers : str or None
        "all", or names with commas between.
    top : int
        Classes in a report.
    stream : bool
        Into files that may be larger than memory, to be gone on with.
    memory : str or None
        What batches on their way may take.
    on_error : str
        "raise" or "skip".
    fresh : bool
        Do not go on with what is there.
    dataset : str or None
        The array in a file with several.
    columns : tuple of str or None
        The features in Parquet.
    """

    output: tuple[str, ...]
    picture: str | None
    overlay: str | None
    layers: str | None
    top: int
    stream: bool = False
    memory: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    fresh: bool = False
    dataset: str | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CompareArguments(Arguments):
    """Of ``pylrp compare``.

    Attributes
    ----------
    output : str or None
        The picture.
    composites, conventions : tuple of str or None
        What is compared.
    """

    output: str | None
    composites: tuple[str, ...] | None
    conventions: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(Arguments):
    """Of ``pylrp evaluate``; checks and what follows are those of :func:`pylrp.evaluate.evaluate`.

    Attributes
    ----------
    output : tuple of Path
        Curves and numbers to write.
    labels_true : str or None
        A file with the true classes.
    """

    output: tuple[Path, ...]
    composites: tuple[str, ...] | None
    checks: tuple[Any, ...]
    steps: int
    patch: int | None
    replacement: Literal["mean", "blur", "inpaint"]
    score: Literal["logit", "probability"]
    repeats: int
    draws: int
    seed: int
    labels_true: str | None


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(TextArguments):
    """Of ``pylrp verify``.

    Attributes
    ----------
    file : str or None
        The ONNX file to compare with.
    tolerance : float or None
        What an error may be.
    """

    file: str | None
    tolerance: float | None
