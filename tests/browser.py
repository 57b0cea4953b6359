"""A real browser for pages: Debian's chromium, driven by Playwright; nothing is downloaded."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium")


@contextmanager
def launched():
    """Start the browser; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def opened(path, **options):
    """Open a page from disk; an error of its scripts or a failed request fails the test."""
    with launched() as browser:
        page = browser.new_page(**options)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto(path.as_uri())
        yield page
    assert not errors
