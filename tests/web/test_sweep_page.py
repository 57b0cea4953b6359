import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from sweeps_writing import write_run

from captioning.sweeps.importance import importance
from captioning.sweeps.runs import read_runs
from captioning.sweeps.summary import rank_configs, write_summary
from captioning.web import sweep_plots as plots
from captioning.web.plots import COLOURS, INKS
from captioning.web.report import STYLE
from captioning.web.sweep_page import write_sweep_page


def page(folder):
    write_summary(folder)
    write_sweep_page(folder)
    return (folder / "summary.html").read_text()


def test_a_page_holds_all_and_fetches_nothing(sweep):
    text = page(sweep)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE.*?>', "", text)
    assert "<script" not in text
    # Curves of the score, the score by model, size and parameters, and by pace; then the rest.
    assert text.count("<svg") == 1 + 4 + 1 + 1
    assert "9 jobs: 1 failed, 8 finished" in text


def test_a_setting_may_be_called_as_a_part_of_run_json(tmp_path):
    for name, score in (("lite0", 0.5), ("lite2", 0.6)):
        content = {"encoder": {"name": name}}
        write_run(tmp_path / name, [f"encoder={name}"], 1, score, **content)
    write_summary(tmp_path)
    write_sweep_page(tmp_path)
    assert "cider by encoder" in (tmp_path / "summary.html").read_text(encoding="utf-8")


def test_what_failed_is_on_the_page_with_its_traceback(sweep):
    text = page(sweep)
    assert "failed: no &lt;size&gt;" in text
    assert "Traceback &lt;here&gt;" in text


def test_elements_are_closed(sweep):
    class Closed(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "link", "wbr", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Closed()
    parser.feed(page(sweep))
    assert not parser.open


def test_too_little_for_a_plot_is_said(tmp_path):
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
        lambda groups: plots.parallel(groups, ["model", "model.hidden_dim"], "cider"),
        lambda groups: plots.bars(importance(groups, ["model", "model.hidden_dim"], "cider")),
    ],
)
def test_plots_are_figures_for_a_notebook(sweep, draw):
    figure = draw(rank_configs(read_runs([sweep])))
    assert isinstance(figure, Figure)
    assert figure.axes[0].lines or figure.axes[0].patches


def test_curves_are_the_runs_histories(sweep):
    axes = plots.curves(rank_configs(read_runs([sweep])), "val/cider").axes[0]
    assert len(axes.lines) == 8
    assert axes.lines[0].get_ydata() == pytest.approx([18.7, 37.4])
    assert axes.lines[0].get_color() == axes.lines[1].get_color() == COLOURS[0]


def test_a_seventh_config_is_pale():
    assert plots.look(5)["color"] == COLOURS[5]
    assert plots.look(6)["color"] == INKS["soft"]


def test_names_and_few_numbers_stand_in_order():
    place, (at, texts) = plots.scale([512, 64, 64, 128])
    assert (at, texts) == ([0, 1, 2], ["64", "128", "512"])
    assert place(512) == 2
    assert plots.scale(["merge", None, "lstm"])[1][1] == ["–", "lstm", "merge"]
    assert plots.scale([one / 7 for one in range(7)])[1] is None


def test_scores_stand_at_their_distances_with_a_digit(sweep):
    groups = rank_configs(read_runs([sweep]))
    axes = plots.parallel(groups, ["model", "model.hidden_dim"], "cider").axes[0]
    heights = sorted(line.get_ydata()[-1] for line in axes.lines if len(line.get_xdata()) == 3)
    assert heights == pytest.approx([0, 48 / 248, 200 / 248, 1])
    texts = [text.get_text() for text in axes.texts if text.get_position()[0] > 2]
    assert texts == ["13.1", "37.9"]
    dots = plots.scatter(groups, "loss", "cider").axes[0]
    assert {line.get_xdata()[0] for line in dots.lines} == {2.0}


def test_a_drawn_setting_has_four_digits():
    assert plots.scale([0.0012345678901, 0.3, None])[1][1] == ["0.001235", "0.3", "–"]
    assert plots.scale([0.12345, 0.12346])[1][1] == ["0.12345", "0.12346"]


def test_the_colours_are_those_of_the_light_page():
    light = STYLE.read_text().split("@media")[0]
    names = {name: f"--{name}: {colour}" for name, colour in INKS.items()}
    names |= {str(at): f"--series-{at}: {colour}" for at, colour in enumerate(COLOURS)}
    assert [name for name in names.values() if name not in light] == []
