"""A picture file of any kind -> upright pixels in RGB."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from experiments.config import UserError
from experiments.config.wording import counted

# The formats that are opened; others start programs (EPS), need a library of their own, or hold no picture (HDF5, MPEG).
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM"),
    *("ICO", "PCX", "PSD", "QOI", "SGI", "TGA"),
)
HEIF_ENDINGS = {".heic", ".heif", ".hif"}
HEIF_ADVICE = "pictures in HEIC open after: pip install -e '.[heif]'"
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # about metadata, which is read from every format
CENTRE = 0.875  # the part of the shorter side that fit=crop keeps: 224 of 256 pixels, as in the recipes of ImageNet
NAMED = 20  # problems in a message; more are counted


def decoder(fit: str = "squash") -> str:
    """What decodes, with its version: another version may decode other pixels from the same file."""
    heif = _heif_version()
    names = {"pillow-heif": heif} if heif else {}
    if fit != "squash":  # see `photographs`
        names |= {name: version(name) for name in ("torch", "torchvision")}
    return ", ".join([f"Pillow {PIL.__version__}", *(f"{name} {number}" for name, number in names.items())])


def is_picture(file: str) -> bool:
    """Whether the extension of the file is one of the formats that are opened."""
    return os.path.splitext(file)[1].lower() in _endings()  # noqa: PTH122 - for a million files


@functools.cache
def _endings() -> frozenset[str]:
    formats = _formats()  # before the endings are listed: it adds those of HEIC
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this installation of Pillow opens."""
    Image.init()
    _heif_version()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def _heif_version() -> str:
    """The version of pillow-heif, which then opens HEIC; empty if it is not installed."""
    try:
        import pillow_heif  # an extra
    except ImportError:
        return ""
    pillow_heif.register_heif_opener()
    return str(pillow_heif.__version__)


def refuse(problems: Sequence[str]) -> None:
    """Raise a `UserError` that lists the problems with pictures, if there are any."""
    if problems:
        raise UserError(list_problems(counted(len(problems), "picture"), problems))


def list_problems(what: str, problems: Sequence[str]) -> str:
    """A message that lists the first problems and counts the others."""
    more = [f"and {len(problems) - NAMED:,} more"] if len(problems) > NAMED else []
    return "\n  ".join([f"{what} cannot be read:", *problems[:NAMED], *more])


def open_picture(source: Path | IO[bytes]) -> Image.Image:
    """The picture in a file of any of the formats: upright, RGB, 8 bits, transparent parts over white.

    Raises:
        UserError: if the file is not a picture, is broken, or is too large to decode safely.
    """
    name = source if isinstance(source, Path) else getattr(source, "name", "picture")
    try:
        return _decoded(source)
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except PermissionError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except UnidentifiedImageError:
        advice = f"; {HEIF_ADVICE}" if Path(str(name)).suffix.lower() in HEIF_ENDINGS and not _heif_version() else ""
        empty = isinstance(source, Path) and not source.stat().st_size
        reason = "is empty" if empty else f"not a picture in a format that is read{advice}"
        raise UserError(f"{name}: {reason}") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:  # for broken files, Pillow's readers raise nearly anything
        raise UserError(f"{name}: the picture is broken ({error})") from None


def _decoded(source: Path | IO[bytes]) -> Image.Image:
    """The picture; of a PNG file that Pillow refuses, without its metadata if only these are wrong."""
    with source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source) as file:
        try:
            with Image.open(file, formats=_formats()) as image:
                return to_rgb(image)
        except Exception as error:
            if (
                isinstance(error, Image.DecompressionBombError)
                or not file.seekable()
                or file.seek(0)
                or file.read(8) != PNG
            ):
                raise
            with contextlib.suppress(Exception):  # the first error says more
                pixels = io.BytesIO(PNG + b"".join(_essential_chunks(file)))
                with Image.open(pixels, formats=("PNG",)) as image:
                    return to_rgb(image)
            raise


PNG = b"\x89PNG\r\n\x1a\n"  # how these files begin


def _essential_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The chunks of a PNG file that decide its pixels: all but those that the format calls ancillary, and transparency."""
    while len(head := file.read(8)) == 8:
        rest = file.read(int.from_bytes(head[:4]) + 4)  # with a checksum
        if head[4:5].isupper() or head[4:] == b"tRNS":
            yield head + rest


def resize(picture: Image.Image, image_size: int) -> np.ndarray:
    """The pixels of an RGB picture, stretched to a square without cropping, uint8 (3, image_size, image_size)."""
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened picture made upright, RGB, 8 bits, with transparent parts over white.

    Greys of more than 8 bits are scaled to 8 bits. The first frame of an animation is used.

    Raises:
        ValueError: a value is not finite.
    """
    image.load()  # raises an error if the file is truncated
    white = _white(image)  # a turned picture does not know its file
    image = _upright(image)
    if white is not None:
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has values that are not finite: NaN or infinity")
        return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    turn = turn_of(image)
    return image if turn is None else image.transpose(turn)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a picture must be turned, as its EXIF data says; data that cannot be read says nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # for broken data, Pillow raises nearly anything
        return None


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _white(image: Image.Image) -> float | None:
    """The value of white in a grey picture of more than 8 bits: what the file says, else what its values suggest."""
    if image.mode.startswith("I;16"):
        bits, largest = _tag(image, 258), _tag(image, 281)  # BitsPerSample and MaxSampleValue of a TIFF file
        return 2.0 ** (largest.bit_length() if 255 < largest < 65535 else bits or 16) - 1
    if image.mode not in ("I", "F"):
        return None
    if image.format == "PPM" and image.mode == "I":  # Pillow scales it from the largest value that the file states
        return 65535.0
    most = np.asarray(image).max(initial=0)
    if image.mode == "F":  # values may exceed their range a little, as after resizing
        return 1.0 if most <= 2 else 255.0 if most <= 2 * 255 else 65535.0
    return 65535.0 if most > 255 else 255.0


def _tag(image: Image.Image, number: int) -> int:
    """The value of a tag of a TIFF file; 0 if it has none, or is of another format."""
    value = getattr(image, "tag_v2", {}).get(number, 0)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else 0
