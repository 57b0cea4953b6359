"""The page in a real browser: Debian's Chromium, driven over a server in a process of its own."""

import contextlib
import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from captioning.captioner import Captioner
from captioning.search.beam import greedy_search

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# In the server's process: whom it connects to, and what names it looks up.
EAVESDROP = """
import os, socket
def told(what):
    with open(os.environ["OVERHEARD"], "a") as file:
        print(what, file=file)
getaddrinfo = socket.getaddrinfo
def heard(method):
    def call(self, address):
        told(address[0] if self.family != socket.AF_UNIX else "127.0.0.1")
        return method(self, address)
    return call
def lookup(host, *arguments, **options):
    told(host)
    return getaddrinfo(host, *arguments, **options)
socket.socket.connect = heard(socket.socket.connect)
socket.socket.connect_ex = heard(socket.socket.connect_ex)
socket.getaddrinfo = lookup
"""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium: apt-get install chromium"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`python -m captioning.demo`, until `stop`."""

    def __init__(self, folder, ckpt):
        self.url = f"http://127.0.0.1:{(port := free_port())}/"
        self.overheard, self.temporary = folder / "overheard", folder / "tmp"
        self.temporary.mkdir()
        (folder / "sitecustomize.py").write_text(EAVESDROP)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captioning.demo", f"ckpt={ckpt}", f"port={port}"],
            env=dict(
                os.environ,
                PYTHONPATH=os.pathsep.join([str(folder), os.getcwd()]),
                OVERHEARD=str(self.overheard),
                TMPDIR=str(self.temporary),
                OMP_NUM_THREADS="1",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.told = self.process.stdout.readline()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=30)[0]


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory):
    quoted = ",".join(f"'{path}'" for path in checkpoints)
    running = Server(tmp_path_factory.mktemp("server"), f"[{quoted}]")
    assert running.url.rstrip("/") in running.told
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@contextlib.contextmanager
def visit(browser, url, **options):
    """Open the page; whatever the browser asks for must come from this machine."""
    context = browser.new_context(**options)
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.set_default_timeout(20_000)
    tab.goto(url)
    tab.wait_for_selector("#answer .model")
    try:
        yield tab
    finally:
        context.close()
    strangers = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    assert not strangers


@pytest.fixture
def tab(browser, server):
    with visit(browser, server.url) as opened:
        yield opened


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "holiday (1), ü.png"
    Image.effect_mandelbrot((120, 80), (-2, -1, 1, 1), 20).convert("RGB").save(path)
    return path


def bring(tab, *paths):
    tab.set_input_files("#drop input[type=file]", [str(path) for path in paths])


def bring_one(tab, path):
    bring(tab, path)
    tab.wait_for_selector(f'#answer .seen img[alt="{path.name}"]')


def sentences(tab, model=0):
    section = tab.locator("#answer .model").nth(model)
    texts = section.locator("li p").all_text_contents()
    scores = section.locator(".score").all_text_contents()
    return [
        (text, float(score.replace("−", "-"))) for text, score in zip(texts, scores, strict=True)
    ]


def rounded(found):
    return [(text, pytest.approx(score, abs=0.0051)) for text, score in found]


def test_a_picture_brings_captions_and_alternatives_of_every_model(tab, picture, captioners):
    bring_one(tab, picture)
    assert tab.locator("#answer h2").all_text_contents() == ["attention", "lstm"]
    for at, one in enumerate(captioners.values()):
        assert sentences(tab, at) == rounded(one.alternatives(picture))


def test_a_word_that_is_pointed_at_darkens_what_was_not_looked_at(tab, picture, captioners):
    bring_one(tab, picture)
    assert tab.locator("#answer canvas.on").count() == 0
    caption = captioners["attention"](picture)
    word, weights = captioners["attention"].attention(picture, caption)[1]
    tab.locator("#answer .model >> nth=0 >> li >> nth=0 >> .word >> nth=1").hover()
    tab.wait_for_selector("#answer canvas.on")
    assert tab.locator("#answer figcaption").text_content() == f"Where it looked for “{word}”"
    alpha = tab.evaluate(
        """() => {
            const canvas = document.querySelector("#answer canvas");
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [...pixels.data].filter((_, at) => at % 4 === 3);
        }"""
    )
    dark = 255 * 0.7 * (1 - (weights / weights.max()) ** 0.8)
    assert alpha == pytest.approx(dark.flatten().tolist(), abs=2)
    overlay, shown = (tab.locator(f"#answer {part}").bounding_box() for part in ("canvas", "img"))
    assert overlay == pytest.approx(shown)
    tab.mouse.move(0, 0)
    tab.wait_for_selector("#answer canvas:not(.on)", state="attached")


def test_the_arrow_keys_reach_every_word(tab, picture):
    bring_one(tab, picture)
    caption = tab.locator("#answer .model >> nth=0 >> li p >> nth=0")
    words = caption.locator(".word").all_text_contents()
    caption.focus()
    told = []
    for _ in words:
        tab.keyboard.press("ArrowRight")
        told.append(tab.locator("#answer figcaption").text_content())
    assert told == [f"Where it looked for “{word}”" for word in words]


def test_a_sample_can_be_picked(tab):
    before = tab.locator("#answer .seen img").get_attribute("alt")
    tab.locator(".strip button").nth(3).click()
    tab.wait_for_selector("#answer .seen img[alt='00003.jpg']")
    assert before == "00000.jpg"


def test_the_search_can_be_chosen(tab, picture, captioners):
    bring_one(tab, picture)
    tab.get_by_label("greedy").check(force=True)
    tab.wait_for_function("document.querySelectorAll('#answer .model li').length === 2")
    greedy = captioners["attention"]
    greedy = Captioner(greedy.encoder, greedy.decoder, greedy.vocabulary, greedy_search)
    assert sentences(tab) == rounded(greedy.alternatives(picture))
    assert not tab.get_by_label("number input for Beam width").is_visible()
    tab.get_by_label("sampling").check(force=True)
    tab.wait_for_function("document.querySelectorAll('#answer .model li').length > 2")
    drawn = sentences(tab)
    assert tab.get_by_label("number input for Temperature").is_visible()
    tab.get_by_role("button", name="Draw again").click()
    tab.wait_for_function(
        "first => !document.querySelector('#answer').innerText.includes(first)", arg=drawn[-1][0]
    )


def test_the_beam_can_be_wider(tab, picture):
    bring_one(tab, picture)
    slider = tab.get_by_label("range slider for Beam width")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    tab.mouse.click(1, 1)
    slider.dispatch_event("pointerup")
    tab.wait_for_function("document.querySelectorAll('#answer .model li').length === 14")


def test_a_model_can_be_left_out(tab):
    tab.get_by_label("attention").uncheck()
    tab.wait_for_function("document.querySelectorAll('#answer .model').length === 1")
    assert tab.locator("#answer h2").all_text_contents() == ["lstm"]
    assert "does not show where it looks" in tab.locator("#answer .note").text_content()
    tab.get_by_label("lstm").uncheck()
    assert tab.locator("#answer .problem").text_content() == "Choose a model."


def bomb(path):
    Image.new("1", (20000, 20000)).save(path, "PNG")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("a letter"), "cannot be read as an image"),
        (bomb, "400000000 pixels"),
    ],
    ids=["text", "bomb"],
)
def test_what_is_no_picture_gets_a_sentence_and_the_next_one_a_caption(
    tab, tmp_path, picture, make, told
):
    make(tmp_path / "letter.jpg")
    bring(tab, tmp_path / "letter.jpg")
    problem = tab.locator("#answer .problem")
    problem.wait_for()
    assert re.match(rf"letter\.jpg .*{told}", problem.text_content())
    tab.get_by_label("Clear").first.click()
    tab.wait_for_selector("#answer .hint")
    bring_one(tab, picture)


def test_a_file_that_is_too_large_gets_a_sentence(tab, tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(21_000_000))
    bring(tab, path)
    toast = tab.get_by_test_id("toast-body")
    toast.wait_for()
    assert "large.jpg" in toast.text_content()
    assert "20.0 Mb" in toast.text_content()


def test_many_pictures_become_a_csv(tab, tmp_path, captioners):
    paths = []
    for at in range(20):
        paths.append(tmp_path / f"{at:02}.png")
        Image.new("RGB", (40, 30), (12 * at, 90, 200 - 9 * at)).save(paths[-1])
    paths[5].write_text("a letter")
    bring(tab, *paths)
    with tab.expect_download() as download:
        tab.get_by_text("Save captions.csv").click()
    assert download.value.suggested_filename == "captions.csv"
    assert "05.png cannot be read as an image" in tab.locator("#answer .problem").text_content()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        header, *found = csv.reader(file)
    del paths[5]
    said = [one.captions(paths) for one in captioners.values()]
    assert header == ["image", "attention", "lstm"]
    assert found == [list(row) for row in zip((path.name for path in paths), *said, strict=True)]


def test_visitors_who_leave_amid_many_pictures_hold_up_nobody(browser, server, tmp_path, picture):
    slow = tmp_path / "slow.png"  # a minute's work, were it not given up
    Image.linear_gradient("L").convert("RGB").resize((4000, 4000)).save(slow, compress_level=1)
    paths = [shutil.copy(slow, tmp_path / f"{at}.png") for at in range(120)]
    for _ in range(2):  # as many as are served at once
        with visit(browser, server.url) as leaving:
            bring(leaving, *paths)
            leaving.wait_for_selector("#answer progress")
    with visit(browser, server.url) as staying:
        start = time.monotonic()
        bring_one(staying, picture)
        assert time.monotonic() - start < 15


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_follows_the_visitors_colours(browser, server, width, scheme):
    size = {"width": width, "height": 844}
    with visit(browser, server.url, viewport=size, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (lightness < 60) == (scheme == "dark")
        assert tab.locator("footer").count() == 0 or not tab.locator("footer").is_visible()
        word = tab.locator("#answer .word").first
        word.hover()
        assert tab.locator("#answer canvas.on").count() == 1


def test_the_server_calls_nobody(tab, server):
    assert set(server.overheard.read_text().split()) <= LOOPBACK


def test_what_visitors_brought_is_deleted_in_the_end(browser, checkpoints, tmp_path, picture):
    running = Server(tmp_path, checkpoints[0])
    with visit(browser, running.url) as tab:
        bring_one(tab, picture)
    assert list(running.temporary.rglob("holiday*"))
    assert "Traceback" not in running.stop()
    assert running.process.returncode == 0
    assert not list(running.temporary.rglob("*"))
