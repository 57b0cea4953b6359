"""The captioner in the package: its files, its card, and what it says of photographs."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from verbs import run

from captioning.captioner import Captioner
from captioning.checkpoint import PRETRAINED, describe_model, read_model
from captioning.data.image_files import load_image
from captioning.data.photographs import PHOTOGRAPHS, find_photographs
from captioning.data.scenes import Scenes
from captioning.metrics.score_table import format_score

CARD = (PRETRAINED / "README.md").read_text(encoding="utf-8")
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "pretrained.json"
CAPTIONS = {
    "camera.png": "a man is taking a picture of a video camera",
    "astronaut.png": "a man in a red and white uniform is holding a ball in his hand",
    "china.jpg": "a group of people are standing in front of a colorful building",
    "chelsea.png": "a man in a blue shirt is looking at the camera with his mouth open",
    "grace_hopper.jpg": "a man in a black and white suit is wearing a black and white outfit",
}


@pytest.fixture(scope="module")
def captioner():
    return Captioner.default()


def test_it_is_8_mb_or_less():
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) <= 8e6


def test_the_card_is_of_these_weights():
    weights = (PRETRAINED / "model.safetensors").read_bytes()
    assert f"SHA-256 of model.safetensors: `{hashlib.sha256(weights).hexdigest()}`" in CARD


def test_the_card_has_the_scores_that_were_measured_of_it(captioner):
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    identity = describe_model(read_model("default"), captioner.decoder)
    (label,) = [
        system["label"]
        for system in results["systems"]
        if identity.items() <= system["checkpoints"][0].items()
    ]
    (row,) = [row for row in results["rows"] if row["system"] == label and not row["held_out"]]
    assert (results["split"], results["pictures"]) == ("val", 1000)
    assert results["search"]["width"] == 5
    for key, value in row["scores"].items():
        assert f"| {key} | {format_score(key, value)}" in CARD


def test_no_folder_of_the_machine_that_made_it_is_in_it():
    assert "=/" not in CARD
    assert '"/' not in (PRETRAINED / "config.json").read_text(encoding="utf-8")


def test_photographs_have_the_captions_that_they_had(captioner):
    paths = find_photographs()
    assert len(paths) == len(PHOTOGRAPHS)
    captions = captioner.captions(paths)
    assert dict(zip([Path(path).name for path in paths], captions, strict=True)) == CAPTIONS


@pytest.mark.slow
def test_the_command_captions_with_it_unless_another_is_typed(tmp_path):
    options = ["photographs", "out=outputs/photographs.png", "overwrite=true"]  # `make demo`
    done = run(tmp_path, *options, module="captioning.caption")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "photographs.png").stat().st_size > 10_000
    lines = [line.split("\t") for line in done.stdout.splitlines()[:-1]]
    assert {Path(path).name: caption for path, caption in lines} == CAPTIONS


@pytest.mark.slow
def test_what_is_no_image_is_a_sentence():
    code = (
        "import numpy; from captioning.captioner import Captioner as C; C.default()(numpy.eye(8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError: an image is a path or a PIL image, not ndarray" in done.stderr


def test_it_is_unsure_of_what_it_was_not_made_for(captioner, tmp_path):
    """Half of its captions of Flickr8k's dev images have more than 0.16, the mean is 0.2."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    images = [Image.new("RGB", (500, 375), (level, level, level)) for level in (0, 128, 255)]
    images.append(Image.fromarray(noise))
    scenes = Scenes(str(tmp_path), images=10)
    scenes.prepare()
    images += [load_image(record.path) for record in scenes.records()]
    batch = torch.stack([captioner.encoder.preprocess(image) for image in images])
    confidences = [scores["confidence"] for _, scores in captioner.scored_captions_of(batch)]
    assert max(confidences[:4]) < 0.06
    assert max(confidences) < 0.18


def test_a_wrong_caption_is_less_sure_than_its_own(captioner):
    for path in find_photographs():
        features = captioner.features(path)
        own = captioner.alternatives(features)[0][0]
        right, wrong = captioner.confidence(features, [own, "two dogs are running in the snow"])
        assert right > 3 * wrong
