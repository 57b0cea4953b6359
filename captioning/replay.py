"""Replay a loss that was no number: `python -m captioning.replay outputs/runs/…/not-finite.pt`.

The file that such a run leaves enters; the loss of its batch and where it comes from are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run the verb; the exit code is 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.replay",
        description="Look at the batch of a loss that was no number.",
    )
    parser.add_argument("file", metavar="FILE", help="not-finite.pt of a run's folder")
    arguments = parser.parse_args(argv)
    from captioning import UserError

    try:
        print(replay(Path(arguments.file)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def replay(path: Path) -> str:
    """Return what happened, and what a batch and the weights say of it now."""
    import torch

    from captioning import UserError
    from captioning.captioner import load_decoder, read_checkpoint
    from captioning.features.batches import Batch
    from captioning.training.module import CaptioningModule

    saved = read_checkpoint(path)
    if "batch" not in saved:
        raise UserError(f"{path} holds no batch; a run whose loss is no number leaves one")
    batch = Batch(**saved["batch"])
    told = [f"epoch {saved['epoch']}, step {saved['step']}: loss {saved['loss']}"]
    parts = [("features", batch.features), *saved["state_dict"].items()]
    wrong = [name for name, part in parts if not torch.isfinite(part).all()]
    told.append(f"not finite: {', '.join(wrong) or 'neither features nor weights'}")
    decoder = load_decoder(path, saved, batch.features.shape[-1])
    with torch.no_grad():
        loss = CaptioningModule(decoder, saved["captioning"])._loss(batch)
    told.append(f"loss of this batch on a CPU, in float32, without dropout: {loss.item()}")
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(main())
