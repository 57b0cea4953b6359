import re
from unittest.mock import Mock

import numpy as np
import pytest
from browser import launched

from captioning.data.records import Record
from captioning.evaluation.results import make_results
from captioning.evaluation.scoring import BootstrapScores, Scorer, System
from captioning.web.report import write_report

EVIL = "<script>alert(1)</script>"
REFERENCES = [
    ["a dog runs", "the dog " + 50 * "runs", f"a brown dog {EVIL}"],
    ["a red car"] * 3,
] * 2
RECORDS = [Record(f"{EVIL}{at}", "gone.jpg", tuple(r), "val") for at, r in enumerate(REFERENCES)]
CONTENT = {
    "confidence": [],
    "pictures": 4,
    "split": "val",
    "search": {"_target_": "captioning.search.beam.beam_search", "width": 5},
    "rerank": {"_target_": "captioning.search.rerank.NeighbourRerank"},
    "seconds": 1.0,
    "hardware": {"device": "an abacus"},
    "started": "2026-11-25T12:00:00",
    "commit": None,
    "dirty": True,
}


def system(label, **corpus):
    corpus |= {"cider": 0.5, "words": 3.0, "distinct": 1.0}
    per_image = {key: np.array([0.1, 0.4, 0.3, 0.2]) for key in ("cider", "bert_similarity")}
    sampled = {key: np.linspace(0, 1, 100) for key in corpus if key not in ("words", "distinct")}
    measured = BootstrapScores(corpus, per_image, sampled)
    return System(label, ["a dog", EVIL, "a car", ""], measured, measured)


def report(path, *systems, rounds=3):
    scorer = Mock(
        spec=Scorer, records=RECORDS, references=REFERENCES, rounds=rounds, fewest=3, most=3
    )
    described = [{"label": one.label, "checkpoints": [{"path": f"{EVIL}.ckpt"}]} for one in systems]
    content = CONTENT | make_results(scorer, systems, systems[0].scores if rounds else None)
    write_report(path, scorer, systems, {"dog"}, content | {"systems": described})
    return path.read_text(encoding="utf-8")


def test_labels_captions_words_and_paths_are_escaped(tmp_path):
    page = report(tmp_path / "report.html", system(f"{EVIL}1"), system(f"{EVIL}2"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.ckpt" in page
    assert page.count("the image cannot be read") == 4
    assert "beam_search width=5 and NeighbourRerank · 1 s on an abacus" in page


def test_an_added_score_has_a_column(tmp_path, added):
    page = report(tmp_path / "report.html", system("ours", letters=12.0))
    assert re.search(r"<th>letters ↓</th>\s*<th>CIDEr-D</th>", page)
    assert "<b>12.0</b><small>± 0.5</small>" in page


@pytest.mark.parametrize("rounds", [0, 3])
def test_human_captions_are_compared_with_where_there_are_references_to_spare(tmp_path, rounds):
    page = report(tmp_path / "report.html", system("ours"), rounds=rounds)
    assert ("<small>100%</small>" in page) == ("against 2 references" in page) == bool(rounds)
    assert "Who is better" not in page


@pytest.mark.slow
def test_long_names_and_many_scores_fit(tmp_path):
    keys = [
        "bleu1",
        "bleu2",
        "bleu3",
        "bleu4",
        "rouge_l",
        "meteor",
        "spice",
        "semantic",
        "bert_similarity",
    ]
    names = ["a_long_name_of_what_was_trained " * 2 + str(number) for number in range(3)]
    report(tmp_path / "report.html", *(system(name, **dict.fromkeys(keys, 0.5)) for name in names))
    with launched() as browser:
        page = browser.new_page()
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.goto((tmp_path / "report.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("document.querySelector('header').offsetHeight") < 844
        page.set_viewport_size({"width": 1280, "height": 844})
        tables = "[...document.querySelectorAll('.table')]"
        assert page.evaluate(f"{tables}.every(table => table.scrollWidth <= table.clientWidth)")
