"""The gallery, as a reader of it uses it: in a browser, from disk, by keyboard."""

import pytest
from browser import opened
from PIL import Image

from captioning.data.records import Record
from captioning.training.validation import Generated
from captioning.web.gallery import write_gallery

pytestmark = pytest.mark.slow
IMAGES = 1000
SHOWN = ".cards > li:not([hidden])"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A page of a thousand images, moved with its folder to another place."""
    folder = tmp_path_factory.mktemp("gallery")
    rows = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        Image.new("RGB", (32, 24), (number % 256, number // 4, 128)).save(path)
        caption = f"a {'dog' if number % 10 == 0 else 'cat'} on image {number}"
        record = Record(path.name, str(path), ("a reference",), "val")
        rows.append(Generated(record, caption, {"cider": (number * 7) % IMAGES / IMAGES}))
    write_gallery(folder / "gallery.html", "run", {"images": IMAGES}, rows)
    return folder.rename(folder.with_name("moved")) / "gallery.html"


@pytest.fixture
def page(gallery):
    with opened(gallery) as page:
        yield page


def captions(page):
    return page.locator(f"{SHOWN} .caption").all_inner_texts()


def focused(page):
    return page.evaluate("document.activeElement.querySelector?.('.caption')?.textContent")


def test_only_images_near_the_screen_are_loaded(page):
    loaded = page.evaluate("[...document.images].filter(image => image.naturalWidth > 0).length")
    assert 0 < loaded < 200
    page.locator(".cards > li").last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].at(-1).naturalWidth > 0")


def test_words_filter_and_scores_sort(page):
    page.keyboard.press("/")
    page.keyboard.type("dog 99")
    assert captions(page) == ["a dog on image 990"]
    assert page.locator("#count").inner_text() == "1 of 1,000 images"
    page.keyboard.press("Escape")
    page.locator("#sort").select_option(label="cider, highest first")
    assert captions(page)[:2] == ["a cat on image 857", "a cat on image 714"]
    assert len(captions(page)) == IMAGES


def test_arrows_walk_through_the_images(page):
    page.keyboard.press("ArrowRight")
    assert focused(page) == "a dog on image 0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("columns()")
    assert columns > 1
    assert focused(page) == f"a cat on image {1 + columns}"
    page.keyboard.press("End")
    assert focused(page) == "a cat on image 999"
    assert page.locator(".cards > li").last.is_visible()


def test_references_can_be_hidden(page):
    references = page.locator(".references").first
    assert references.is_visible()
    page.keyboard.press("r")
    assert not references.is_visible()
    page.locator("#references").click()
    assert references.is_visible()


def test_a_phone_shows_one_column_and_nothing_wider_than_itself(gallery):
    with opened(gallery, viewport={"width": 390, "height": 844}) as page:
        assert page.evaluate("columns()") == 1
        assert page.evaluate("document.documentElement.scrollWidth") == 390
