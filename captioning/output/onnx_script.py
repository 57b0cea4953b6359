"""Caption images with numpy, Pillow and ONNX Runtime alone: python caption.py IMAGE ...

`captioning.export` puts this file beside caption.onnx, config.json, image_files.py and
tokenizer.py; it also shows how to do it in another language.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from image_files import load_image, resize_image
from tokenizer import detokenize

FOLDER = Path(__file__).parent
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
SESSION = onnxruntime.InferenceSession(FOLDER / "caption.onnx", providers=["CPUExecutionProvider"])


def pixels(path: str | Path) -> np.ndarray:
    """Return an image as the graph takes it: RGB, uint8 `[height width 3]`, or ValueError."""
    sizes = (CONFIG["encoder"][key] for key in ("image_size", "resize", "interpolation"))
    return np.asarray(resize_image(load_image(path), *sizes))


def captions(paths: Sequence[str | Path]) -> list[str]:
    """Return one caption per image; all images are in memory at once."""
    batch = np.stack([pixels(path) for path in paths])
    (tokens,) = SESSION.run(["tokens"], {"pixels": batch})
    words = [[CONFIG["vocabulary"][token] for token in row if token > 2] for row in tokens]
    return [detokenize(row) for row in words]  # 0, 1, 2 are <pad>, <bos>, <eos>


def main(paths: Sequence[str]) -> int:
    """Print the caption of each image, or why there is none; return the exit code."""
    code = 0
    for path in paths:
        try:
            print(f"{path}\t{captions([path])[0]}", flush=True)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    for name in {"SIGINT", "SIGPIPE"} & {*dir(signal)}:  # Ctrl-C, … | head: end as others do
        signal.signal(signal.Signals[name], signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):  # names of files hold letters of any kind
        stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]) if {*sys.argv[1:]} - {"-h", "--help"} else __doc__)
