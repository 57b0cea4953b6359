"""Images from strangers: each kind that is read, drawn here, then damaged."""

import io
import struct
import zlib

import pytest
from mutations import mutated
from PIL import Image
from profiles import grey_inks, linear_grey, prophoto

from captioning.data.image_files import load_image
from captioning.features.images import Preprocess
from captioning.web.demo_answers import open_image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PREPROCESS = Preprocess(32, None, [0.5] * 3, [0.5] * 3, "bilinear")
LARGE = 20_000  # bytes; images above are damaged rarely, as they take long


def draw(kind, mode="RGB", **options):
    image = Image.effect_mandelbrot((40, 28), (-2, -1, 1, 1), 20).convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_seeds():
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("P", (40, 28), number) for number in range(3)]
    animated = {"save_all": True, "append_images": frames}
    yield draw("JPEG", exif=exif)
    yield draw("JPEG", exif=exif).replace(b"MM\0*", b"M?\0*")
    yield draw("JPEG", icc_profile=prophoto())
    yield draw("JPEG", "CMYK", icc_profile=grey_inks())
    yield draw("PNG", "LA", icc_profile=linear_grey())
    yield draw("JPEG", "L", progressive=True)
    yield draw("GIF", "P", **animated)
    yield draw("WEBP", save_all=True, append_images=[frame.convert("RGB") for frame in frames])
    yield draw("WEBP", "RGBA", lossless=True)
    yield from (draw("TIFF", compression=name) for name in ("tiff_lzw", "jpeg"))
    yield from (draw("PNG", mode) for mode in ("RGB", "RGBA", "LA", "P", "1", "I;16"))
    yield from (draw("TIFF", mode) for mode in ("RGB", "CMYK", "F", "1"))
    yield from (draw("JPEG", "CMYK"), draw("GIF", "P"), draw("ICO", "RGBA"))
    yield from map(draw, ("WEBP", "BMP", "AVIF", "PPM", "TGA", "PCX", "JPEG2000", "EPS"))
    yield from (b"", b"GIF89a", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")  # within the limit, large once it is RGB
    yield file.getvalue()
    small = draw("PNG", "1")
    bomb = small[12:16] + struct.pack(">II", 30000, 30000) + small[24:29]
    yield small[:12] + bomb + struct.pack(">I", zlib.crc32(bomb)) + small[33:]


@pytest.mark.parametrize("reader", [load_image, open_image], ids=["load_image", "page"])
def test_images_of_every_kind(tmp_path, fuzz, reader):
    path = tmp_path / "holiday.jpg"

    def read(data):
        path.write_bytes(data)
        image = reader(str(path))
        assert image.mode == "RGB"
        assert PREPROCESS(image).shape == (3, 32, 32)

    seeds = list(make_seeds())
    small = [seed for seed in seeds if len(seed) < LARGE]

    def change(seed, _, rng):
        is_allowed = len(seed) < LARGE or not rng.randrange(50)
        return mutated(seed if is_allowed else small[0], small, rng)

    fuzz(f"images by {reader.__name__}", seeds, read, 600, change, megabytes=1500)
