"""What is typed after a command: both kinds of commands, and their help."""

import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.config.cli import command, help_text, option, read_options
from captioning.config.hydra_arguments import hydra_arguments, quote_path

TYPED = ("caption", "demo", "download", "export", "judge", "replay", "summarize", "verify")
HYDRA = {"config": "train", "evaluate": "evaluate", "encode": "encode", "tune": "tune"}
ODD = ["Köln", "flickr8k (1)", "[a]", "it's", "1e3", "a=b", "null.jpg", "null", "???", "${HOME}"]
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


@pytest.mark.parametrize("name", ODD)
def test_hydra_reads_a_path_as_it_is_typed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    (tmp_path / "b").touch()
    for typed in (f"ckpt={name}", f"data.root={tmp_path}/{name}"):
        assert value(quote_path(typed)) == typed.partition("=")[2]
    if "=" not in name and name not in "~":
        assert value(*hydra_arguments([name], "evaluate", "ckpt")) == name
    both = [f"./{name}", "b"]
    assert value(*hydra_arguments(both, "evaluate", "ckpt")) == both
    if name != " a ":
        assert value(quote_path(f"ckpt=[{','.join(both)}]")) == both


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
