"""What is typed after a command: both kinds of commands, and their help."""

import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from captioning import UserError
from captioning.caption import CaptionOptions
from captioning.config.cli import command, help_text, option, read_options
from captioning.config.compose import CONF, checked_configs
from captioning.config.hydra_arguments import as_typed, hydra_arguments, quote_path
from captioning.demo import DemoOptions
from captioning.export import ExportOptions
from captioning.replay import ReplayOptions

TYPED = ("caption", "demo", "download", "export", "judge", "replay", "summarize", "verify")
HYDRA = {"config": "train", "evaluate": "evaluate", "encode": "encode", "tune": "tune"}
ODD = ["Köln", "flickr8k (1)", "[a]", "it's", "1e3", "a=b", "null.jpg", "null", "???", "${HOME}"]
NAMES = ["Köln", "flickr8k (1)", "it's", "a,b", "a=b", "{a: 1}", "~", "#", "&", "$HOME", "C:\\data"]
NAMES += [
    "照片",
    "[a]",
    "2024",
    "1e3",
    "a b ",
    "a\\",
    "My Drive",
    "50%",
    "'",
    "choice(a,b)",
    "/it's (1)",
]
ODD += ["'", "a\\", "\\'b", "a,b", "true", " a ", "caf\udce9", "{a: 1}", "#", "~"]


@dataclass
class SomeOptions:
    """Do something.

    python -m captioning.some FILE
    """

    file: str = option("what is read", bare=True)
    folder: str = option("where it goes", "out", bare=True)
    steps: int | None = option("how many", None)
    fast: bool = option("less", False)
    also: tuple[str, ...] = option("more of them", ())
    kind: str = option("which", "auto", choices=("auto", "csv"))
    settings: tuple[str, ...] = option("", (), prefixes=("search.",))


@dataclass
class ListOptions:
    """Do something to many."""

    files: tuple[str, ...] = option("what is read", bare=True)


@given(st.sampled_from(ODD) | st.text())
def test_text_is_taken_as_it_is_typed(text):
    assert read_options(SomeOptions, ["a", f"folder={text}"]).folder == text


@pytest.mark.parametrize("name", [name for name in ODD if name != "~"])
def test_a_path_needs_no_key(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert read_options(SomeOptions, [name]).file == name
    assert read_options(ListOptions, [name, "b"]).files == (name, "b")
    assert read_options(ListOptions, [f"files={name}"]).files == (name,)
    assert read_options(SomeOptions, [f"sub/{name}"]).file == f"sub/{name}"


def test_values_have_the_types_of_their_keys():
    typed = ["a", "b", "steps=3", "fast=true", "also=[x,y]", "also=z", "kind=csv", "search.top_p=1"]
    expected = SomeOptions("a", "b", 3, True, ("x", "y", "z"), "csv", ("search.top_p=1",))
    assert read_options(SomeOptions, typed) == expected
    assert read_options(SomeOptions, ["-"]) == SomeOptions("-")


def test_of_a_list_only_a_comma_between_paths_separates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "c"):
        (tmp_path / name).touch()
    for typed in ("files=[a,b,c]", "files=['a,b', c]"):
        assert read_options(ListOptions, [typed]).files == ("a,b", "c")


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("", "file= is missing; --help lists the keys"),
        ("fiel=a", "fiel=a is not one of file=, folder=, steps=, .*; did you mean file=?"),
        ("a b c", "c is too much; type a pattern"),
        ("a steps=x", "steps=x: it is a whole number"),
        ("a steps=${x}", "steps=${x}: it is a whole number"),
        ("a fast=maybe", "fast=maybe: it is true or false"),
        ("a kind=tsv", "kind=tsv: it is auto or csv"),
        ("a --kind csv", "type kind=csv instead of --kind"),
        ("a --kind=csv", "type kind=csv instead of --kind=csv"),
        ("--fast a", "type fast=true instead of --fast"),
        ("a --slow", "--slow is not key=value"),
    ],
)
def test_what_cannot_be_is_a_sentence(typed, error):
    with pytest.raises(UserError) as raised:
        read_options(SomeOptions, typed.split())
    for part in error.split(".*"):
        assert part in str(raised.value)


def test_help_has_every_key_with_its_default():
    assert help_text(SomeOptions).splitlines() == [
        "Do something.",
        "",
        "python -m captioning.some FILE",
        "",
        "  file=               required, also without file=: what is read",
        "  folder=out          also without folder=: where it goes",
        "  steps=              how many",
        "  fast=false          less",
        "  also=               more of them",
        "  kind=auto           which",
    ]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (UserError("no"), 1, "error: no"),
        (
            PermissionError(13, "denied", "a"),
            1,
            "error: a: denied; mend that, then the same command",
        ),
        (KeyboardInterrupt(), 130, "\nstopped; the same command goes on"),
    ],
)
def test_exit_codes(capsys, error, code, message):
    @command(SomeOptions)
    def main(options):
        if error:
            raise error

    assert main(["file"]) == code
    assert capsys.readouterr().err.startswith(message)
    assert (main(["--help"]), main([])) == (0, 2)


@pytest.mark.parametrize("name", TYPED)
def test_examples_of_the_help_are_read(name):
    module = importlib.import_module(f"captioning.{name}")
    (schema,) = [value for key, value in vars(module).items() if key.endswith("Options")]
    examples = re.findall(rf"^python -m captioning\.{name} (.+)$", help_text(schema), re.MULTILINE)
    assert examples
    for example in examples:
        read_options(schema, shlex.split(example))


def test_help_needs_no_torch():
    light = {*TYPED, *HYDRA.values()} - {"summarize"}
    imports = ", ".join(f"captioning.{name}" for name in light)
    code = f"import sys, {imports}; sys.exit(str({{'torch', 'gradio'}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("config", HYDRA)
def test_help_of_a_config_has_its_keys_and_choices(config, capsys):
    with pytest.raises(SystemExit, match="0"):
        hydra_arguments(["a=b", "--help"], config)
    printed = capsys.readouterr().out
    assert f"  python -m captioning.{HYDRA[config]} " in printed
    assert "Keys, with their defaults:" in printed
    assert "hydra:\n" not in printed
    assert ("  data=" in printed) and ("flickr8k, folder, scenes" in printed)


PATH_KEYS = {
    "config": "data.root ckpt_path init run_dir name datamodule.features_root encoder.weights "
    "text_encoder.path callbacks.best.dirpath callbacks.gallery.folder logger.csv.save_dir "
    "hydra.run.dir hydra.sweep.dir",
    "evaluate": "data.root ckpt encoder.weights text_encoder.path features_root run_dir name",
    "encode": "data.root encoder.weights features_root hydra.sweep.subdir",
    "tune": "data.root storage name hydra.run.dir",
}
# Hydra's own, as the comment in hydra_arguments.py says; and what OmegaConf says of a missing value
OWN = re.compile(r"""\[?['"].*|\[.*\]|null|\?\?\?|latest""", re.DOTALL | re.IGNORECASE)


def read(config, *typed):
    """Return Hydra's whole config of what a person types."""
    overrides = hydra_arguments(typed, config)
    with checked_configs(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config, overrides=overrides, return_hydra_config=True)


@pytest.mark.parametrize("config", PATH_KEYS)
@settings(max_examples=12)
@given(st.sampled_from(NAMES) | st.text(st.sampled_from("aö照 '\"\\,=:;[](){}~#&$!*?%@\t")))
def test_a_path_is_taken_as_it_is_typed_and_printed_so(config, name):
    assume("${" not in name)
    path = f"{name}/x" if OWN.fullmatch(name) else name
    keys = PATH_KEYS[config].split()
    cfg = read(config, *[f"{key}={path}" for key in keys])  # trust.py allows what is typed
    assert {key: OmegaConf.select(cfg, key) for key in keys} == dict.fromkeys(keys, path)
    for override in hydra_arguments([f"{key}={path}" for key in keys], config):
        assert hydra_arguments([override], config) == [override]  # by the processes of a run
        printed = shlex.split(shlex.join([as_typed(override)]))
        assert hydra_arguments(printed, config) == [override]


@pytest.mark.parametrize("name", [name for name in ODD if name != "???"])
def test_a_file_with_a_name_of_hydras_is_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    (tmp_path / "b").touch()
    assert value(quote_path(f"ckpt={name}")) == value(quote_path(f"ckpt={name}", True)) == name
    both = [f"./{name}", "b"]
    assert value(*hydra_arguments(both, "evaluate", "ckpt")) == both
    if name != " a ":
        assert value(quote_path(f"ckpt=[{','.join(both)}]")) == both


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("data.root=Köln,it's", ["Köln", "it's"]),
        ("data.root=2023,2024", ["2023", "2024"]),
        ("encoder.weights=null,a b", [None, "a b"]),
        ("init=null,default,a b/best.ckpt", [None, "default", "a b/best.ckpt"]),
        ("""ckpt='a,b',"c,d\"""", ["a,b", "c,d"]),
        ("ckpt=choice(a,b)", ["a", "b"]),
        ("ckpt=[a,b],[c]", [["a", "b"], ["c"]]),
    ],
)
def test_a_sweep_is_hydras(typed, read):
    (override,) = hydra_arguments(["sweep=x", typed], "evaluate", "ckpt")[1:]
    swept = OverridesParser.create().parse_override(override).sweep_string_iterator()
    assert [value(f"key={each}") for each in swept] == read


def test_latest_is_of_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no outputs/runs/latest/best\.ckpt: train first"):
        hydra_arguments(["latest"], "evaluate", "ckpt")
    (tmp_path / "outputs/runs/a b").mkdir(parents=True)
    (tmp_path / "outputs/runs/latest").symlink_to("a b")
    for name in ("best.ckpt", "last.ckpt", "not-finite.pt"):
        (tmp_path / "outputs/runs/a b" / name).touch()
    best = "outputs/runs/a b/best.ckpt"
    assert value(*hydra_arguments(["latest"], "evaluate", "ckpt")) == best
    assert value(*hydra_arguments(["ckpt=[latest,x]"], "evaluate")) == [best, "x"]
    assert hydra_arguments(["ckpt_path=latest"], "config") == [
        "ckpt_path=outputs/runs/a b/last.ckpt"
    ]
    assert value(*hydra_arguments(["init=latest"], "config")) == best
    assert hydra_arguments(["ckpt=./latest"], "evaluate") == ["ckpt=./latest"]
    assert read_options(ExportOptions, ["latest", "format=onnx"]).ckpt == best
    assert read_options(CaptionOptions, ["ckpt=latest", "latest"]).images == "latest"
    assert read_options(DemoOptions, ["latest", "./latest"]).ckpt == (best, "./latest")
    assert read_options(ReplayOptions, ["latest"]).file == "outputs/runs/a b/not-finite.pt"


def value(override):
    return OverridesParser.create().parse_override(override).value()


def test_hydra_reads_the_rest_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").touch()
    typed = ["-m", "ckpt=*.ckpt", "ckpt=[a,b]", "split=dev", "hydra/launcher=x", "~a.b", "+c=d"]
    typed += ["--cfg", "job"]
    assert hydra_arguments(typed, "evaluate", "ckpt") == typed


def test_old_spellings_are_answered_with_the_new_ones():
    with pytest.raises(SystemExit, match="demo: type key=value; --help lists the keys"):
        hydra_arguments(["demo"], "config")
    with pytest.raises(SystemExit, match=r"type search\.width=50 rerank=neighbours"):
        hydra_arguments(["search=neighbours"], "evaluate")


def test_an_argument_that_lightning_2_dropped_is_answered_with_todays():
    with pytest.raises(SystemExit, match=r"type trainer\.enable_model_summary=… instead"):
        hydra_arguments(["trainer.weights_summary=top"], "config")


def test_a_dashed_key_is_answered_with_todays_spelling():
    with pytest.raises(SystemExit, match="type ckpt=a instead of --ckpt=a"):
        hydra_arguments(["--ckpt=a"], "evaluate", "ckpt")
    assert hydra_arguments(["-m", "--cfg", "job", "seed=1"], "config")
