"""From paths, folders and patterns to files, and from files to entries; each kind of file has its reader."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from pylrp.inputs.arrays import npy_entries, npz_entries
from pylrp.inputs.base import Entry, Wanted
from pylrp.inputs.errors import EmptyFolder, Option
from pylrp.inputs.images import ImagePlan, Preparation, image_item, image_suffixes, require_colour
from pylrp.inputs.tables import TableOptions, table_entries
from pylrp.present.text import shown

__all__ = ["expand", "read_inputs"]

_READERS: dict[str, Callable[[Path, Wanted, TableOptions], list[Entry]]] = {
    ".npy": lambda path, wanted, _: npy_entries(path, wanted),
    ".npz": lambda path, wanted, _: npz_entries(path, wanted),
    ".csv": table_entries,
    ".tsv": table_entries,
}


def expand(words: Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> list[Path]:
    """Return the files that paths, folders and patterns stand for, each once.

    Parameters
    ----------
    words : iterable of path-like
        A file; a folder: its images, arrays and tables in the order of their names, hidden ones left out; or a
        pattern such as ``"photos/*.jpg"``, with ``**`` for any folders.
    recursive : bool, default False
        Go into the folders of folders, too.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or a folder or pattern holds none.
    """
    found: dict[Path, None] = {}
    for word in words:
        found.update(dict.fromkeys(_expand(os.fspath(word), recursive)))
    return list(found)


def _expand(word: str, recursive: bool) -> list[Path]:
    path = Path(word)
    if path.is_dir():
        return _folder(path, recursive)
    if path.exists() or not glob.has_magic(word):
        if not path.exists():
            raise FileNotFoundError(f"there is no file {word}")
        if not path.is_file():  # reading a pipe may never end
            raise ValueError(f"{shown(word)} is no ordinary file")
        return [path]
    matches = [p for p in map(Path, sorted(glob.glob(word, recursive=True))) if p.is_file()]
    if not matches:
        raise FileNotFoundError(f"no file matches {word}")
    return matches


def _folder(folder: Path, recursive: bool) -> list[Path]:
    def known(deep: bool) -> list[Path]:
        suffixes = {*image_suffixes(), *_READERS}
        return sorted(
            path
            for path in (folder.rglob("*") if deep else folder.iterdir())
            if path.suffix.lower() in suffixes
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )

    files = known(recursive)
    if not files:
        empty = f"folder {folder} holds no images, .npy, .npz or .csv files"
        if recursive or not known(deep=True):
            raise EmptyFolder(empty)
        raise EmptyFolder(f"{empty}; its folders do: ", Option("recursive", True), " goes into them")
    return files


def read_inputs(
    words: Sequence[str | os.PathLike[str]],
    wanted: Wanted,
    preparation: Preparation | None = None,
    *,
    table: TableOptions | None = None,
    recursive: bool = False,
) -> list[Entry]:
    """Return the samples in files, folders and patterns; images are read when an entry is loaded, not before.

    Parameters
    ----------
    words : sequence of path-like
        As for :func:`expand`.
    wanted : Wanted
        What the network takes: ``Wanted.of(network)``.
    preparation : Preparation, optional
        How pixels become numbers.
    table : TableOptions, optional
        Which columns of a table are no features.
    recursive : bool, default False

    Returns
    -------
    list of Entry
        A file that can't be opened is an entry, too, and raises when it is loaded.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or a folder or pattern holds none.
    ValueError
        If there are images and the network takes none, or the background is no colour.
    ImportError
        If there are images and pillow is not installed.

    Examples
    --------
    >>> import numpy as np, pylrp, tempfile, os
    >>> from pylrp.inputs import Wanted, read_inputs
    >>> from pylrp.layers import Dense
    >>> net = pylrp.Network([Dense([[1.0, -1.0]])])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "two.npy")
    ...     np.save(path, [[1, 2], [3, 4]])
    ...     print([entry.load().x for entry in read_inputs([path], Wanted.of(net))])
    [{'input': array([1., 2.])}, {'input': array([3., 4.])}]
    """
    preparation = preparation or Preparation()
    plan: ImagePlan | None = None
    entries: list[Entry] = []
    for path in expand(words, recursive=recursive):
        if (reader := _READERS.get(path.suffix.lower())) is None:
            if plan is None:
                plan = ImagePlan.of(wanted, preparation)
                require_colour(preparation.background)
            entries.append(Entry(str(path), path.stem, path, partial(image_item, path, plan), plan))
            continue
        try:
            entries += reader(path, wanted, table or TableOptions())
        except (OSError, ValueError) as error:
            entries.append(Entry.broken(path, error))
    return entries
