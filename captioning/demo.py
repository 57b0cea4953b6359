"""Caption pictures on a page in the browser: `python -m captioning.demo ckpt=PATH`.

Checkpoints enter; a page that only this machine reaches stays up until Ctrl-C. page/ has the page.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioning.captioner import Captioner

USAGE = """usage: python -m captioning.demo ckpt=PATH [key=value ...]

  ckpt=PATH             best.ckpt or last.ckpt of a run, a pattern such as 'runs/*/best.ckpt',
                        or several, side by side: 'ckpt=[A,B]'
  samples=FOLDER        pictures to pick from, instead of drawn scenes; as for images= of caption
  data=FOLDER           training pictures and captions, which choose the best captions
                        (rerank=neighbours); as for data.root= in training
  port=7860             where the page is, on 127.0.0.1
  weights=FILE          the encoder's weights, if not where they were in training
  device=cpu            or cuda
"""
DEFAULTS = {"samples": None, "data": None, "port": "7860", "weights": None, "device": "cpu"}
SAMPLES = 15


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    from captioning import UserError

    try:
        return demo(**_options(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def demo(
    ckpt: str,
    samples: str | None,
    data: str | None,
    port: str,
    weights: str | None,
    device: str,
) -> int:
    """Load the checkpoints, serve the page, wait for Ctrl-C; what visitors brought is deleted."""
    import os
    import signal
    import tempfile

    from captioning import UserError

    paths = _checkpoints(ckpt)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"port={port}: it is a number from 1 to 65535")
    with tempfile.TemporaryDirectory(prefix="captioning-demo-") as folder:
        # Before gradio is imported, which reads them then: nothing calls home.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "GRADIO_TEMP_DIR": folder,
        }
        try:
            from captioning.web.demo_page import build_page, launch_options
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError("the page needs Gradio: pip install 'captioning[demo]'") from None
        captioners = _captioners(paths, data, weights, device)
        page = build_page(captioners, _samples(samples, folder), neighbours=bool(data))
        try:
            page.launch(server_port=int(port), **launch_options())
        except OSError:
            raise UserError(f"port={port} is taken; type port={int(port) + 1}") from None
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_is_ours)
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            print(f"http://127.0.0.1:{port} is the page; Ctrl-C ends it", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            page.server.force_exit = log.disabled = True  # an open tab would keep it up for ever
            page.close(verbose=False)
    return 0


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether an error is more than a visitor who went away."""
    kind = (record.exc_info or (None,))[0]
    return kind is None or kind.__name__ != "ClientDisconnect"


def _options(arguments: list[str]) -> dict[str, str | None]:
    from captioning.config.cli import key_values

    return key_values(arguments, "demo", ("ckpt",), DEFAULTS)


def _checkpoints(ckpt: str) -> list[str]:
    """Return the files that ckpt= names: in Hydra's grammar, as captioning.evaluate reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from captioning import UserError
    from captioning.config.cli import quoted
    from captioning.evaluation.loaded_models import find_checkpoints

    try:
        named = OverridesParser.create().parse_override(quoted(f"ckpt={ckpt}")).value()
    except HydraException:
        named = None
    if not isinstance(named, str | list) or not all(isinstance(one, str) for one in named):
        raise UserError(
            f"ckpt={ckpt}: there is no such file; several are named \"ckpt=['A','B']\", in quotes"
        )
    return find_checkpoints(named)


def _captioners(
    paths: list[str], data: str | None, weights: str | None, device: str
) -> dict[str, Captioner]:
    """Return a captioner a checkpoint, by a short name."""
    import torch

    from captioning import UserError
    from captioning.captioner import Captioner, read_checkpoint
    from captioning.evaluation.loaded_models import labels
    from captioning.search.beam import beam_search

    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise UserError(f"device={device}: it is cpu, or cuda where torch finds a GPU")
    names = [read_checkpoint(path)["captioning"]["config"]["name"] for path in paths]
    captioners = {
        label: Captioner.from_checkpoint(path, encoder_weights=weights, device=device)
        for label, path in zip(labels(paths, names), paths, strict=True)
    }
    for one in captioners.values() if data else ():
        one.search = partial(beam_search, width=50)
        one.fit_rerank(data)
    return captioners


def _samples(samples: str | None, folder: str) -> list[str]:
    """Return the first pictures of a folder, or draw some scenes."""
    from captioning.data.image_list import find_pictures, summarize_left_out
    from captioning.data.scenes import Scenes

    if not samples:
        drawn = Scenes(folder, images=10)
        drawn.prepare()
        return sorted(map(str, drawn.folder.glob("*.jpg")))
    found, left_out = find_pictures(samples, key="samples")
    if line := summarize_left_out(left_out):
        print(line, file=sys.stderr)
    return [str(Path(path).absolute()) for path in found[:SAMPLES]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
