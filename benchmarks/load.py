"""The page and the batch command under load: memory over time, requests, failures.

    python -m benchmarks.load --seconds 300 --images 20000 --out docs/results/load.json

Eight clients use the page of a small model, among them one that sends slowly, one that vanishes in
the middle, one that sends too much and one that sends no image. Then `captioning.caption` goes
over so many images. Memory and failures count; the times are this machine's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import torch
from PIL import Image

from captioning.config.build import build_decoder
from captioning.data.vocabulary import SPECIALS
from captioning.features.encoder import Encoder
from captioning.training.provenance import provenance

EVERY = 2.0  # seconds between two looks at the memory


def saved(path: Path) -> Path:
    """Save a small captioner with random weights, as a training saves it."""
    words = [*SPECIALS, *["a", "red", "dog", "runs", "on", "wet", "grass"]]
    options = {"name": "resnet18", "weights": None, "features": "grid", "image_size": 32}
    model = {"_target_": "captioning.models.attention.AttentionDecoder"}
    model |= {"embed_dim": 16, "hidden_dim": 16}
    encoder = Encoder(**options)
    decoder = build_decoder(model, len(words), encoder.feature_shape[-1])
    contents = {
        "format_version": 2,
        "vocabulary": words,
        "encoder": encoder.identity,
        "config": {"encoder": options, "model": model, "name": "load", "seed": 0},
    }
    weights = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    torch.save({"epoch": 0, "state_dict": weights, "captioning": contents}, path)
    return path


def drawn(number: int, size: tuple[int, int] = (160, 120)) -> bytes:
    """Return a JPEG of its own."""
    file = io.BytesIO()
    Image.effect_noise(size, number % 97).convert("RGB").save(file, "JPEG")
    return file.getvalue()


class Page:
    """A client of the page: what its browser's script sends, without the browser."""

    def __init__(self, url: str):
        self.url, self.session = f"{url}/gradio_api", requests.Session()
        self.hash = os.urandom(6).hex()
        config = self.session.get(f"{url}/config", timeout=60).json()
        components = {each["id"]: each["type"] for each in config["components"]}
        for function in config["dependencies"]:
            kinds = [components[key] for key in function["inputs"]]
            if kinds == ["file"]:
                self.upload = function["id"]
            if len(kinds) == 6:
                self.answer = function["id"]

    def caption(self, image: bytes, name: str = "a.jpg") -> str:
        """Upload an image, choose it, and return the HTML that the page shows."""
        files = {"files": (name, image)}
        done = self.session.post(f"{self.url}/upload", files=files, timeout=120)
        if done.status_code == 413:
            return "too large"
        done.raise_for_status()
        path = {"path": done.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        self.event(self.upload, [[path]])
        (html,) = self.event(self.answer, [None, "beam", 5, 1, ["load"], False])
        return str(html)

    def event(self, number: int, data: list[Any]) -> list[Any]:
        """Call one of the page's functions through its queue; return what it gives last."""
        call = {"data": data, "fn_index": number, "session_hash": self.hash}
        self.session.post(f"{self.url}/queue/join", json=call, timeout=60).raise_for_status()
        query = {"session_hash": self.hash}
        last: list[Any] = []
        with self.session.get(
            f"{self.url}/queue/data", params=query, stream=True, timeout=120
        ) as events:
            for line in events.iter_lines():
                message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if message.get("msg") in ("process_generating", "process_completed"):
                    last = message["output"].get("data") or last
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(message["output"])
                    return last
        raise RuntimeError("the page said nothing more")


class Load:
    """Eight clients at once until the time is over; counts what came of each request."""

    def __init__(self, url: str, seconds: float):
        self.url, self.end = url, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.times: list[float] = []

    def run(self) -> None:
        """Start the clients, and wait for them."""
        kinds = [self.usual] * 4 + [self.slow, self.vanishing, self.oversize, self.no_image]
        threads = [threading.Thread(target=self.repeat, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def repeat(self, kind: Any) -> None:
        """Do the same until the time is over; note what fails."""
        page, number = Page(self.url), 0
        while time.monotonic() < self.end:
            number += 1
            try:
                kind(page, number)
                self.counts[kind.__name__] += 1
            except Exception as error:
                self.failures.append(f"{kind.__name__}: {error!r}"[:300])

    def usual(self, page: Page, number: int) -> None:
        """Caption one image."""
        start = time.monotonic()
        html = page.caption(drawn(number))
        self.times.append(time.monotonic() - start)
        if 'class="model"' not in html:
            raise RuntimeError(html[:200])

    def slow(self, page: Page, number: int) -> None:
        """Send an image's bytes a few at a time, for seconds."""
        with self.sending(page, 4000) as sender:
            for _ in range(10):
                sender.sendall(b"x" * 100)
                time.sleep(0.3)

    def vanishing(self, page: Page, number: int) -> None:
        """Go away: half way through an upload, or while the answer is made."""
        if number % 2:
            with self.sending(page, 1_000_000) as sender:
                sender.sendall(b"x" * 100_000)
        else:
            other = Page(self.url)
            call = {"data": [None, "beam", 10, 1, ["load"], False], "fn_index": other.answer}
            call["session_hash"] = other.hash
            other.session.post(f"{other.url}/queue/join", json=call, timeout=60)
            other.session.close()
        time.sleep(0.2)

    def oversize(self, page: Page, number: int) -> None:
        """Send more than the page takes."""
        if page.caption(bytes(21_000_000)) != "too large":
            raise RuntimeError("21 MB were taken")
        time.sleep(1)

    def no_image(self, page: Page, number: int) -> None:
        """Send a letter as an image."""
        if 'class="problem"' not in page.caption(b"Dear Sir or Madam, " * 9):
            raise RuntimeError("a letter was captioned")
        time.sleep(0.2)

    def sending(self, page: Page, length: int) -> socket.socket:
        """Begin an upload by hand."""
        port = int(self.url.rpartition(":")[2])
        sender = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/"
        head += f"form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n--b\r\nContent-"
        head += 'Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        sender.sendall(head.encode())
        return sender


class Memory(threading.Thread):
    """Looks at a process's memory, MB, until it ends."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.status, self.megabytes, self.over = Path(f"/proc/{pid}/status"), [], threading.Event()
        self.start()

    def run(self) -> None:
        """Look every `EVERY` seconds."""
        while not self.over.wait(EVERY):
            try:
                match = re.search(r"VmRSS:\s+(\d+)", self.status.read_text())
            except OSError:
                return
            self.megabytes += [round(int(match[1]) / 1024)] if match else []

    def summary(self) -> dict[str, Any]:
        """Return the course, thinned out, and how much the second half lies above the first."""
        self.over.set()
        # The first fifth is what a process loads when it is first used.
        steady = self.megabytes[len(self.megabytes) // 5 :] or [0]
        half = len(steady) // 2
        grown = statistics.median(steady[half:]) - statistics.median(steady[: half or 1])
        every = max(1, len(self.megabytes) // 60)
        return {
            "megabytes": self.megabytes[::every],
            "highest": max(steady),
            "grown": round(grown, 1),
        }


def load_page(ckpt: Path, seconds: float) -> dict[str, Any]:
    """Serve the page in a process of its own, and use it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "captioning.demo", f"ckpt={ckpt}", f"port={port}"]
    log = ckpt.with_name("page.log")
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while "is the page" not in log.read_text():
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        memory, load = Memory(server.pid), Load(f"http://127.0.0.1:{port}", seconds)
        load.run()
        memory_summary = memory.summary()
        with load.sending(Page(load.url), 4000):  # a client in the middle must not keep it up
            start = time.monotonic()
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                load.failures.append("the page did not end within 20 seconds of SIGTERM")
            ended = time.monotonic() - start
    finally:
        server.kill()
    output = log.read_text(errors="replace")
    errors = Counter(
        re.findall(r"^\w+(?:\.\w+)*(?:Error|Exception|Disconnect)\b.{,100}", output, re.M)
    )
    return {
        "seconds": seconds,
        "clients": 8,
        "requests": dict(load.counts),
        "failures": load.failures[:20],
        "logged": dict(errors.most_common(5)),
        "median_seconds": round(statistics.median(load.times or [0]), 2),
        "seconds_to_end": round(ended, 1),
        "memory": memory_summary,
    }


def load_batch(ckpt: Path, folder: Path, images: int) -> dict[str, Any]:
    """Caption so many images in one command."""
    drawn_images = [drawn(number, (96, 72)) for number in range(97)]
    for number in range(images):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn_images[number % 97])
    out = folder / "captions.csv"
    command = [sys.executable, "-m", "captioning.caption", f"ckpt={ckpt}", f"images={folder}"]
    start = time.monotonic()
    batch = subprocess.Popen([*command, f"out={out}", "width=1"], stderr=subprocess.PIPE, text=True)
    memory = Memory(batch.pid)
    errors = batch.communicate()[1]
    return {
        "pictures": images,
        "captions": max(0, out.read_text(encoding="utf-8").count("\n") - 1),
        "returncode": batch.returncode,
        "errors": errors.count("error:"),
        "seconds": round(time.monotonic() - start),
        "memory": memory.summary(),
    }


def main() -> None:
    """Run both, and write what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--out", default="outputs/load.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ckpt = saved(Path(name, "best.ckpt"))
        content = provenance(torch.device("cpu"))
        content["page"] = load_page(ckpt, arguments.seconds)
        content["batch"] = load_batch(ckpt, Path(name, "pictures"), arguments.images)
    text = json.dumps(content, indent=1)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
