from PIL import Image

from captioning.training.curves import draw_curves, panels


def test_curves_have_a_panel_for_what_was_logged(tmp_path):
    histories = [{0: {"val/loss": 1.0}}, {0: {"val/loss": 1.0}, 1: {"val/cider": 1.0}}]
    widths = []
    for history in histories:
        draw_curves(tmp_path / "curves.png", "run", history, best=0)
        with Image.open(tmp_path / "curves.png") as image:
            widths.append(image.width)
    assert widths[1] == 2 * widths[0]


def test_scores_are_drawn_x100_and_rates_and_losses_as_they_are(tmp_path, monkeypatch):
    drawn = {}

    def plot(axes, values, label):
        drawn[label] = values[0]

    monkeypatch.setattr("matplotlib.axes.Axes.plot", plot)
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda axes: None)
    logged = {"val/loss": 2.0, "val/cider": 0.5, "train/reward": 0.5, "learning_rate": 0.25}
    draw_curves(tmp_path / "curves.png", "run", {0: logged})
    assert drawn == {"val/loss": 2.0, "cider": 50.0, "train/reward": 50.0, "learning_rate": 0.25}


def test_nothing_logged_draws_nothing(tmp_path):
    draw_curves(tmp_path / "curves.png", "run", {0: {"epoch": 1.0}})
    draw_curves(tmp_path / "curves.png", "run", {})
    assert not (tmp_path / "curves.png").exists()


def test_a_score_that_was_added_is_drawn(added):
    assert panels()["scores x100"][:3] == ["val/letters", "val/cider", "val/bleu4"]
