"""BERT similarity, with a real BERT from a package, and by hand."""

import pytest
import torch
from torch.nn.functional import normalize

from captioning import UserError
from captioning.metrics.bert_similarity import Scale, TextEncoder, pool_tokens
from captioning.metrics.semantic import WeightedText, best_cosine, mean_cosine


def test_vectors_are_those_of_the_reference_implementation(text_encoder):
    """sentence-transformers, the model's own library, with the same files."""
    from sentence_transformers import SentenceTransformer

    texts = ["a dog", "two children in red coats play with a ball on the beach", "snow"]
    reference = SentenceTransformer(text_encoder.model.name_or_path, device="cpu")
    expected = torch.from_numpy(reference.encode(texts))
    vectors = pool_tokens(text_encoder.tokens(texts))
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(text_encoder):
    (alone,) = text_encoder.tokens(["a dog"])
    padded, _ = text_encoder.tokens(["a dog", "a " * 40])
    torch.testing.assert_close(alone.vectors, padded.vectors, atol=1e-5, rtol=1e-4)


def test_a_text_that_occurs_twice_is_embedded_once(text_encoder, monkeypatch):
    batches = []
    forward = text_encoder.model.forward

    def count_texts(*args, **inputs):
        batches.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(text_encoder.model, "forward", count_texts)
    first, other, again = text_encoder.tokens(["a dog", "snow", "a dog"])
    assert batches == [2]
    assert again is first
    assert not torch.equal(first.ids, other.ids)


def weigh(vectors):
    return [WeightedText(vector[None], torch.ones(1), vector, vector) for vector in vectors]


def test_mean_and_best_are_over_the_images_own_references():
    references = [weigh(torch.eye(2)), weigh(torch.tensor([[0.6, 0.8]]))]
    captions = weigh(torch.eye(2)), references
    torch.testing.assert_close(mean_cosine(*captions), torch.tensor([0.5, 0.8]))
    torch.testing.assert_close(best_cosine(*captions), torch.tensor([1.0, 0.8]))


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (7, 0.0)], ids=["human", "random"])
def test_a_human_caption_scores_1_and_a_random_images_caption_0(shift, expected):
    generator = torch.Generator().manual_seed(0)
    topics, noise = (torch.randn(50, count, 16, generator=generator) for count in (1, 5))
    references = normalize(topics + 0.7 * noise, dim=-1)
    captions = weigh(references.roll(shift, 0)[:, 0]), [weigh(image[1:]) for image in references]
    scores = {
        "bert_similarity": float(mean_cosine(*captions).mean()),
        "bert_similarity_best": float(best_cosine(*captions).mean()),
    }
    rescaled = Scale.of(list(references)).rescale(scores)
    assert rescaled == {f"{key}_rescaled": pytest.approx(expected, abs=0.1) for key in scores}


def test_one_reference_an_image_has_no_scale():
    assert Scale.of([torch.eye(3)[:1], torch.eye(3)[1:2]]) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", r"^\. holds no text encoder"),
        ("nobody/nothing", r"captioning\.download nobody/nothing.*minilm"),
        ("package:no_such_package/model", "make setup"),
    ],
)
def test_a_path_without_a_text_encoder_says_what_to_type(monkeypatch, tmp_path, path, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=message):
        TextEncoder(path)
