"""Images of any kind that pillow reads, as a network takes them: size, channels, scale. Called by ``files.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.inputs.base import Array, Item, Wanted, as_network_takes_it, refuse
from pylrp.inputs.errors import Option, OptionError
from pylrp.network.layout import channels_moved_first

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LAYOUTS", "ImagePlan", "Preparation", "image_item", "image_suffixes", "require_colour"]

_MOST_LARGER = 64
#: Orders of a network's axes, the batch first; N alone is a row of pixels.
LAYOUTS = ("NCHW", "NHWC", "NHW", "N")


@dataclass(frozen=True)
class Preparation:
    """How pixels become numbers: ``x = (pixel - mean) / std``, pixels from 0 to ``pixel_max``.

    Parameters
    ----------
    mean, std : sequence of float
        One for all channels or one a channel, in the network's order, in units of ``pixel_max``.
    pixel_max : float, default 1
        What white becomes before mean and std: 1 or 255.
    resize : int, optional
        The shorter side is brought to so many pixels, then the centre is cropped. Default: so that the crop's sides
        just fit.
    stretch : bool, default False
        Bring the image to the network's size without cropping, whatever its proportions.
    interpolation : {"bilinear", "bicubic", "nearest"}
    layout : str, optional
        One of :data:`LAYOUTS`; needed where the shape leaves doubt.
    size : (int, int), optional
        Height and width, for a network that takes a row of pixels.
    bgr : bool, default False
        Channels in the order blue, green, red.
    background : str, default "white"
        The colour behind transparent pixels.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    pixel_max: float = 1.0
    resize: int | None = None
    stretch: bool = False
    interpolation: str = "bilinear"
    layout: str | None = None
    size: tuple[int, int] | None = None
    bgr: bool = False
    background: str = "white"

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in self.std):
            raise ValueError(f"std must be above 0, got {_joined(self.std)}")
        if self.pixel_max == 1 and max(self.mean) > 1:
            raise OptionError(
                f"mean {_joined(self.mean)} is above 1, the value of a white pixel: if pixels go from 0 to 255, say ",
                Option("pixel_max", 255),
            )
        if self.resize is not None and self.stretch:
            raise OptionError(
                Option("resize"), " and ", Option("stretch", True), " exclude each other: one crops, one does not"
            )


@dataclass(frozen=True)
class ImagePlan:
    """How an image gets into one network.

    Attributes
    ----------
    name : str
        Of the network's input.
    layout : str
        One of :data:`LAYOUTS`.
    channels, height, width : int
    dtype : dtype
    preparation : Preparation
    """

    name: str
    layout: str
    channels: int
    height: int
    width: int
    dtype: np.dtype[Any]
    preparation: Preparation

    @classmethod
    def of(cls, wanted: Wanted, preparation: Preparation) -> ImagePlan:
        """Return the plan for a network, or raise ValueError where images don't fit or the layout is in doubt."""
        name = wanted.only_input("images")
        shape = wanted.shapes[name]
        layout = preparation.layout or _layout(shape, name in wanted.channels_last)
        if len(shape) != max(1, len(layout) - 1):
            raise OptionError(Option("layout", layout), f" does not fit the network's input, {shape} without the batch")
        if layout == "N":
            size = preparation.size
            if size is None:
                side = math.isqrt(shape[0])
                raise OptionError(
                    f"the network takes a row of {shape[0]} numbers: to give it images, say their height and width, "
                    "for example ",
                    Option("size", (side, side) if side * side == shape[0] else ("HEIGHT", "WIDTH")),
                )
            if size[0] * size[1] != shape[0]:
                raise OptionError(
                    Option("size", size), f" has {size[0] * size[1]} pixels, the network takes {shape[0]}"
                )
            channels, (height, width) = 1, size
        else:
            axes = dict(zip(layout[1:], shape, strict=True))
            channels, height, width = axes.get("C", 1), axes["H"], axes["W"]
            if preparation.size not in (None, (height, width)):
                raise OptionError(
                    f"the network takes images of {height}x{width}, ", Option("size"), " can't change that"
                )
        if channels not in (1, 3):
            refuse(f"the network takes {channels} channels, an image has 1 or 3: give arrays, .npy")
        for what, values in (("mean", preparation.mean), ("std", preparation.std)):
            if len(values) not in (1, channels):
                raise OptionError(Option(what), f" has {len(values)} numbers, the network takes {channels} channels")
        plan = cls(name, layout, channels, height, width, wanted.dtype, preparation)
        if preparation.resize is not None and preparation.resize < min(height, width):
            raise OptionError(Option("resize", preparation.resize), f" is less than the network's {height}x{width}")
        return plan

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Return the least and largest number a pixel can become: floats, or arrays with one a channel."""
        p = self.preparation
        mean, std = np.array(p.mean, dtype=np.float64), np.array(p.std, dtype=np.float64)
        low, high = np.broadcast_arrays((0 - mean) / std, (p.pixel_max - mean) / std)
        return (float(low[0]), float(high[0])) if low.size == 1 else (low, high)

    def describe(self) -> str:
        """Return in one line what happens to an image."""
        p = self.preparation
        kind = "grey" if self.channels == 1 else ("BGR" if p.bgr else "RGB")
        if p.stretch:
            size = f"stretched to {self.height}x{self.width}"
        else:
            short = "just covering" if p.resize is None else f"shorter side {p.resize}, centre"
            size = f"{short} {self.height}x{self.width}" + (", centre crop" if p.resize is None else "")
        scale = f"pixels 0 to {p.pixel_max:g}"
        if any(p.mean):
            scale += f", minus {_joined(p.mean)}"
        if any(v != 1 for v in p.std):
            scale += f", divided by {_joined(p.std)}"
        low, high = (np.atleast_1d(b) for b in self.bounds)
        return f"images as {kind}, {size}; {scale}: from {low.min():.4g} to {high.max():.4g}; axes {self.layout}"

    def prepare(self, pixels: Array, levels: float) -> Array:
        """Return pixels (height, width) or (height, width, 3), 0 to ``levels``, as the network takes them."""
        p = self.preparation
        x = pixels * (p.pixel_max / levels)
        x = x.reshape(self.height, self.width, self.channels)
        if p.bgr:
            x = x[:, :, ::-1]
        x = (x - np.asarray(p.mean)) / np.asarray(p.std)
        if self.layout == "NCHW":
            x = channels_moved_first(x)
        return x if len(self.layout) == 4 else (x[:, :, 0] if self.layout == "NHW" else x.ravel())


def image_item(path: Path, plan: ImagePlan) -> Item:
    """Return one image as the network takes it.

    Rotated by its EXIF orientation; of several frames the first; transparent pixels over the background.

    Raises
    ------
    ImportError
        If pillow is not installed.
    ValueError, OSError
        If it can't be read.
    """
    pil = _pillow()
    from PIL import ImageOps

    try:
        with pil.open(path) as file:
            frames = getattr(file, "n_frames", 1)
            image = ImageOps.exif_transpose(file)
            image.load()
            image, levels = _plain(image, plan.channels, plan.preparation.background)
    except OSError as error:
        if error.strerror:  # the system's reason: no permission, a folder
            raise
        raise ValueError(_reason(error)) from None
    except ValueError:
        raise
    except Exception as error:  # pillow's readers raise SyntaxError, struct.error and others on broken files
        raise ValueError(_reason(error)) from None
    image = _fit(image, plan)
    pixels = np.asarray(image, dtype=np.float64)
    if levels != 255 and plan.channels == 3:  # 16 bits a pixel are grey
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    shown = np.clip(np.rint(pixels * (255 / levels)), 0, 255).astype(np.uint8)
    note = f"the first of {frames} frames" if frames > 1 else ""
    return Item({plan.name: as_network_takes_it(plan.prepare(pixels, levels), plan.dtype, "it")}, shown, note=note)


def _plain(image: Image, channels: int, background: str) -> tuple[Image, float]:
    """Return the image in grey (L, or F for 16 bits) or RGB, and the value of white."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            refuse("it has 32 bits a pixel, of which white is unknown: scale it yourself and save it as .npy")
        return _pillow().fromarray(values.astype(np.float32)), 65535.0
    if image.mode == "F":
        refuse("its pixels are floating-point numbers, of which white is unknown: save it as .npy, scaled")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = _pillow().new("RGBA", image.size, background)
        image = _pillow().alpha_composite(ground, image)
    target = "L" if channels == 1 else "RGB"
    return (image if image.mode == target else image.convert("RGB").convert(target)), 255.0


def _fit(image: Image, plan: ImagePlan) -> Image:
    """Return the image in the network's size: shorter side, then centre crop, or stretched."""
    p, (h, w) = plan.preparation, (plan.height, plan.width)
    method = getattr(_pillow().Resampling, p.interpolation.upper())
    W, H = image.size
    if p.stretch:
        return image.resize((w, h), method)
    if H <= W:
        short = p.resize or max(h, math.ceil(w * H / W))
        size = max(w, int(short * W / H)), short
    else:
        short = p.resize or max(w, math.ceil(h * W / H))
        size = short, max(h, int(short * H / W))
    if size[0] < w or size[1] < h:
        raise OptionError(Option("resize", p.resize), f" makes it {size[1]}x{size[0]}, less than the network's {h}x{w}")
    left, top = round((size[0] - w) / 2), round((size[1] - h) / 2)
    if size[0] * size[1] > _MOST_LARGER * max(w * h, W * H):  # a line of pixels: only what is kept is enlarged
        across, down = W / size[0], H / size[1]
        return image.resize((w, h), method, (left * across, top * down, (left + w) * across, (top + h) * down))
    if size != image.size:
        image = image.resize(size, method)
    return image.crop((left, top, left + w, top + h))


def _layout(shape: tuple[int, ...], channels_last: bool) -> str:
    if len(shape) in (1, 2):
        return "N" if len(shape) == 1 else "NHW"
    if len(shape) == 3:
        if channels_last or (shape[-1] in (1, 3) and shape[0] not in (1, 3)):
            return "NHWC"
        return "NCHW"
    refuse(f"the network's input is {shape} without the batch: an image does not fit, give arrays, .npy")


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot identify" in text:
        return "it is no image that pillow can read"
    return f"it can't be read as an image: {text or type(error).__name__}"


def image_suffixes() -> frozenset[str]:
    """Return the endings of images, those of pillow; none without it."""
    try:
        pil = _pillow()
    except ImportError:
        return frozenset({".png", ".jpg", ".jpeg"})
    pil.init()
    readable = frozenset(pil.OPEN)
    # pillow lists .pdf and .h5 beside the images, for writing or for plugins that are not there
    return frozenset(suffix for suffix, kind in pil.EXTENSION.items() if kind in readable) - {".h5", ".hdf", ".mpg"}


def require_colour(name: str) -> None:
    """Raise ValueError if pillow knows no such colour."""
    _pillow()
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise OptionError(Option("background", name), ": it is no colour; say white, or #ff8800") from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("images are read with pillow: pip install pillow") from None
    return Image


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
