import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from sweeps_writing import write_run

from captioning.sweeps.importance import importance
from captioning.sweeps.runs import read_runs
from captioning.sweeps.summary import rank_configs
from captioning.web import sweep_plots as plots
from captioning.web.plots import COLOURS, INKS
from captioning.web.sweep_page import write_sweep_page

KEYS = ["model", "model.hidden_dim"]


def page(folder):
    write_sweep_page(folder)
    return (folder / "summary.html").read_text(encoding="utf-8")


@pytest.fixture
def groups(sweep):
    return rank_configs(read_runs([sweep]))


def test_a_page_holds_all_and_fetches_nothing(sweep):
    text = page(sweep)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE.*?>', "", text)
    assert "<script" not in text
    # Curves of the score, the score by model, size, parameters and pace, then the other two.
    assert text.count("<svg") == 1 + 4 + 1 + 1
    assert "9 jobs: 1 failed, 8 finished" in text
    assert "failed: no &lt;size&gt;" in text
    assert "Traceback &lt;here&gt;" in text


def test_a_setting_may_have_the_name_of_a_key_of_run_json(tmp_path):
    for name, score in (("lite0", 0.5), ("lite2", 0.6)):
        write_run(tmp_path / name, [f"encoder={name}"], 1, score, encoder={"name": name})
    assert "cider by encoder" in page(tmp_path)


def test_elements_are_closed(sweep):
    class Closed(HTMLParser):
        open = ()

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "link", "wbr", "br"):
                self.open = (*self.open, tag)

        def handle_endtag(self, tag):
            assert self.open[-1] == tag
            self.open = self.open[:-1]

    parser = Closed()
    parser.feed(page(sweep))
    assert not parser.open


def test_what_a_plot_needs_is_said_where_there_is_too_little(tmp_path):
    write_run(tmp_path / "sweep" / "a", ["x=1"], 1, 0.5)
    text = page(tmp_path / "sweep")
    assert text.count('<p class="none">') == 4
    assert "<svg" not in text


@pytest.mark.parametrize(
    "draw",
    [
        lambda groups: plots.curves(groups, "val/cider"),
        lambda groups: plots.scatter(groups, "model.hidden_dim", "cider"),
        lambda groups: plots.scatter(groups, "trained_parameters", "cider"),
        lambda groups: plots.parallel(groups, KEYS, "cider"),
        lambda groups: plots.bars(importance(groups, KEYS, "cider")),
    ],
)
def test_plots_are_figures_for_a_notebook(groups, draw):
    figure = draw(groups)
    assert isinstance(figure, Figure)
    assert figure.axes[0].lines or figure.axes[0].patches


def test_curves_are_the_histories_of_the_runs(groups):
    lines = plots.curves(groups, "val/cider").axes[0].lines
    assert len(lines) == 8
    assert lines[0].get_ydata() == pytest.approx([18.7, 37.4])
    assert lines[0].get_color() == lines[1].get_color() == COLOURS[0]


def test_a_seventh_config_is_pale():
    assert plots.rank_style(5)["color"] == COLOURS[5]
    assert plots.rank_style(6)["color"] == INKS["soft"]


def test_names_and_few_numbers_stand_in_order():
    place, (places, texts) = plots.setting_scale([512, 64, 64, 128])
    assert (places, texts) == ([0, 1, 2], ["64", "128", "512"])
    assert place(512) == 2
    assert plots.setting_scale(["merge", None, "lstm"])[1][1] == ["–", "lstm", "merge"]
    assert plots.setting_scale([number / 7 for number in range(7)])[1] is None


def test_ticks_have_four_digits():
    texts = plots.setting_scale([0.0012345678901, 0.3, None])[1][1]
    assert texts == ["0.001235", "0.3", "–"]


def test_scores_stand_at_their_distances_with_a_digit(groups):
    axes = plots.parallel(groups, KEYS, "cider").axes[0]
    heights = sorted(line.get_ydata()[-1] for line in axes.lines if len(line.get_xdata()) == 3)
    assert heights == pytest.approx([0, 48 / 248, 200 / 248, 1])
    texts = [text.get_text() for text in axes.texts if text.get_position()[0] > 2]
    assert texts == ["13.1", "37.9"]
    dots = plots.scatter(groups, "loss", "cider").axes[0]
    assert {line.get_xdata()[0] for line in dots.lines} == {2.0}
