"""What :meth:`pylrp.Network.explain` returns: relevance, output, target, layers and the ledger in one value."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import AbsorbedValue
from pylrp.network.frames import Origin

__all__ = ["Coefficients", "Explanation", "Layers"]

Array = NDArray[Any]
Some = TypeVar("Some", bound="Layers")


class Layers(Mapping[str, Array]):
    """Relevance of each value of the network by its name; what was not kept is found anew when it is asked for.

    Parameters
    ----------
    kept : dict of str to ndarray
    names : list of str
        All of them, inputs first.
    again : callable or None
        Explains once more and returns the relevance of one value.
    others : mapping of str to str, optional
        Other names of values, those of outputs.
    absorbed : mapping of str to AbsorbedValue, optional
        Values that have no relevance of their own, with the error to raise for each.
    """

    def __init__(
        self,
        kept: dict[str, Array],
        names: list[str],
        again: Callable[[str], Array] | None,
        others: Mapping[str, str] | None = None,
        absorbed: Mapping[str, AbsorbedValue] | None = None,
    ):
        self._kept = dict(kept)
        self._names = names
        self._again = again
        self._others = dict(others or {})
        self._absorbed = dict(absorbed or {})

    def __reduce__(self) -> tuple[type[Layers], tuple[Any, ...]]:
        """Return how to make it again, elsewhere: with what is kept, without the network."""
        return type(self), (self._kept, self._names, None, self._others, self._absorbed)

    def value(self, name: str) -> str:
        """Return the value's own name."""
        return self._others.get(name, name)

    @property
    def others(self) -> dict[str, str]:
        """Return other names of values, those of outputs."""
        return dict(self._others)

    def part(self: Some, kept: dict[str, Array], take: Callable[[Array], Array]) -> Some:
        """Return the same for some samples: those of the kept ones, and how to take them of what is found anew."""
        again = None if self._again is None else lambda name: take(self[name])
        return type(self)(kept, self._names, again, self._others, self._absorbed)

    def anew(self: Some, kept: dict[str, Array], again: Callable[[str], Array]) -> Some:
        """Return the same for other samples: what is kept of them, and how the rest is found."""
        return type(self)(kept, self._names, again, self._others, self._absorbed)

    @property
    def kept(self) -> dict[str, Array]:
        """Return those that are there without computing."""
        return dict(self._kept)

    def __getitem__(self, name: str) -> Array:
        name = self.value(name)
        if name not in self._kept:
            if name in self._absorbed:
                raise self._absorbed[name].with_traceback(None)
            if name not in self._names:
                raise KeyError(f"no layer is called {name!r}; there are {', '.join(self._names)}")
            if self._again is None:
                raise self._not_kept(name)
            self._kept[name] = self._again(name)
        return self._kept[name]

    def _not_kept(self, name: str) -> KeyError:
        return KeyError(f"relevance of {name!r} was not kept: explain with layers=[{name!r}]")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Coefficients(Layers):
    """The coefficients of each value by its name, found when they are asked for."""

    def _not_kept(self, name: str) -> KeyError:
        return KeyError(f"coefficients of {name!r} are found by the network, which is not at hand: explain again")


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explained prediction.

    Attributes
    ----------
    relevance : ndarray, shape of the input
        With several targets ``(batch, targets, ...)``. A dict by name where several inputs carry relevance. For token
        ids one number a token. Of a list of samples whose shapes differ a list, as ``output``, ``input``,
        ``positions`` and the arrays of ``layers`` are then.
    output : ndarray of shape (batch, classes) or (classes,)
        What the network predicts; a dict by name where it has several outputs. Where one logit z decides between two
        classes it is z, also where class 0 was explained, whose relevance starts at -z.
    target : ndarray of int64 or None
        The index of the class explained, one a sample; of two classes with one logit 1 is that of the logit. None where
        the relevance at the top was given as an array.
    layers : mapping of str to ndarray
        Relevance of each value by name: of an input of the network (``"input"`` where it has no other name), or of what
        a layer puts out. An activation has the relevance of the layer before it.
    ledger : Ledger or list of Ledger
        Where the relevance went; with several targets one each.
    input : ndarray
        What was explained, as it was given; of a table with ``expanded=True`` what encoders and the like have made of
        it, a number for each of ``features``. A dict by name where the network has several inputs.
    settings : dict
        Composite, convention, start and what else the call was given: enough to repeat it.
    notes : tuple of str
        What the call changed in what it was given: a dtype, the order of columns.
    features : tuple of str or None
        The names of the input's features, in the order of ``relevance``: a data frame's columns, or those of the model;
        a dict by name where the network has several inputs.
    origin : Origin or None
        Of a data frame its package and the labels of its rows, for :meth:`to_frame`.
    coefficients : mapping of str to ndarray
        ``c = R / a`` of each value a by its name, found when it is asked for: what the rules of hidden layers carry,
        ``c_in = W^T c_out`` where epsilon is 0. Where a is 0 it is what R / a tends to, NaN where relevance stays on a
        zero; behind a ReLU that is off, and before one at 0, it is 0. None where the next layer's rule looks at
        constants (flat, w², z-box).
    positions : ndarray of shape (batch, tokens) or None
        What positions took of the relevance, token by token: constants that differ along the tokens (tables of
        positions, class tokens), ``sum_d m_td R_td / (x_td + m_td)``, the ledger's column ``position``; and tables
        whose rows are counted from a mask. With several targets ``(batch, targets, tokens)``; zeros where a network of
        ids has none; None where it has no tokens; a dict by layer where they have several lengths.
    """

    relevance: Any
    output: Any
    target: Any  # whose type is plain to users, though not to a type checker, like that of the ledger
    layers: Layers
    ledger: Any
    input: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    features: Any = None
    origin: Origin | None = None
    positions: Any = None
    coefficients: Coefficients = field(default_factory=lambda: Coefficients({}, [], None))

    @classmethod
    def with_later(cls, later: Mapping[str, Callable[[Explanation], Any]], **known: Any) -> Explanation:
        """Return an explanation of which some attributes are made when they are first asked for.

        One sample of a small network is explained in less time than it takes to make them all.

        Parameters
        ----------
        later : mapping of str to callable
            By name, what makes an attribute of the explanation. What it looks at must not change.
        **known
            The other attributes.
        """
        made = object.__new__(cls)
        made.__dict__.update(known, _later=later)
        return made

    if not TYPE_CHECKING:  # there attributes are what the class says

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that is not there yet; of two threads that ask at once both may make it."""
            make = self.__dict__.get("_later", {}).get(name)
            if make is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            return self.__dict__.setdefault(name, make(self))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all attributes, made."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    @property
    def composite(self) -> str:
        """Return what the rules were: the composite's name, a rule, or a list of rules."""
        given = self.settings.get("composite", "?")
        return given if isinstance(given, str) else str(getattr(given, "name", None) or given)

    def __repr__(self) -> str:
        shape: Any = tuple(self.relevance) if isinstance(self.relevance, dict) else ""
        if isinstance(self.relevance, list):
            shape = f"of {len(self.relevance)} samples"
        elif not shape:
            shape = np.shape(self.relevance)
        target = "given" if self.target is None else np.array2string(self.target, threshold=8)
        return f"<Explanation of target {target}: relevance {shape}, {self.composite!r}>"

    def __len__(self) -> int:
        """Return how many samples were explained."""
        if self.settings.get("single"):
            raise TypeError("one sample without a batch axis was explained: there is nothing to count")
        return int((self.ledger[0] if isinstance(self.ledger, list) else self.ledger).data.shape[2])

    def __bool__(self) -> bool:
        """Return True: an explanation of no samples is one, too."""
        return True

    def __getitem__(self, which: int | slice) -> Explanation:
        """Return a sample, ``ex[3]``, as if it had been explained alone, or some of them, ``ex[2:5]``."""
        from pylrp.network.saved import part_of

        count = len(self)
        if isinstance(which, slice):
            return part_of(self, which)
        index = operator.index(which)
        if not -count <= index < count:
            raise IndexError(f"sample {index} is not there: {count} were explained, counted from 0")
        return part_of(self, index % count)

    def __iter__(self) -> Iterator[Explanation]:
        """Return the samples one by one."""
        return (self[i] for i in range(len(self)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this explanation to a ``.npz`` file; :meth:`load` reads it back.

        Relevance, output, input, target, composite, relevance of kept layers and the ledger. Layers are stored as
        ``layer/<name>``, the ledger as ``ledger`` of shape (targets, layers, columns, batch) with its
        ``ledger_columns``, ``ledger_layers`` and ``ledger_rules``; of several inputs or outputs ``relevance/<name>``
        and ``output/<name>``. ``notes`` are there, and ``features`` where the input has names.
        """
        from pylrp.network.saved import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Return an explanation that :meth:`save` has written.

        It has what was saved: of ``layers`` those that were kept, and the composite by its name.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        pylrp.BrokenFile
            If it is none that :meth:`save` has written, or altered since.
        """
        from pylrp.network.saved import load

        return load(path)

    def with_tokens(self, tokens: Sequence[str] | Sequence[Sequence[str]]) -> Explanation:
        """Return the same with the text of its tokens: pictures, notebooks and reports show words then.

        Parameters
        ----------
        tokens : sequence of str, or a sequence of them for each sample
            As the tokenizer calls them, one for each id.
        """
        each = [list(map(str, tokens))] if self.settings.get("single") else [list(map(str, own)) for own in tokens]
        count = 1 if self.settings.get("single") else len(self)
        if len(each) != count:
            raise ValueError(f"there are {count} samples and tokens of {len(each)}")
        kept = each[0] if self.settings.get("single") else each
        return dataclasses.replace(self, settings={**self.settings, "tokens": kept})

    def to_frame(self, package: str | None = None) -> Any:
        """Return the relevance as a data frame: a row a sample, a column a feature, by their names.

        Rows have the labels of the data frame that was explained; with several targets a row each, labelled by sample
        and target (polars: two columns more). The ledger and what else there is stay here.

        Parameters
        ----------
        package : {"pandas", "polars"}, optional
            Default: that of the data frame that was explained, else pandas.

        Returns
        -------
        pandas.DataFrame or polars.DataFrame

        Raises
        ------
        ValueError
            If a sample's relevance is no row: of images, or of several inputs.
        ImportError
            If the package is not installed.
        """
        from pylrp.network.frames import to_frame

        return to_frame(self, package)

    def to_shap(self) -> Any:
        """Return a ``shap.Explanation``, for ``shap.plots.beeswarm``, ``bar``, ``waterfall`` and the like.

        ``values`` is the relevance, in units of the output that was explained (a logit); ``base_values`` of each sample
        is that output minus the sum of its relevance, what biases and stabilisers took, so that values and base value
        add up to the output. They are LRP's relevance, not Shapley values. Words among the inputs are in
        ``display_data``, their numbers in ``data``. With several targets the last axis is the target.

        Raises
        ------
        ValueError
            If a sample's relevance is no row, or does not start at an output (``start="one"``).
        ImportError
            If shap is not installed.
        """
        from pylrp.network.frames import to_shap

        return to_shap(self)

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, kind: str | None = None, sample: int = 0,
        target: int | None = None, ax: Any = None, image: Any = None, labels: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Draw this explanation: a heatmap of an image, lanes of a signal, bars of a row, or what ``kind`` says.

        Parameters
        ----------
        path : path-like, optional
            Write the picture to this file, too: PNG, PDF, SVG.
        kind : str, optional
            "image", "signal", "time", "table", "channels", "layers", "ledger", "text", "heads", "patches", "positions".
            Default: by the shape of a sample; "text" where ``tokens`` are given.
        sample : int, default 0
            The row of the batch.
        target : int, optional
            One of the classes that were explained; default all.
        ax : matplotlib.axes.Axes, Figure or SubFigure, optional
            Where to draw; default: a new figure, which ``plt.show()`` shows if the program has imported pyplot
            and no ``path`` is given.
        image : array_like of shape (height, width) or (height, width, 3), optional
            The picture to show under the relevance, uint8 or float from 0 to 1.
        labels : sequence of str or mapping of int to str, optional
            Names of the classes.
        **options
            ``tokens``, ``segments``, ``overlay``, ``percentile``, ``limit``, ``feature_names``, ``values``, ``shape``,
            ``layer``, ``layers``, ``input``, ``most``, ``sample_rate``, ``cmap``, ``title``, ``caption``, ``dpi``,
            ``pyplot``: see :func:`pylrp.plot.explanation`.

        Returns
        -------
        matplotlib.figure.Figure or matplotlib.axes.Axes
            A new figure, or what was given as ``ax``.

        Raises
        ------
        ValueError
            If there is no such sample, target, layer or input, an option does not go with the kind, or relevance is
            NaN.
        ImportError
            If matplotlib is not installed.

        See Also
        --------
        pylrp.plot.grid : Samples and composites side by side.
        """
        from pylrp.plot import explanation

        return explanation(
            self, path, kind=kind, sample=sample, target=target, ax=ax, image=image, labels=labels, **options
        )

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows; None, for the text form, where nothing can be drawn."""
        from pylrp.plot import to_html

        return to_html(self)
