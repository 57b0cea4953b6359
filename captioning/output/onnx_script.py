"""Caption images with numpy, Pillow and ONNX Runtime alone: python caption.py IMAGE ...

`captioning.export` puts this file beside caption.onnx, config.json, pixels.py (which reads images)
and tokenizer.py; it also shows how to do it in another language.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from pixels import read_image, resize_image
from tokenizer import detokenize

FOLDER = Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
SESSION = onnxruntime.InferenceSession(FOLDER / "caption.onnx", providers=["CPUExecutionProvider"])


def pixels(path: str | Path) -> np.ndarray:
    """Return an image as the graph takes it: upright, RGB, uint8 `[height width 3]`.

    Raises ValueError if it cannot be read.
    """
    sizes = (CONFIG["encoder"][key] for key in ("image_size", "resize", "interpolation"))
    return np.asarray(resize_image(read_image(path), *sizes))


def captions(paths: Sequence[str | Path]) -> list[str]:
    """Return one caption per image; all images are in memory at once."""
    batch = np.stack([pixels(path) for path in paths])
    (tokens,) = SESSION.run(["tokens"], {"pixels": batch})
    words = [[CONFIG["vocabulary"][token] for token in row if token > 2] for row in tokens]
    return [detokenize(row) for row in words]  # 0, 1, 2 are <pad>, <bos>, <eos>


def main(paths: Sequence[str]) -> int:
    """Print the caption of each image, or why there is none; return the exit code."""
    if not paths or {"-h", "--help"} & set(paths):
        print("python caption.py IMAGE ...: print each image's name, a tab and its caption")
        return 0 if paths else 2
    code = 0
    for path in paths:
        try:
            print(f"{path}\t{captions([path])[0]}", flush=True)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    for name in ("SIGINT", "SIGPIPE"):  # Ctrl-C, … | head: end as other commands do
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):  # names of files hold letters of any kind
        stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
