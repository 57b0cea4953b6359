"""The verbs, as a user runs them: training, then captions from its checkpoint."""

import csv
import json
import re
import shutil
import subprocess

import pytest
import torch
from composing import composed
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import read_write
from PIL import Image
from verbs import TINY, run

from captioning import UserError
from captioning.captioner import Captioner
from captioning.checkpoint import read_checkpoint, read_pretrained
from captioning.config.compose import resolve_config
from captioning.config.hydra_arguments import hydra_arguments
from captioning.config.trust import check_folder
from captioning.training.fit import build_resume_command
from captioning.training.folder_lock import ClaimFolder, claim_folder, lock_folder
from captioning.training.run import train

pytestmark = pytest.mark.slow


def test_a_run_prints_scores_captions_and_where_everything_is(trained):
    done, _ = trained
    for message in ("bert_similarity", "cider", "val-red.png", "best.ckpt", "gallery.html"):
        assert message in done.stdout


def test_a_run_is_quiet_about_what_a_user_cannot_change(trained):
    for noise in ("Warning", "many workers", "smaller than the logging interval"):
        assert noise not in trained[0].stderr


def test_a_run_folder_holds_all_of_the_run(trained):
    _, run_folder = trained
    files = ".hydra best.ckpt last.ckpt metrics.csv curves.png gallery.html captions.csv run.json"
    assert {path.name for path in run_folder.iterdir()} >= {*files.split(), "train.log"}
    summary = json.loads((run_folder / "run.json").read_text())
    assert summary["status"] == "finished"
    assert summary["best_checkpoint"] == "best.ckpt"


def test_last_is_the_last_epoch(trained):
    assert read_checkpoint(trained[1] / "last.ckpt")["epoch"] == 1


def test_a_checkpoint_holds_plain_types_and_no_encoder(trained):
    checkpoint = torch.load(trained[1] / "best.ckpt", weights_only=True)
    assert all(key.startswith("decoder.") for key in checkpoint["state_dict"])
    assert checkpoint["captioning"]["vocabulary"][:4] == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert checkpoint["captioning"]["config"]["model"]["hidden_dim"] == 16


def test_a_checkpoint_alone_captions_a_picture(trained, folder):
    captioner = Captioner.from_checkpoint(trained[1] / "best.ckpt")
    caption = captioner(folder / "data" / "val-red.png")
    assert isinstance(caption, str)
    assert caption
    with_opened = captioner.captions([Image.open(folder / "data" / "val-red.png")])
    assert with_opened == [caption]


def test_the_validation_captions_are_the_captioners(trained, folder):
    captioner = Captioner.from_checkpoint(trained[1] / "best.ckpt")
    with open(trained[1] / "captions.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert captioner(folder / row["path"]) == row["caption"]


def test_a_run_goes_on_from_its_last_checkpoint(trained, folder):
    """With the checkpoint's config, of which nothing is typed again."""
    options = ["trainer.max_epochs=3", "ckpt_path=run/last.ckpt", "hydra.run.dir=resumed"]
    done = run(folder, *options)
    assert done.returncode == 0, done.stderr
    assert "goes on with other settings: trainer.max_epochs: 2 → 3\n" in done.stderr + done.stdout
    first, last = (
        read_checkpoint(folder / name / "last.ckpt")["captioning"]["config"]
        for name in ("run", "resumed")
    )
    assert last["model"] == first["model"]
    summary = json.loads((folder / "resumed" / "run.json").read_text())
    assert summary["epochs"] == 3
    with open(folder / "resumed" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/cider"]]
    scores = {int(row["epoch"]): float(row["val/cider"]) for row in rows}
    assert sorted(scores) == [0, 1, 2]
    best = read_checkpoint(folder / "resumed" / "best.ckpt")["epoch"]
    assert best == summary["best_epoch"] == max(scores, key=scores.get)
    assert scores[best] == summary["best_score"] == summary["metrics"]["val/cider"]
    assert f"  cider                          {100 * scores[best]:6.1f}" in done.stdout


def test_a_run_starts_from_a_captioners_weights_and_goes_on_without_it(trained, folder):
    """On data with a word more; the captioner is gone before the run goes on, and is elsewhere."""
    shutil.copytree(folder / "data", folder / "more")
    with open(folder / "more" / "captions.csv", "a", newline="") as file:
        csv.writer(file).writerow(["train-red.png", "a crimson square", "train"])
    shutil.copy(trained[1] / "best.ckpt", folder / "start.ckpt")
    options = [*TINY, "data.root=more", "init=start.ckpt", "hydra.run.dir=started"]
    options += ["training.learning_rate=1e-12", "ckpt_path=last"]
    done = run(folder, *options, "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert (
        "init=start.ckpt knows 8 of the vocabulary's 9 words, special" in done.stderr + done.stdout
    )
    start, started = (
        read_checkpoint(folder / name) for name in ("start.ckpt", "started/best.ckpt")
    )
    words = [each["captioning"]["vocabulary"] for each in (start, started)]
    rows = [words[1].index(word) for word in words[0]]
    for key, weights in start["state_dict"].items():
        now = started["state_dict"][key]
        now = now if now.shape == weights.shape else now[rows]
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(now, weights, atol=1e-6, rtol=0)
    (folder / "start.ckpt").unlink()
    done = run(folder, *options, "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    last = read_checkpoint(folder / "started" / "last.ckpt")
    assert (last["epoch"], last["captioning"]["config"]["init"]) == (1, "start.ckpt")
    assert Captioner.from_checkpoint(folder / "started/best.ckpt")(folder / "data/val-red.png")


def test_a_second_run_in_a_folder_is_refused_before_it_writes_there(trained, folder):
    before = {path: path.read_bytes() for path in trained[1].rglob("*") if path.is_file()}
    options = ["data.root=data", "trainer.max_epochs=1", "model.hidden_dim=8"]
    done = run(folder, *TINY, *options, "hydra.run.dir=run")
    assert done.returncode == 1
    assert done.stderr.startswith("error: run holds last.ckpt of another run; type ckpt_path=last")
    assert {path: path.read_bytes() for path in trained[1].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "metrics.csv"])
def test_a_folder_that_holds_a_run_takes_no_other(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"holds {name} of another run"):
        claim_folder(tmp_path, None)
    with claim_folder(tmp_path, "last"), claim_folder(tmp_path, str(tmp_path / "last.ckpt")):
        pass
    if name == "last.ckpt":
        with pytest.raises(UserError, match=r"holds last\.ckpt of another run"):
            claim_folder(tmp_path, "elsewhere/last.ckpt")


def test_a_folder_where_another_process_trains_is_refused(tmp_path, monkeypatch):
    with FileLock(tmp_path / "lock"):
        with pytest.raises(UserError, match="another process trains in"):
            claim_folder(tmp_path, "last")
        monkeypatch.setenv("LOCAL_RANK", "1")  # of the run that holds it
        with claim_folder(tmp_path, "last"):
            pass


def test_neighbours_may_choose_the_captions_of_validation(folder):
    options = ["data.root=data", "trainer=debug", "rerank=neighbours", "hydra.run.dir=neighbours"]
    done = run(folder, *TINY, *options)
    assert done.returncode == 0, done.stderr
    assert "cider" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer.gpus=64", "text_encoder=bert_base"], "type trainer.gpus="),
        (["data.root=nowhere"], "python -m captioning.download flickr8k"),
        (["monitor=val/cidre"], "did you mean val/cider?"),
        (["encoder.weights=imagenet_v1"], "python -m captioning.download resnet18"),
        (["text_encoder.path=nobody/nothing"], "text_encoder=minilm"),
        (["ckpt_path=nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (["init=run"], "init=run: run is the folder of a run: type run/best.ckpt"),
        (["init=run/best.ckpt", "model.hidden_dim=32"], "or model; type model.hidden_dim=16"),
        (["init=run/best.ckpt", "encoder.image_size=64"], "; type encoder.image_size=32"),
        (["ckpt_path=run/last.ckpt", "trainer.max_epochs=2"], "type trainer.max_epochs=4"),
        (
            ["ckpt_path=run/last.ckpt", "trainer.max_epochs=3", "encoder.image_size=64"],
            "trained with other settings (encoder.image_size: 32 → 64)",
        ),
        *(
            (["ckpt_path=run/last.ckpt", "trainer.max_epochs=3", typed], message)
            for typed, message in {
                "model.hidden_dim=32": "trained with other settings (model.hidden_dim: 16 → 32)",
                "model.inject=pre": "trained with other settings (model.inject: init → pre)",
                "model=merge": "trained with other settings (model._target_: captioning.models.lst",
                "model=attention": "settings (model._target_: captioning.models.lst",
                "model=transformer": "settings (model._target_: captioning.models.lst",
                "model=updown": "settings (model._target_: captioning.models.lst",
                "data.split_seed=1": "trained with other settings (data.split_seed: 0 → 1)",
                "datamodule.min_count=3": "min_count: 1 → 3; vocabulary: 12 → 8 words, not in",
                "data.root=nowhere": "type data.root=FOLDER",
                "trainer.max_steps=2": "already trained for 2 steps; type trainer.max_steps=4",
            }.items()
        ),
        (["+trainer.max_epoch=3"], "max_epochs"),
        (["datamodule.min_count=99"], "datamodule.min_count"),
        (["logger=wandb"], "captioning[offline,tensorboard,wandb]"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_what_is_wrong_is_said_before_training(folder, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=re.escape(message)):
        train(resolve_config(composed(*TINY, "data.root=data", f"run_dir={tmp_path}", *options)))
    assert not list(tmp_path.glob("*.ckpt"))


def test_an_error_is_a_sentence_and_exit_code_1(folder):
    done = run(folder, *TINY, "data.root=data", "hydra.run.dir=failed", "trainer.gpus=64")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "type trainer.gpus=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "failed").exists()


@pytest.mark.parametrize(
    ("files", "is_there"),
    [
        ([".hydra/config.yaml", "train.log", "lock"], False),
        ([], False),
        ([".hydra/config.yaml", "train.log", "run.json"], True),
        (["other.log"], True),
    ],
)
def test_only_a_new_folder_without_work_in_it_is_removed(tmp_path, monkeypatch, files, is_there):
    monkeypatch.chdir(tmp_path)
    registered = []
    monkeypatch.setattr("atexit.register", lambda *call: registered.append(call))
    composed(f"hydra.run.dir={tmp_path}")
    ClaimFolder().on_run_start(HydraConfig.instance().cfg)
    assert not registered  # a folder that was there before stays
    composed("hydra.run.dir=runs/new", "hydra.job.name=train")
    with monkeypatch.context() as second:
        second.setenv("RANK", "1")
        ClaimFolder().on_run_start(HydraConfig.instance().cfg)
    assert not registered  # by another process of the run
    ClaimFolder().on_run_start(HydraConfig.instance().cfg)
    for file in files:
        (tmp_path / "runs/new" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "runs/new" / file).touch()
    ((function, *arguments),) = registered
    function(*arguments)
    assert (tmp_path / "runs/new").exists() == (tmp_path / "runs").exists() == is_there


def test_an_evaluation_may_write_beside_a_runs_files(tmp_path):
    (tmp_path / "last.ckpt").touch()
    composed("ckpt=x", f"hydra.run.dir={tmp_path}", config="evaluate")
    with lock_folder(tmp_path):  # as a training that goes on
        ClaimFolder().on_run_start(HydraConfig.instance().cfg)


@pytest.mark.parametrize("name", ["it's (1)", "Köln, {a}=照片", "#~ $HOME", r"C:\data", '"a" [b]'])
def test_printed_commands_are_typed_in_a_shell(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "best.ckpt").touch()
    cfg = composed(*hydra_arguments(["data=folder", f"data.root={name}"], "config"))
    with read_write(HydraConfig.instance().cfg.hydra.runtime):
        HydraConfig.get().runtime.output_dir = f"/runs/{name}"
    words = in_bash(build_resume_command())
    assert words[:3] == ["python", "-m", "captioning.train"]
    again = composed(*hydra_arguments(words[3:], "config"))
    assert (again.data.root, again.ckpt_path, HydraConfig.get().run.dir) == (
        cfg.data.root,
        "last",
        f"/runs/{name}",
    )
    for function in (read_checkpoint, read_pretrained):
        assert in_bash(advice(function, name)) == [f"{name}/best.ckpt"]
    assert in_bash(advice(check_folder, "run_dir", f"/{name}")) == [f"run_dir=/{name}"]


@pytest.mark.parametrize(("files", "path"), [([], "a/last.ckpt"), (["last.ckpt"], "last")])
def test_a_run_without_a_checkpoint_yet_goes_on_from_the_one_before(tmp_path, files, path):
    composed("ckpt_path=a/last.ckpt")
    with read_write(HydraConfig.instance().cfg.hydra.runtime):
        HydraConfig.get().runtime.output_dir = str(tmp_path)
    for file in files:
        (tmp_path / file).touch()
    assert f"ckpt_path={path}" in build_resume_command().split()


def advice(function, *arguments):
    """Return what the error of a function says to type."""
    with pytest.raises(UserError) as raised:
        function(*arguments)
    return re.split("type |Flickr8k: ", str(raised.value))[-1].partition(", or start")[0]


def in_bash(command):
    """Return the words that bash reads of a command."""
    printed = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {command}"], text=True)
    return printed.split("\0")[:-1]


def test_a_truncated_image_is_named_and_can_be_left_out(folder):
    source = folder / "data"
    data = folder / "truncated"
    data.mkdir()
    for path in source.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    (data / "train-red.png").write_bytes((source / "train-red.png").read_bytes()[:40])
    options = [*TINY, "trainer=debug", "data.root=truncated", "hydra.run.dir=truncated-run"]
    done = run(folder, *options)
    assert done.returncode == 1
    assert "train-red.png cannot be read" in done.stderr
    assert "data.skip_unreadable=true" in done.stderr
    done = run(folder, *options, "data.skip_unreadable=true")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.inject=last"], "by init, pre or par"),
        (["model=attention", "encoder.features=pooled"], "type encoder.features=grid"),
        (["init=nowhere"], "init=nowhere: there is no checkpoint nowhere"),
        (["init=run/best.ckpt", "model=merge"], "type model=lstm model.embed_dim=256"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_a_decoder_that_cannot_be_is_told_before_pictures_are_encoded(
    folder, monkeypatch, tmp_path, options, message
):
    monkeypatch.chdir(folder)
    places = [f"datamodule.features_root={tmp_path}/features", f"run_dir={tmp_path}"]
    monkeypatch.setattr("captioning.training.run.check_write_paths", lambda _: None)
    with pytest.raises(UserError, match=message):
        train(resolve_config(composed(*TINY, "data.root=data", *options, *places)))
    assert not (tmp_path / "features").exists()


def test_a_bit_that_flipped_in_the_weights_is_noticed(trained, tmp_path):
    content = bytearray((trained[1] / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "best.ckpt")


@pytest.mark.parametrize("content", [b"", b"hello, my captions", b"hi", b"image,caption\n"])
def test_what_is_no_checkpoint_is_said_in_a_sentence(tmp_path, content):
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="is not a checkpoint of captioning"):
        read_checkpoint(tmp_path / "best.ckpt")
