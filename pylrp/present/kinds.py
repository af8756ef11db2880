"""How a sample is shown: as an image, as a signal or as a table, by its shape."""

from __future__ import annotations

__all__ = ["kind_of"]


def kind_of(shape: tuple[int, ...], sequence: bool = False, *, most_bars: int | None = None) -> str:
    """Return how values of one sample are shown: "image", "signal" or "table".

    Three axes are an image, channels first. Two axes are an image if both have at least 8 entries and neither 4 times
    those of the other, else the channels and the length of a signal. A row of numbers is a table.

    Parameters
    ----------
    shape : tuple of int
    sequence : bool, default False
        Whether two axes are known to be channels and positions: then they are no image.
    most_bars : int, optional
        A longer row is a signal.

    Raises
    ------
    ValueError
        If the shape has no axis, or more than three.

    Examples
    --------
    >>> kind_of((3, 224, 224)), kind_of((28, 28)), kind_of((12, 1000)), kind_of((30,))
    ('image', 'image', 'signal', 'table')
    """
    if len(shape) == 1:
        return "table" if most_bars is None or shape[0] <= most_bars else "signal"
    if len(shape) == 3:
        return "image"
    if len(shape) == 2:
        small, large = sorted(shape)
        return "image" if not sequence and small >= 8 and large < 4 * small else "signal"
    raise ValueError(f"the relevance of a sample has shape {shape}: draw slices of it with pylrp.plot.heatmap")
