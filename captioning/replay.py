"""Replay a batch whose loss was not finite: `python -m captioning.replay FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from captioning import UserError
from captioning.config.cli import command, option


@dataclass
class ReplayOptions:
    """Compute again the loss that was not finite, and say which features or weights are not.

    python -m captioning.replay outputs/runs/lstm/TIME/not-finite.pt
    """

    file: str = option("not-finite.pt of a run's folder; latest: of the newest", bare=True)


@command(ReplayOptions)
def main(options: ReplayOptions) -> None:
    """Print the loss of the batch, then and now."""
    print(replay(Path(options.file)))


def replay(path: Path) -> str:
    """Return the recorded loss, what is not finite, and the loss of the batch on a CPU."""
    import torch

    from captioning.checkpoint import load_decoder, read_checkpoint
    from captioning.features.batches import Batch
    from captioning.training.module import CaptioningModule

    saved = read_checkpoint(path)
    if "batch" not in saved:
        raise UserError(f"{path} holds no batch; a run whose loss is not finite leaves one")
    batch = Batch(**saved["batch"])
    tensors = [("features", batch.features), *saved["state_dict"].items()]
    wrong = [name for name, tensor in tensors if not torch.isfinite(tensor).all()]
    decoder = load_decoder(path, saved, batch.features.shape[-1])
    with torch.no_grad():
        loss = CaptioningModule(decoder, saved["captioning"])._loss(batch)
    return (
        f"epoch {saved['epoch']}, step {saved['step']}: loss {saved['loss']}\n"
        f"not finite: {', '.join(wrong) or 'neither features nor weights'}\n"
        f"loss of this batch on a CPU, in float32, without dropout: {loss.item()}"
    )


if __name__ == "__main__":
    sys.exit(main())
