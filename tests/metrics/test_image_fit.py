"""image_fit, reference_fit and fit: models of a few made-up images, with a real BERT."""

from copy import copy

import pytest
import torch
from stores import TinyStore
from torch.nn.functional import normalize

from captioning import UserError
from captioning.data.records import Record
from captioning.metrics.common_words import CommonWords, average_by_image
from captioning.metrics.image_fit import (
    RIDGE,
    TEMPERATURE,
    FitModel,
    FitText,
    ImageFit,
    joint_fit,
    plda,
    reference_fit,
    within_whitening,
)
from captioning.search.rerank import KernelRidge, root_pool

KINDS = [
    ("a dog runs on the grass", "a brown dog is running", "the dog runs over a field"),
    ("a man climbs a rock", "a climber on a steep cliff", "the man is climbing a cliff"),
    ("a girl swims in a pool", "a child in the water", "the girl swims under water"),
]
RECORDS = [Record(str(at), "", KINDS[at % 3], "train") for at in range(12)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    torch.manual_seed(0)
    images = torch.eye(3).repeat(4, 2) * 4 + torch.rand(12, 6)
    store = TinyStore(images)
    store.folder = tmp_path_factory.mktemp("features") / "store"
    return store


@pytest.fixture(scope="module")
def model(store, text_encoder):
    return ImageFit(text_encoder).fit(RECORDS, store)


def test_a_caption_fits_the_images_that_such_captions_are_of(model, store):
    texts = ["the dog is running", "a man on a cliff", "a girl in the water"]
    fits = torch.stack(model.image_fit(store.features[:3], [texts] * 3))
    assert fits.argmax(1).tolist() == [0, 1, 2]
    assert (fits.abs() <= 1 + 1e-6).all()


def test_what_is_expected_of_an_image_is_kernel_ridge_regression(model, store):
    texts = [text for record in RECORDS for text in record.captions]
    targets = average_by_image(
        torch.stack([text.for_image for text in model.read(texts)]) * 2**0.5, [3] * 12
    )
    ridge = KernelRidge(root_pool(store.features), TEMPERATURE, RIDGE)
    others = torch.rand(5, 6)
    weights = ridge.kernel_weights(root_pool(others))
    expected = normalize(weights @ (targets - targets.mean(0)) + targets.mean(0))
    torch.testing.assert_close(model.expect(others), expected, atol=5e-3, rtol=0)  # float16


def test_regions_are_averaged(model):
    grid = torch.rand(2, 9, 6)
    torch.testing.assert_close(model.expect(grid), model.expect(grid.mean(1)))


def test_reference_fit_is_half_the_mean_and_half_the_best_cosine():
    torch.manual_seed(0)
    vectors = normalize(torch.randn(4, 5))
    hypothesis, *references = (FitText(vector, vector) for vector in vectors)
    cosines = vectors[1:] @ vectors[0]
    expected = float(cosines.mean() + cosines.max()) / 2
    assert reference_fit([hypothesis], [references]).tolist() == pytest.approx([expected])
    images = normalize(torch.randn(1, 5))
    both = (2 * expected + float(images[0] @ vectors[0])) / 3
    assert joint_fit([hypothesis], [references], images).tolist() == pytest.approx([both])


def test_a_caption_like_the_references_scores_higher(model):
    references = [model.read(KINDS[0])] * 2
    scores = reference_fit(model.read(["a dog is running", "a girl swims"]), references)
    assert scores[0] > scores[1] + 0.3


def test_a_model_is_kept_beside_the_features(model, store, text_encoder, monkeypatch):
    monkeypatch.setattr(FitModel, "fit", lambda *_: pytest.fail("it was fitted again"))
    again = ImageFit(text_encoder).fit(RECORDS, store)
    torch.testing.assert_close(again.expect(store.features), model.expect(store.features))
    (path,) = store.folder.parent.glob("fit-*.safetensors")
    assert path.stat().st_mode & 0o044 == 0o044


def test_another_text_encoder_has_another_model(model, store, text_encoder, tmp_path):
    shorter = copy(text_encoder)
    shorter.max_length = 4
    same_features = TinyStore(store.features)
    same_features.folder = tmp_path / "store"
    images = store.features[:1], [["a brown dog that runs"]]
    first = ImageFit(text_encoder).fit(RECORDS, same_features)
    assert torch.allclose(first.image_fit(*images)[0], model.image_fit(*images)[0])
    other = ImageFit(shorter).fit(RECORDS, same_features)
    assert not torch.allclose(other.image_fit(*images)[0], model.image_fit(*images)[0])


@pytest.mark.parametrize("content", [b"", b"no safetensors", "sentence_map", "features"])
def test_a_damaged_file_is_made_again(content, model, store, text_encoder, caplog):
    (path,) = store.folder.parent.glob("fit-*.safetensors")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        damaged = copy(model)
        damaged.tensors = model.tensors | {content: model.tensors[content][:-1]}
        damaged.save(path)
    again = ImageFit(text_encoder).fit(RECORDS, store)
    torch.testing.assert_close(again.expect(store.features), model.expect(store.features))
    assert "is damaged and is made again" in caplog.text


SINGLE = [record._replace(captions=("a dog",)) for record in RECORDS]


@pytest.mark.parametrize("records", [[], RECORDS[:1], SINGLE, [*SINGLE, RECORDS[0]]])
def test_without_several_captions_of_an_image_there_is_nothing_to_fit(records, text_encoder):
    store = TinyStore(torch.rand(12, 6))
    with pytest.raises(UserError, match="need two training images or more, and better hundreds"):
        FitModel.fit(records, store, text_encoder)


def test_whitening_makes_captions_of_an_image_vary_alike_in_all_directions():
    torch.manual_seed(0)
    images, noise = torch.randn(200, 1, 3), torch.randn(200, 5, 3) * torch.tensor([10.0, 1, 0.1])
    vectors = (images + noise).flatten(0, 1)
    whitening = within_whitening(vectors, [5] * 200)
    # With a ridge of the mean variance, 101 / 3, the first is brought to 3/4 of a variance of 1.
    variances = ((noise - noise.mean(1, keepdim=True)) @ whitening).flatten(0, 1).var(0) * 5 / 4
    assert variances.tolist() == pytest.approx([100 / 133.7, 1 / 34.7, 0], abs=0.05)


def test_what_differs_within_an_image_counts_less_than_what_tells_images_apart():
    torch.manual_seed(0)
    images = torch.randn(300, 1, 2) * torch.tensor([3.0, 0.1])
    vectors = (images + torch.randn(300, 5, 2)).flatten(0, 1)
    scale = plda(vectors - vectors.mean(0), [5] * 300)
    lengths = (torch.eye(2) @ scale).norm(dim=1)
    assert lengths[0] > 3 * lengths[1]


def test_common_words_are_those_of_several_images():
    words = CommonWords.of([("a dog runs", "a dog"), ("the dog sits",), ("a cat",)])
    assert words.words == ["a", "dog"]
    assert words.frequency.tolist() == [0.75, 0.75]
    vectors = words.vectors(["a dog", "dog dog", "zebras", ""])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert vectors[0].tolist() == pytest.approx([0.5**0.5] * 2)
    assert vectors[1, 1] > 0 > vectors[1, 0]
    assert torch.equal(vectors[2], vectors[3])


def test_captions_without_a_common_word_are_no_error(text_encoder, tmp_path):
    captions = [("one", "uno"), ("two", "dos"), ("three", "tres")]
    records = [Record(str(at), "", texts, "train") for at, texts in enumerate(captions)]
    model = FitModel.fit(records, TinyStore(torch.rand(3, 6)), text_encoder)
    assert torch.isfinite(torch.cat(model.image_fit(torch.rand(2, 6), [["one"], ["four"]]))).all()
