"""Export a captioner as a folder: `python -m captioning.export PATH format=onnx`."""

import sys
from dataclasses import dataclass

from captioning.config.cli import command, option


@dataclass
class ExportOptions:
    """Write a folder that holds all it takes to caption images, with a model card.

    In safetensors, encoder weights of the package index (encoder.weights=package) are only named.

    python -m captioning.export outputs/runs/lstm/TIME/best.ckpt format=onnx
    python -m captioning.export outputs/runs/lstm/TIME/best.ckpt format=safetensors out=captioner
    """

    ckpt: str = option(
        "best.ckpt or last.ckpt of a run; latest: best.ckpt of the newest", bare=True
    )
    format: str = option(
        "onnx: greedy search from pixels to words, and caption.py, which runs it with numpy, "
        "Pillow and onnxruntime alone; safetensors: for Captioner.from_pretrained(FOLDER)",
        choices=("onnx", "safetensors"),
    )
    out: str = option("the folder; unless typed, PATH without .ckpt, and the format", "")
    dtype: str = option(
        "of the weights in safetensors: float32, or int8, a quarter of the size",
        "float32",
        choices=("float32", "int8"),
    )
    scores: str = option("scores.json of captioning.evaluate, for the model card", "")
    weights: str = option("the encoder's weights, if not where they were in training", "")


@command(ExportOptions)
def main(options: ExportOptions) -> None:
    """Write the folder, and list what is in it."""
    from captioning.output.export_folder import export_captioner

    folder = export_captioner(**vars(options))
    print(f"{folder}:")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:40} {path.stat().st_size / 1e6:8.2f} MB")
    print("read README.md before you pass it on")


if __name__ == "__main__":
    sys.exit(main())
