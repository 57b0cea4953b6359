"""Read an image file of any kind as an upright 8-bit sRGB image, and resize it for an encoder.

Training, captioning, the demo page and `verify` all use `load_image`, so that they cannot differ.
`captioning.export` puts this file beside an ONNX graph: it takes no more than numpy and Pillow.
"""

from __future__ import annotations

import functools
import io
import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from captioning import UserError

# Handed to programs outside (EPS to Ghostscript), only identified, or measurements of any range.
UNREAD_FORMATS = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
DRAFT_SIDE = 640  # pixels; no classifier of torchvision reads more than 600
PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PROFILE = 4 << 20  # bytes; those of printing presses have up to 3 million
MAX_ASPECT_RATIO = 8


def load_image(path: str | Path) -> Image.Image:
    """Read an image: upright, RGB, in the colours of sRGB, on white where it was transparent.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, to `DRAFT_SIDE` or more, which takes a
    fraction of the time. Raises UserError if the file is missing, damaged, no image, or larger
    than Pillow's limit against decompression bombs.
    """
    try:
        if not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
            raise ValueError("it is no file, but a pipe or device")
        with open(path, "rb") as file:
            try:
                return _decode(file)
            except Exception:
                if pixels := _strip_png_metadata(file):
                    return _decode(pixels)
                raise
    except Exception as error:  # Pillow's readers of formats have no common class of errors
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = reason.replace(", could be decompression bomb DOS attack.", "; shrink it")
        if isinstance(error, UnidentifiedImageError):
            reason = "it is of no format that is known here"
        if "://" in str(path):
            reason = "nothing is fetched from the network; download it"
        raise UserError(f"{path} cannot be read as an image: {reason}") from error


def resize_image(
    image: Image.Image, image_size: int, resize: int | None, interpolation: str
) -> Image.Image:
    """Return an image of `image_size` x `image_size` pixels, the whole of it or its centre.

    Without `resize` its aspect ratio is not kept; else its shorter side is resized to that and the
    centre is cropped.
    """
    method = Image.Resampling[interpolation.upper()]
    if resize is None:
        return image.resize((image_size, image_size), method)
    # A narrower image, resized by its shorter side, could fill the memory.
    shorter = min(image.size)
    left, top = (max(0, side - MAX_ASPECT_RATIO * shorter) // 2 for side in image.size)
    image = image.crop((left, top, image.width - left, image.height - top))
    image = image.resize([int(resize * side / shorter) for side in image.size], method)
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))


def _decode(file: io.BufferedIOBase) -> Image.Image:
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis") and not _register_heic():
        raise ValueError("it is HEIC, which takes a package: pip install pillow-heif")
    with Image.open(file) as image:
        if image.format in UNREAD_FORMATS:
            raise ValueError(f"{image.format} is not read here; save it as PNG")
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"{image.width} x {image.height} pixels are too many; shrink it")
        image.draft(None, (DRAFT_SIDE, DRAFT_SIDE))
        return upright_rgb(image)


@functools.cache
def _register_heic() -> bool:
    """Register Pillow's reader of HEIC; return whether its package is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _strip_png_metadata(file: io.BufferedIOBase) -> io.BufferedIOBase | None:
    """Return a PNG with nothing but what its pixels need, or None for another format.

    Pillow refuses texts and profiles above a limit, and any chunk with a wrong checksum.
    """
    file.seek(0)
    if file.read(len(PNG)) != PNG:
        return None
    content, chunks, start = file.read(), [PNG], 0
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4])
        kind = content[start + 4 : start + 8]
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            chunks.append(content[start:end])
        start = end
    return io.BytesIO(b"".join(chunks))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return a copy, turned as its EXIF orientation says, in 8-bit sRGB on white."""
    profile, is_grey = image.info.get("icc_profile"), Image.getmodebase(image.mode) == "L"
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("its pixels are numbers of unknown range; save it as PNG")
    image.load()
    with suppress(Exception):  # which a broken EXIF raises, though the pixels are sound
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if profile and (transform := _srgb_transform(profile, mode)):
        image = transform.apply(image.convert(mode))
    image = image.convert("RGB")
    image.info.clear()  # its EXIF was followed; Pillow reads a broken one once, but not twice
    return image


@functools.lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from an ICC profile to sRGB for pixels of `mode`: L, RGB or CMYK.

    None where the profile is sRGB to within 2 of 255, or is broken, huge, or of another mode.
    """
    if len(profile) > LARGEST_PROFILE:
        return None
    try:
        source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    colours = (np.indices((18, 18, 18)).reshape(3, 1, -1).T * 15).astype(np.uint8)
    before = Image.fromarray(colours).convert(mode)
    change = np.asarray(transform.apply(before), int) - np.asarray(before.convert("RGB"), int)
    return transform if np.abs(change).max() > 2 else None
