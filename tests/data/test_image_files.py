"""Read images of every kind: sound, odd and damaged."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin
from profiles import grey_inks, linear_grey, prophoto

from captioning import UserError
from captioning.data import image_files
from captioning.data.image_files import load_image, upright_rgb


def stripes(size=(48, 32), left="red", right="blue"):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left is up
    return exif


def test_the_orientation_in_the_exif_is_obeyed(tmp_path):
    stripes().save(tmp_path / "turned.png", exif=turned())
    image = load_image(tmp_path / "turned.png")
    assert image.size == (32, 48)
    assert image.getpixel((16, 4)) == (255, 0, 0)
    assert image.getpixel((16, 44)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("RGBA", "png", {}),
        ("LA", "png", {}),
        ("PA", "tiff", {}),
        ("P", "png", {"transparency": 0}),
        ("RGBA", "webp", {"lossless": True}),
    ],
)
def test_transparent_pixels_become_white(tmp_path, mode, suffix, options):
    path = tmp_path / f"clear.{suffix}"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode).save(path, **options)
    assert load_image(path).getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("1", 0, "png", (0, 0, 0)),
        ("L", 0, "png", (0, 0, 0)),
        ("I;16", 32768, "png", (127, 127, 127)),  # scaled, not clipped
        ("P", 0, "gif", (0, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "jpg", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (16, 16), colour).save(path)
    image = load_image(path)
    assert image.mode == "RGB"
    assert np.abs(np.array(image.getpixel((8, 8))) - expected).max() < 15


def test_heic_is_read_upright_whatever_it_is_called_or_names_its_extra(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    heic = pillow_heif.from_pillow(stripes((96, 64)))
    heic.save(tmp_path / "phone.heic", quality=95, exif=turned().tobytes())
    (tmp_path / "phone.heic").rename(tmp_path / "phone.jpg")
    image = load_image(tmp_path / "phone.jpg")
    assert image.size == (64, 96)
    assert image.getpixel((32, 10))[0] > 200
    assert image.getpixel((32, 86))[2] > 200
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_files._register_heic.cache_clear()
    with pytest.raises(UserError, match=r"it is HEIC, .*pip install pillow-heif"):
        load_image(tmp_path / "phone.jpg")
    image_files._register_heic.cache_clear()


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path):
    stripes((2600, 1300)).save(tmp_path / "photo.jpg")
    assert load_image(tmp_path / "photo.jpg").size == (1300, 650)


def half_of_a_jpeg(path):
    stripes((300, 300)).save(path, "JPEG")
    os.truncate(path, path.stat().st_size // 2)


def postscript(path):
    stripes().save(path, "EPS")


def whole_numbers(path):
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "of no format that is known"),
        (b"GIF89a", ""),
        (b"not an image at all", "of no format that is known"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ""),
        (half_of_a_jpeg, "truncated"),
        (postscript, "EPS is not read here; save it as PNG"),
        (whole_numbers, "numbers of unknown range"),
        (lambda path: None, "No such file"),
        (os.mkdir, "Is a directory"),
        (os.mkfifo, "no file, but a pipe"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, reason):
    path = tmp_path / "broken.jpg"
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken\.jpg cannot be read as an image: .*{reason}"):
        load_image(path)


def test_an_address_is_not_fetched():
    with pytest.raises(UserError, match="nothing is fetched from the network"):
        load_image("https://example.org/a.jpg")


@pytest.mark.parametrize("limit", [500, 1000])  # where Pillow raises, and where it only warns
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    stripes().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"bomb\.png cannot be read as an image: .*; shrink it$"):
        load_image(tmp_path / "bomb.png")


def save_png(path, before=b"", after=b""):
    """Write noise as a PNG with chunks before and after the pixels; return the pixels."""
    image = Image.effect_noise((30, 20), 90)
    file = io.BytesIO()
    image.save(file, "PNG")
    plain = file.getvalue()  # a signature of 8 bytes, IHDR of 25, IDAT, IEND of 12
    path.write_bytes(plain[:33] + before + plain[33:-12] + after + plain[-12:])
    return image.convert("RGB")


def chunk(kind, content, crc=None):
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


LARGE = zlib.compress(bytes(3 * PngImagePlugin.MAX_TEXT_CHUNK))
METADATA = {
    "profile": chunk(b"iCCP", b"icc\0\0" + LARGE),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "many texts": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 70,
    "checksum of a text": chunk(b"tEXt", b"Comment\0hello", crc=7),
    "checksum of a time": chunk(b"tIME", b"\7\xea\1\1\0\0\0", crc=7),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_is_sound_whatever_its_metadata(tmp_path, name, place):
    pixels = save_png(tmp_path / "a.png", **{place: METADATA[name]})
    assert load_image(tmp_path / "a.png") == pixels


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("exif", [b"garbage", b"M?\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_is_ignored(tmp_path, suffix, exif):
    stripes().save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + exif)
    assert load_image(tmp_path / f"a.{suffix}").size == (48, 32)


def test_metadata_that_is_too_large_hides_neither_damage_nor_bomb(tmp_path):
    path = tmp_path / "a.png"
    save_png(path, METADATA["zTXt"])
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-200])
    with pytest.raises(UserError, match=r"a\.png .*truncated"):
        load_image(path)
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(UserError, match="pixels"):
        load_image(path)


def colour_of(path, mode, colour, profile):
    Image.new(mode, (16, 16), colour).save(path, icc_profile=profile)
    return np.array(load_image(path).getpixel((8, 8)))


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "profile", "expected"),
    [
        ("RGB", (179, 70, 27), "png", prophoto, (255, 0, 0)),
        ("RGB", (179, 70, 27), "jpg", prophoto, (255, 0, 0)),
        ("RGB", (179, 70, 27), "tif", prophoto, (255, 0, 0)),
        ("RGBA", (179, 70, 27, 255), "png", prophoto, (255, 0, 0)),
        ("RGBA", (179, 70, 27, 0), "png", prophoto, (255, 255, 255)),
        ("L", 55, "png", linear_grey, (128, 128, 128)),
        ("LA", (55, 255), "png", linear_grey, (128, 128, 128)),
        ("I;16", 55 * 257, "png", linear_grey, (128, 128, 128)),
        ("CMYK", (255, 0, 0, 0), "jpg", grey_inks, (119, 119, 119)),
        ("CMYK", (0, 0, 0, 0), "tif", grey_inks, (255, 255, 255)),
    ],
)
def test_a_colour_profile_is_followed(tmp_path, mode, colour, suffix, profile, expected):
    path = tmp_path / f"a.{suffix}"
    assert np.abs(colour_of(path, mode, colour, profile()) - expected).max() < 6
    with Image.open(path) as image:  # as the page passes it
        assert upright_rgb(image) == load_image(path)


@pytest.mark.parametrize(
    ("mode", "colour", "profile"),
    [
        ("RGB", (179, 70, 27), b"no profile"),
        ("RGB", (179, 70, 27), prophoto()[:200]),
        ("RGB", (179, 70, 27), prophoto() + bytes(5 << 20)),
        ("RGB", (179, 70, 27), linear_grey()),
        ("L", 55, prophoto()),
        ("RGB", (179, 70, 27), grey_inks()),
    ],
    ids=["none", "cut", "huge", "grey of colours", "colours of grey", "inks of light"],
)
def test_a_profile_that_makes_no_sense_is_not_followed(tmp_path, mode, colour, profile):
    path = tmp_path / "a.tif"
    assert (colour_of(path, mode, colour, profile) == colour).all()


def test_a_profile_of_srgb_changes_no_pixel(tmp_path):
    pixels = Image.effect_noise((64, 64), 90).convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    pixels.save(tmp_path / "a.png", icc_profile=srgb.tobytes())
    assert load_image(tmp_path / "a.png") == pixels
