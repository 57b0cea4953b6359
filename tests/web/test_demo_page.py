"""The demo page in a real browser, Debian's Chromium, over a server in a process of its own."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from browser import launched
from PIL import Image

from captioning.captioner import Captioner
from captioning.evaluation.figures import brightness
from captioning.search.beam import greedy_search

# In the server's process: writes down the hosts that it connects to and looks up.
RECORD_HOSTS = """
import os, sys
def record(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    with open(os.environ["HOSTS"], "a") as file:
        print(host, file=file)
sys.addaudithook(record)
"""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
CAPTIONS = "document.querySelectorAll('#answer .model li').length"

pytestmark = pytest.mark.slow


class Server:
    """`python -m captioning.demo`, until `stop`."""

    def __init__(self, folder, *options):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        self.hosts, self.temporary = folder / "hosts", folder / "tmp"
        self.temporary.mkdir()
        (folder / "sitecustomize.py").write_text(RECORD_HOSTS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captioning.demo", *options, f"port={port}"],
            cwd=folder,
            env=dict(
                os.environ,
                PYTHONPATH=os.pathsep.join([str(folder), os.getcwd()]),
                HOSTS=str(self.hosts),
                TMPDIR=str(self.temporary),
                OMP_NUM_THREADS="1",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = iter(self.process.stdout.readline, "")  # encoding has a progress bar
        assert any(self.url.rstrip("/") in line for line in lines)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=30)[0]


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory):
    quoted = ",".join(f"'{path}'" for path in checkpoints)
    running = Server(tmp_path_factory.mktemp("server"), f"ckpt=[{quoted}]")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser():
    with launched() as started:
        yield started


@contextlib.contextmanager
def visit(browser, url, **options):
    """Open the page; whatever the browser requests must come from this machine."""
    context = browser.new_context(**options)
    tab, requests = context.new_page(), []
    tab.on("request", lambda request: requests.append(request.url))
    tab.set_default_timeout(20_000)
    tab.goto(url)
    tab.wait_for_selector("#answer .model")
    try:
        yield tab
    finally:
        context.close()
    assert not [other for other in requests if not other.startswith((url, "data:", "blob:"))]


@pytest.fixture
def tab(browser, server):
    with visit(browser, server.url) as opened:
        yield opened


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "holiday (1), ü.png"
    Image.effect_mandelbrot((120, 80), (-2, -1, 1, 1), 20).convert("RGB").save(path)
    return path


def upload(tab, *paths):
    tab.set_input_files("#drop input[type=file]", [str(path) for path in paths])


def upload_one(tab, path):
    upload(tab, path)
    tab.wait_for_selector(f'#answer .image img[alt="{path.name}"]')


def captions(tab, model=0):
    """Return the captions of a model on the page, with their scores."""
    section = tab.locator("#answer .model").nth(model)
    texts = section.locator("li p").all_text_contents()
    scores = section.locator(".score").all_text_contents()
    return texts, [float(score.replace("−", "-")) for score in scores]


def rounded(alternatives):
    texts, scores = zip(*alternatives, strict=True)
    return list(texts), pytest.approx(list(scores), abs=0.0051)


def test_an_image_has_captions_and_alternatives_of_every_model(tab, image, captioners):
    upload_one(tab, image)
    assert tab.locator("#answer h2").all_text_contents() == ["attention", "lstm"]
    for at, captioner in enumerate(captioners.values()):
        assert captions(tab, at) == rounded(captioner.alternatives(image))


def test_pointing_at_a_word_darkens_the_regions_of_low_attention(tab, image, captioners):
    upload_one(tab, image)
    assert tab.locator("#answer canvas.on").count() == 0
    caption = captioners["attention"](image)
    word, weights = captioners["attention"].attention(image, caption)[1]
    largest = f"{100 * weights.max():.0f} %"
    tab.locator("#answer .model >> nth=0 >> li >> nth=0 >> .word >> nth=1").hover()
    tab.wait_for_selector("#answer canvas.on")
    text = tab.locator("#answer figcaption").text_content()
    assert text == f"Attention for “{word}” (brightest: {largest})"
    alpha = tab.evaluate(
        """() => {
            const canvas = document.querySelector("#answer canvas");
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [...pixels.data].filter((_, at) => at % 4 === 3);
        }"""
    )
    expected = 255 * (1 - brightness(weights))
    assert alpha == pytest.approx(expected.flatten().tolist(), abs=2)
    overlay, shown = (tab.locator(f"#answer {part}").bounding_box() for part in ("canvas", "img"))
    assert overlay == pytest.approx(shown)
    # An encoder that crops sees a square in the middle of the 120 x 80 pixels.
    tab.evaluate("document.querySelector('#answer .model').dataset.crop = '50cqmin'")
    tab.locator("#answer .model >> nth=0 >> li >> nth=0 >> .word >> nth=0").hover()
    square, (width, height) = (shown["height"] / 2, (shown["width"], shown["height"]))
    middle = {"x": shown["x"] + (width - square) / 2, "y": shown["y"] + (height - square) / 2}
    expected = middle | {"width": square, "height": square}
    assert tab.locator("#answer canvas").bounding_box() == pytest.approx(expected, abs=0.1)
    tab.mouse.move(0, 0)
    tab.wait_for_selector("#answer canvas:not(.on)", state="attached")


def test_the_arrow_keys_reach_every_word(tab, image):
    upload_one(tab, image)
    caption = tab.locator("#answer .model >> nth=0 >> li p >> nth=0")
    words = caption.locator(".word").all_text_contents()
    caption.focus()
    for word in words:
        tab.keyboard.press("ArrowRight")
        assert f"Attention for “{word}” (" in tab.locator("#answer figcaption").text_content()


def test_a_sample_can_be_picked(tab):
    assert tab.locator("#answer .image img").get_attribute("alt") == "camera.png"
    tab.locator(".samples button").nth(3).click()
    tab.wait_for_selector("#answer .image img[alt='chelsea.png']")


def test_the_search_can_be_chosen(tab, image, captioners):
    upload_one(tab, image)
    tab.get_by_label("greedy").check(force=True)
    tab.wait_for_function(f"{CAPTIONS} === 2")
    beam = captioners["attention"]
    greedy = Captioner(beam.encoder, beam.decoder, beam.vocabulary, greedy_search)
    assert captions(tab) == rounded(greedy.alternatives(image))
    assert not tab.get_by_label("number input for Beam width").is_visible()
    tab.get_by_label("sampling").check(force=True)
    tab.wait_for_function(f"{CAPTIONS} > 2")
    assert tab.get_by_label("number input for Temperature").is_visible()
    first = captions(tab)[0][-1]
    tab.get_by_role("button", name="Draw again").click()
    tab.wait_for_function(
        "first => !document.querySelector('#answer').innerText.includes(first)", arg=first
    )


def test_the_beam_can_be_wider(tab, image):
    upload_one(tab, image)
    slider = tab.get_by_label("range slider for Beam width")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    tab.mouse.click(1, 1)
    slider.dispatch_event("pointerup")
    tab.wait_for_function(f"{CAPTIONS} === 14")


def test_a_model_can_be_left_out(tab):
    tab.get_by_label("attention").uncheck()
    tab.wait_for_function("document.querySelectorAll('#answer .model').length === 1")
    assert tab.locator("#answer h2").all_text_contents() == ["lstm"]
    assert "no attention to show" in tab.locator("#answer .note").text_content()
    tab.get_by_label("lstm").uncheck()
    assert tab.locator("#answer .problem").text_content() == "Choose a model."


def test_an_error_is_a_sentence_and_the_next_image_has_a_caption(tab, tmp_path, image):
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.jpg", "PNG")
    upload(tab, tmp_path / "bomb.jpg")
    problem = tab.locator("#answer .problem")
    problem.wait_for()
    assert re.match(r"bomb\.jpg cannot be read.*400000000 pixels", problem.text_content())
    tab.get_by_label("Clear").first.click()
    tab.wait_for_selector("#answer .hint")
    upload_one(tab, image)


def test_a_file_that_is_too_large_is_refused_by_a_sentence(tab, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(21_000_000))
    upload(tab, tmp_path / "large.jpg")
    toast = tab.get_by_test_id("toast-body")
    toast.wait_for()
    assert "large.jpg" in toast.text_content()
    assert "20.0 Mb" in toast.text_content()


def test_several_images_become_a_csv(tab, tmp_path):
    paths = [tmp_path / f"{at:02}.png" for at in range(20)]
    for at, path in enumerate(paths):
        Image.new("RGB", (40, 30), (12 * at, 90, 200 - 9 * at)).save(path)
    paths[5].write_text("a letter")
    upload(tab, *paths)
    with tab.expect_download() as download:
        tab.get_by_text("Save captions.csv").click()
    assert download.value.suggested_filename == "captions.csv"
    assert "05.png cannot be read" in tab.locator("#answer .problem").text_content()
    header, *rows = download.value.path().read_text(encoding="utf-8").splitlines()
    assert header == "image,attention,lstm"
    assert len(rows) == 19 and rows[0].startswith("00.png,")


def test_visitors_who_leave_hold_up_nobody(browser, server, tmp_path, image):
    slow = tmp_path / "slow.png"  # a minute's work, were it not given up
    Image.linear_gradient("L").convert("RGB").resize((4000, 4000)).save(slow, compress_level=1)
    paths = [shutil.copy(slow, tmp_path / f"{at}.png") for at in range(120)]
    for _ in range(2):  # as many as are served at once
        with visit(browser, server.url) as leaving:
            upload(leaving, *paths)
            leaving.wait_for_selector("#answer progress")
    with visit(browser, server.url) as staying:
        start = time.monotonic()
        upload_one(staying, image)
        assert time.monotonic() - start < 15


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_follows_the_colour_scheme(browser, server, width, scheme):
    """Models are side by side where there is room, else one below the other."""
    size = {"width": width, "height": 844}
    with visit(browser, server.url, viewport=size, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        first, second = (box.bounding_box() for box in tab.locator("#answer .model").all())
        assert (first["x"] == second["x"], first["y"] == second["y"]) == (width < 820, width > 820)
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        lightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (lightness < 60) == (scheme == "dark")
        assert tab.locator("footer").count() == 0 or not tab.locator("footer").is_visible()
        tab.locator("#answer .word").first.hover()
        assert tab.locator("#answer canvas.on").count() == 1


def test_the_server_connects_to_no_other_machine(tab, server):
    assert set(server.hosts.read_text().split()) <= LOOPBACK


def test_uploads_are_deleted_at_the_end(browser, checkpoints, tmp_path, image):
    running = Server(tmp_path, f"ckpt={checkpoints[0]}")
    with visit(browser, running.url) as tab:
        upload_one(tab, image)
        assert not tab.get_by_label("Rerank by training images").is_visible()
    assert list(running.temporary.rglob("holiday*"))
    assert "Traceback" not in running.stop()
    assert running.process.returncode == 0
    assert not list(running.temporary.rglob("*"))


def test_with_data_captions_are_reranked_after_any_search(
    browser, checkpoints, folder, tmp_path, image
):
    running = Server(tmp_path, f"ckpt={checkpoints[1]}", f"data={folder / 'data'}")
    unit = "document.querySelector('#answer .model header span').textContent"
    with visit(browser, running.url) as tab:
        upload_one(tab, image)
        assert tab.evaluate(unit) == "score by training images"
        assert tab.get_by_label("number input for Beam width").input_value() == "50"
        tab.get_by_label("Rerank by training images").uncheck()
        tab.wait_for_function(f"{unit} === 'log-probability per word'")
        tab.get_by_label("sampling").check(force=True)
        tab.wait_for_function(f"{unit} === 'log-probability'")
        tab.get_by_label("Rerank by training images").check()
        tab.wait_for_function(f"{unit} === 'score by training images'")
    running.stop()
