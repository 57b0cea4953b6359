"""Start from the weights of another captioner, whose vocabulary may be another: `init=`."""

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from captioning import UserError
from captioning.checkpoint import decoder_weights, read_model, shapes
from captioning.config.compose import CONF, differences
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.models.decoder import Decoder

log = logging.getLogger(__name__)


def read_init(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the captioner that a run starts from, as `read_model` does.

    Raises UserError, too, if its encoder has another name than the run's, whose weights may not
    even be on this machine.
    """
    init = config["init"]
    try:
        captioner = read_model(init)
        Vocabulary(captioner["captioning"]["vocabulary"])
    except UserError as error:
        raise UserError(f"init={init}: {error}") from None
    if captioner["captioning"]["encoder"]["name"] != config["encoder"].get("name"):
        _check_settings(captioner, config, ["encoder", "model"])
    return captioner


def check_fits(
    captioner: Mapping[str, Any],
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    decoder: Decoder,
) -> None:
    """Raise UserError if a captioner is of another encoder or model than a run.

    `decoder` is the run's, with a vocabulary of the captioner's size. Dropout may differ.
    """
    contents, init = captioner["captioning"], config["init"]
    same_encoder = contents["encoder"] == identity
    _check_settings(captioner, config, ["encoder"] * (not same_encoder) + ["model"])
    if not same_encoder or shapes(decoder_weights(captioner)) != shapes(decoder.state_dict()):
        changed = differences(contents["encoder"], identity, "encoder.")
        raise UserError(
            f"init={init} is a captioner of another encoder or model "
            f"({'; '.join(changed) or 'its weights have other sizes'}); name one that was trained "
            "with this run's"
        )


def _check_settings(
    captioner: Mapping[str, Any], config: Mapping[str, Any], groups: list[str]
) -> None:
    """Raise UserError with what to type if a run's settings of these groups are others."""
    missing = [
        override(group, key, value)
        for group in groups
        for key, value in captioner["captioning"]["config"][group].items()
        if key != "dropout" and config[group].get(key) != value
    ]
    if missing:
        init = config["init"]
        hint = "experiment=finetune, or " if init == "default" else ""
        raise UserError(
            f"init={init} is a captioner of another encoder or model; type {hint}"
            f"{' '.join(missing)}"
        )


def override(group: str, key: str, value: Any) -> str:
    """Return what to type for a key of a stored config: `encoder=NAME` where conf/ has that."""
    choice = str(value).removeprefix("captioning.models.").partition(".")[0]
    if key in ("name", "_target_") and (CONF / group / f"{choice}.yaml").is_file():
        return f"{group}={choice}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return shlex.quote(f"{group}.{key}={text}")


@torch.no_grad()
def init_weights(decoder: Decoder, vocabulary: Vocabulary, captioner: Mapping[str, Any]) -> int:
    """Give a decoder a captioner's weights; of words, those that both vocabularies know.

    Rows of embeddings and of `output` go by word, not by place; new words keep the decoder's own.
    Returns how many words came, without the special ones.
    """
    known = Vocabulary(captioner["captioning"]["vocabulary"]).ids
    pairs = [(row, row) for row in range(len(SPECIALS))]
    pairs += [(row, known[word]) for word, row in vocabulary.ids.items() if word in known]
    rows, known_rows = torch.tensor(pairs).unbind(1)
    by_word = {
        f"{name}.{key}"
        for name, module in decoder.named_modules()
        if name == "output"
        or (isinstance(module, nn.Embedding) and module.num_embeddings == len(vocabulary))
        for key in module.state_dict()
    }
    weights = decoder_weights(captioner)
    for name, own in decoder.state_dict().items():
        if name in by_word:
            own[rows] = weights[name][known_rows].to(own.dtype)
        else:
            own.copy_(weights[name])
    return len(pairs) - len(SPECIALS)


def log_known_words(init: str, known: int, vocabulary: Vocabulary) -> None:
    """Log how many of a vocabulary's words the captioner knew; warn where it is none."""
    level = logging.INFO if known else logging.WARNING
    words = len(vocabulary) - len(SPECIALS)
    message = "init=%s knows %d of the vocabulary's %d words, special tokens not counted"
    log.log(level, message, init, known, words)
