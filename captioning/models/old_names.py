"""Names of the decoders' weights in checkpoints of format version 1."""

import re
from collections.abc import Mapping
from typing import Any

from captioning.features.weights import weights_sha256
from captioning.models.decoder import Decoder

RENAMED = {
    "norm": "region_proj.norm",  # attention, updown, transformer
    "regions.1": "region_proj.linear",
    "query": "query_proj",  # attention, updown
    "first": "init_state_proj",  # attention
    "gate": "context_gate",
    "said": "hidden_proj",
    "seen": "context_proj",
    "heard": "attention_lstm_input",  # updown
    "asking": "attention_lstm_hidden",
    "saying": "language_lstm",
    "key": "key_proj",
    "score": "score_proj",
    "last": "final_norm",  # transformer
    "image": "image_proj",  # lstm, merge
    "narrow": "output_proj",  # lstm
    "merged": "fusion",  # merge
}
RENAMED_IN_BLOCK = {  # of the transformer
    "word": "qkv",
    "told": "self_attn_out",
    "query": "cross_query",
    "seen": "cross_attn_out",
    "think": "mlp",
}


def from_version_1(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights by today's names."""
    return {_rename(key, RENAMED, RENAMED_IN_BLOCK): value for key, value in state_dict.items()}


def decoder_sha256(decoder: Decoder) -> str:
    """Hash a decoder's weights by the names of version 1: results from then name the same model."""
    names, in_block = (
        {new: old for old, new in table.items()} for table in (RENAMED, RENAMED_IN_BLOCK)
    )
    weights = decoder.state_dict()
    return weights_sha256({_rename(key, names, in_block): weights[key] for key in weights})


def _rename(key: str, names: Mapping[str, str], in_block: Mapping[str, str]) -> str:
    prefix, name = re.fullmatch(r"((?:decoder\.)?(?:layers\.\d+\.)?)(.*)", key, re.DOTALL).groups()
    for before, after in (in_block if "layers" in prefix else names).items():
        if name.startswith(f"{before}."):
            return f"{prefix}{after}{name.removeprefix(before)}"
    return key
