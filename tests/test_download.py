"""Downloads from a server on 127.0.0.1."""

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision

from captioning import UserError, download
from captioning.data import fetch

BODY = bytes(range(256)) * 2000  # 512,000 bytes: some eight chunks
CUT = 300_000  # where a breaking server stops


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def zipped(files: dict[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        requested = self.headers.get("Range", "bytes=0-")
        server.requests.append((self.path, requested))
        if server.errors:
            return self.send_error(server.errors.pop(0))
        if self.path not in server.files:
            return self.send_error(404)
        body = server.files[self.path]
        start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1]) if server.ranges else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if server.ranges else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if server.breaks:
            server.breaks -= 1
            end = CUT
        self.wfile.write(body[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False  # server_close() then waits for them and their sockets
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.files, server.requests, server.errors = {"/file": BODY}, [], []
        server.ranges, server.breaks = True, 0
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def command(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "captioning.download", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def assert_one_sentence(text: str):
    assert "Traceback" not in text
    assert text.count("\n") == 1


# --- one file ---


def fetch_file(server, folder, name="file", content=BODY):
    fetch.fetch(f"{server.url}/{name}", folder / "file", md5(content))


@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_goes_on_where_the_line_broke(server, tmp_path, ranges):
    server.breaks, server.ranges = 1, ranges
    fetch_file(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == BODY
    first, second = (int(requested[6:-1]) for _, requested in server.requests)
    assert first == 0 < second <= CUT
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [1000, len(BODY)])
def test_fetch_goes_on_after_an_earlier_run(server, tmp_path, size):
    (tmp_path / "file.partial").write_bytes(BODY[:size])
    fetch_file(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.requests == [("/file", f"bytes={size}-")]


def test_fetch_requests_nothing_where_the_file_is_there(server, tmp_path):
    (tmp_path / "file").write_bytes(BODY)
    fetch_file(server, tmp_path)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="move it away"):
        fetch_file(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert server.requests == []


def test_wrong_bytes_are_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"wrong bytes .* was removed"):
        fetch_file(server, tmp_path, content=b"others")
    assert os.listdir(tmp_path) == []


def test_a_missing_file_or_a_malformed_url_is_not_requested_twice(server, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("tried again"))
    with pytest.raises(UserError, match=r"/none \(404 .*url=.* put the file at .*/file$"):
        fetch_file(server, tmp_path, "none")
    with pytest.raises(UserError, match="could not fetch nonsense"):
        fetch.fetch("nonsense", tmp_path / "file", md5(BODY))


def test_a_busy_server_is_tried_again_after_pauses_that_double(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(fetch, "PAUSE", 1.0)
    server.errors = [503, 429, 503]
    fetch_file(server, tmp_path)
    assert pauses == [1, 2, 4]


def test_a_server_that_always_breaks_off_is_given_up_and_the_partial_file_stays(server, tmp_path):
    server.breaks, server.ranges = 99, False
    with pytest.raises(UserError, match="run this again to go on"):
        fetch_file(server, tmp_path)
    assert len(server.requests) == fetch.ATTEMPTS
    assert (tmp_path / "file.partial").exists()


# --- one archive ---


def unpack(tmp_path, content: bytes):
    (tmp_path / "a.zip").write_bytes(content)
    fetch.unpack(tmp_path / "a.zip", tmp_path / "folder", limit=1000)


def test_unpack_replaces_what_a_stopped_run_left(tmp_path):
    (tmp_path / "folder.partial").mkdir()
    (tmp_path / "folder.partial" / "half.txt").touch()
    unpack(tmp_path, zipped({"a.txt": b"a"}))
    assert os.listdir(tmp_path / "folder") == ["a.txt"]


UNSAFE = [
    (zipped({"a": b"", "C:\\evil": b""}), "outside the folder: nothing"),
    (zipped({"a": b"0" * 2000}), "2,000 bytes, more than the 1,000 expected"),
    (b"no zip", r"a\.zip is a broken zip"),
]


@pytest.mark.parametrize(("content", "message"), UNSAFE)
def test_an_unsafe_archive_is_refused_before_anything_is_written(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        unpack(tmp_path, content)
    assert os.listdir(tmp_path) == ["a.zip"]


# --- flickr8k ---


@pytest.fixture
def archives(server):
    """Two small archives laid out like the real ones, served, with their own checksums."""
    images = zipped({"Flicker8k_Dataset/1.jpg": b"1", "__MACOSX/Flicker8k_Dataset/._1.jpg": b""})
    text = zipped({"Flickr8k.token.txt": b"1.jpg#0\tA dog .\n", "__MACOSX/._readme.txt": b""})
    server.files |= {"/Flickr8k_Dataset.zip": images, "/Flickr8k_text.zip": text}
    return {
        name: (md5(server.files[f"/{name}"]), folder)
        for name, (_, folder) in download.ARCHIVES.items()
    }


def test_flickr8k_ends_in_the_original_layout(server, archives, tmp_path, capsys):
    download.download_flickr8k(tmp_path, server.url + "/", archives=archives)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "Flicker8k_Dataset",
        "Flicker8k_Dataset/1.jpg",
        "Flickr8k_text",
        "Flickr8k_text/Flickr8k.token.txt",
    ]
    assert capsys.readouterr().out.count("research use only") == 1
    server.requests.clear()
    download.download_flickr8k(tmp_path, server.url, archives=archives)
    assert server.requests == []
    assert capsys.readouterr().out.count("is there already") == 2


def test_flickr8k_fetches_only_the_half_that_is_missing_and_may_keep_it(server, archives, tmp_path):
    (tmp_path / "Flickr8k_text").mkdir()
    (tmp_path / "Flickr8k_text" / "mine.txt").touch()
    download.download_flickr8k(tmp_path, server.url, keep=True, archives=archives)
    assert [path.name for path in tmp_path.glob("*.zip")] == ["Flickr8k_Dataset.zip"]
    assert [path for path, _ in server.requests] == ["/Flickr8k_Dataset.zip"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_sentence(server, archives, tmp_path):
    (tmp_path / "Flickr8k_text.zip.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"could not write in .* \(No space left on device\)"):
        download.download_flickr8k(tmp_path, server.url, archives=archives)


def test_ctrl_c_keeps_the_partial_file_and_says_how_to_go_on(
    server, archives, tmp_path, monkeypatch, capsys
):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    server.files["/Flickr8k_text.zip"] = BODY
    server.breaks = 1
    assert download.main(["flickr8k", str(tmp_path), f"url={server.url}"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert 0 < (tmp_path / "Flickr8k_text.zip.partial").stat().st_size <= CUT


def test_the_command_refuses_a_mirror_with_other_archives(server, archives, tmp_path):
    result = command("flickr8k", tmp_path / "new", f"url={server.url}", NO_PROXY="127.0.0.1")
    assert result.returncode == 1
    expected, _ = download.ARCHIVES["Flickr8k_text.zip"]
    assert f"instead of {expected}" in result.stderr
    assert_one_sentence(result.stderr)
    assert os.listdir(tmp_path / "new") == []


# --- image encoders ---


@pytest.fixture
def tiny_weights(server, tmp_path, monkeypatch):
    """resnet18's weights are a tiny state dict on the local server; returns its name."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer)
    name = f"resnet18-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = buffer.getvalue()
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(weights, "url", f"{server.url}/{name}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return name


def test_weights_end_in_the_cache_of_torch(server, tiny_weights, tmp_path, capsys):
    assert download.main(["resnet18"]) == 0
    path = tmp_path / "hub" / "checkpoints" / tiny_weights
    assert path.read_bytes() == server.files[f"/{tiny_weights}"]
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["refused", "wrong bytes"])
def test_weights_that_do_not_come_are_one_sentence_with_url_and_path(
    server, tiny_weights, tmp_path, capsys, fault
):
    content = server.files.pop(f"/{tiny_weights}")
    if fault == "wrong bytes":
        server.files[f"/{tiny_weights}"] = content + b"more"
    assert download.main(["resnet18"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]  # the progress bar goes before
    path = tmp_path / "hub" / "checkpoints" / tiny_weights
    assert error.endswith(f"fetch {server.url}/{tiny_weights} by other means and put it at {path}")
    assert not path.exists()


def test_a_broken_file_in_the_cache_of_torch_is_called_broken(tiny_weights, tmp_path, capsys):
    path = tmp_path / "hub" / "checkpoints" / tiny_weights
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert download.main(["resnet18"]) == 1
    assert f"put it at {path} in place of the broken one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "weights=BEST"], "type weights=IMAGENET1K_V1"),
        (["resnet5O"], "type flickr8k, a torchvision classifier such as resnet50"),
        (["resnet18", "folder"], "weights go to $TORCH_HOME"),
    ],
)
def test_wrong_arguments_are_one_sentence(capsys, arguments, message):
    assert download.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert_one_sentence(error)


# --- text encoders ---


def test_a_hub_out_of_reach_is_one_sentence_with_the_ways_out(server, tmp_path):
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": server.url, "NO_PROXY": "127.0.0.1"}
    result = command("bert_base", **environment)
    assert result.returncode == 1
    assert_one_sentence(result.stderr)
    assert f"could not get bert-base-uncased into {tmp_path / 'hub'}" in result.stderr
    assert "text_encoder.path=FOLDER" in result.stderr
    assert "text_encoder=minilm" in result.stderr
    assert server.requests


def test_a_hub_id_goes_to_the_hub_and_needs_safetensors(tmp_path, monkeypatch, capsys):
    names = []

    def snapshot_download(model, allow_patterns):
        names.append(model)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert download.main(["owner/name"]) == 1
    assert "owner/name" in capsys.readouterr().err
    (tmp_path / "model.safetensors").touch()
    assert download.main(["owner/name"]) == 0
    assert names == ["owner/name"] * 2


# --- the command ---


def test_help_comes_at_once_and_without_torch():
    code = "import sys, captioning.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert "python -m captioning.download flickr8k" in command("--help").stdout
