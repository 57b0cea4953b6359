"""Caption images with nothing but numpy, Pillow and ONNX Runtime: python caption.py IMAGE ...

`captioning.export` puts this file beside caption.onnx, config.json and tokenizer.py; it also shows
how to do it in another language.
"""

import io
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageCms, ImageOps
from tokenizer import detokenize

FOLDER = Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
SESSION = onnxruntime.InferenceSession(FOLDER / "caption.onnx", providers=["CPUExecutionProvider"])


def pixels(path: str | Path) -> np.ndarray:
    """Return an image as the graph takes it: upright, RGB, uint8 `[height width 3]`."""
    encoder = CONFIG["encoder"]
    size, resize = encoder["image_size"], encoder["resize"]
    image = Image.open(path)
    image.draft(None, (640, 640))
    profile = image.info.get("icc_profile")
    image.load()
    with suppress(Exception):  # which a broken EXIF raises, though the pixels are sound
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):  # it is broken, or of another mode
            source, srgb = io.BytesIO(profile), ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    image = image.convert("RGB")
    method = Image.Resampling[encoder["interpolation"].upper()]
    if resize is None:  # the whole image, its aspect ratio not kept
        return np.asarray(image.resize((size, size), method))
    shorter = min(image.size)
    spare = [max(0, side - 8 * shorter) // 2 for side in image.size]  # or memory fills up
    image = image.crop((*spare, image.width - spare[0], image.height - spare[1]))
    image = image.resize([int(resize * side / shorter) for side in image.size], method)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def captions(paths: Sequence[str | Path]) -> list[str]:
    """Return one caption per image; all images are in memory at once."""
    batch = np.stack([pixels(path) for path in paths])
    (tokens,) = SESSION.run(["tokens"], {"pixels": batch})
    words = [[CONFIG["vocabulary"][token] for token in row if token > 2] for row in tokens]
    return [detokenize(row) for row in words]  # 0, 1, 2 are <pad>, <bos>, <eos>


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}\t{captions([name])[0]}")
