"""Pictures from strangers: each kind that is read, drawn here, then damaged."""

import io
import struct
import zlib

import pytest
from mutations import mutated
from PIL import Image
from profiles import grey_inks, linear_grey, prophoto

from captioning.data.image_files import load_image
from captioning.features.images import Preprocess
from captioning.web.thumbnails import open_picture

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SEES = Preprocess(32, None, [0.5] * 3, [0.5] * 3, "bilinear")


def drawn(kind, mode="RGB", size=(40, 28), **options):
    picture = Image.effect_mandelbrot(size, (-2, -1, 1, 1), 20).convert("RGB").convert(mode)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def seeds():
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("P", (40, 28), number) for number in range(3)]
    yield from (
        drawn("JPEG", exif=exif),
        drawn("JPEG", "CMYK"),
        drawn("JPEG", "L", progressive=True),
    )
    yield drawn("JPEG", exif=exif).replace(b"MM\0*", b"M?\0*")
    yield drawn("JPEG", icc_profile=prophoto())
    yield drawn("JPEG", "CMYK", icc_profile=grey_inks())
    yield drawn("PNG", "LA", icc_profile=linear_grey())
    yield from (drawn("PNG", mode) for mode in ("RGB", "RGBA", "LA", "P", "1", "I;16"))
    yield from (drawn("GIF", "P"), drawn("GIF", "P", save_all=True, append_images=frames))
    yield from (drawn("TIFF", mode) for mode in ("RGB", "CMYK", "F", "1"))
    yield from (drawn("TIFF", compression="tiff_lzw"), drawn("TIFF", compression="jpeg"))
    yield from (
        drawn("WEBP"),
        drawn("WEBP", "RGBA", lossless=True),
        drawn("BMP"),
        drawn("ICO", "RGBA"),
    )
    yield drawn("WEBP", save_all=True, append_images=[one.convert("RGB") for one in frames])
    yield from (
        drawn("AVIF"),
        drawn("PPM"),
        drawn("TGA"),
        drawn("PCX"),
        drawn("JPEG2000"),
        drawn("EPS"),
    )
    yield from (b"", b"GIF89a", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")  # within the limit, large once it is RGB
    yield file.getvalue()
    small = drawn("PNG", "1")
    header = small[12:16] + struct.pack(">II", 30000, 30000) + small[24:29]
    bomb = header + struct.pack(">I", zlib.crc32(header))
    yield small[:12] + bomb + small[33:]


@pytest.mark.parametrize("reader", [load_image, open_picture], ids=["load_image", "page"])
def test_pictures_of_every_kind(tmp_path, fuzz, reader):
    path = tmp_path / "holiday.jpg"

    def read(data):
        path.write_bytes(data)
        image = reader(str(path))
        assert image.mode == "RGB"
        assert SEES(image).shape == (3, 32, 32)

    found = list(seeds())
    small = [one for one in found if len(one) < 20_000]

    def change(seed, others, lots):
        return mutated(
            seed if len(seed) < 20_000 or not lots.randrange(50) else small[0], small, lots
        )

    fuzz(f"pictures by {reader.__name__}", found, read, 600, change, megabytes=1500)
