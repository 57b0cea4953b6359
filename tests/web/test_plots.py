import re
from xml.etree import ElementTree

import numpy as np
import pytest

from captioning.web.pages import TEMPLATES
from captioning.web.plots import COLOURS, INKS, Line, line_plot

LINE = Line(np.array([3, 4, 5]), np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3]))
PLOTS = {
    "interval": line_plot("CIDEr-D", "words", [LINE, LINE]),
    "one point": line_plot("BLEU-4", "words", [Line([3], [0.5])]),
    "steps": line_plot("% of captions", "words", [LINE], LINE, steps=True),
    "ticks": line_plot("words", "times", [Line([0, 1], [10, 50])], tick_labels=["1", "2"]),
}
every_plot = pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)


@every_plot
def test_a_plot_is_one_element_without_a_size_of_its_own(plot):
    root = ElementTree.fromstring(plot)
    assert root.tag.endswith("svg")
    assert "width" not in root.attrib and "viewBox" in root.attrib


@every_plot
def test_colours_are_variables_of_the_page(plot):
    assert "var(--ink)" in plot
    assert not set(re.findall(r"#[0-9a-f]{6}\b", plot)) - {"#000000"}
    assert "#000000" not in re.sub(r"<defs>.*?</defs>", "", plot, flags=re.DOTALL)


def test_ids_do_not_clash_on_a_page():
    clips = [set(re.findall(r'clipPath id="(\w+)"', plot)) for plot in PLOTS.values()]
    assert clips[0] and not clips[0] & clips[2]


def test_a_seventh_system_has_the_first_colour():
    plot = line_plot("BLEU-4", "references", [Line([0, 1], [0, number]) for number in range(7)])
    assert plot.count("var(--series-0)") > plot.count("var(--series-1)")


def test_the_colours_are_those_of_the_light_page():
    light = (TEMPLATES / "style.css").read_text().split("@media")[0]
    names = [f"--{name}: {colour}" for name, colour in INKS.items()]
    names += [f"--series-{at}: {colour}" for at, colour in enumerate(COLOURS)]
    assert [name for name in names if name not in light] == []
