import re
from xml.etree import ElementTree

import numpy as np
import pytest

from captioning.evaluation.breakdowns import scores_by_length
from captioning.web.plots import bands_plot, length_plot, references_plot, shares_plot

LENGTHS = np.array([3, 3, 4, 4, 5])
PLOTS = {
    "length": length_plot("CIDEr-D", [scores_by_length(LENGTHS, np.arange(5.0))] * 2),
    "without a group": length_plot("CIDEr-D", [scores_by_length(LENGTHS[:1], np.ones(1))]),
    "shares": shares_plot("captions", [LENGTHS], LENGTHS + 1),
    "references": references_plot("BLEU-4", [[0.1, 0.2, 0.3]], [0.2, 0.3]),
    "nobody": references_plot("BLEU-4", [[0.1]], None),
    "bands": bands_plot("words", [{1: 0.1, 2: 0.5}]),
}
every_plot = pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)


@every_plot
def test_a_plot_is_one_element_without_a_size_of_its_own(plot):
    root = ElementTree.fromstring(plot)
    assert root.tag.endswith("svg")
    assert "width" not in root.attrib and "viewBox" in root.attrib


@every_plot
def test_every_colour_is_the_pages(plot):
    assert "var(--ink)" in plot
    assert not set(re.findall(r"#[0-9a-f]{6}\b", plot)) - {"#000000"}
    assert "#000000" not in re.sub(r"<defs>.*?</defs>", "", plot, flags=re.DOTALL)


def test_names_do_not_clash_on_a_page():
    clips = [set(re.findall(r'clipPath id="(\w+)"', plot)) for plot in PLOTS.values()]
    assert not clips[0] & clips[3]


def test_a_seventh_system_has_the_first_ones_colour():
    plot = references_plot("BLEU-4", [[0.1, number / 10] for number in range(7)], None)
    assert plot.count("var(--series-0)") > plot.count("var(--series-1)")
