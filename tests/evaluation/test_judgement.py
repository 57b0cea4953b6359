"""A release of two images in the original format, and tau by counting pairs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.evaluation.judgement import Judged, agreement, read_crowd, read_expert

FILES = {
    "Flickr8k.token.txt": "dog.jpg#0\tA dog runs .\ndog.jpg#1\tA brown dog .\n"
    "cat.jpg.1#0\tA cat\u2028sleeps .\ncat.jpg.1#1\tA grey cat .\n",
    "ExpertAnnotations.txt": "dog.jpg\tcat.jpg.1#0\t1\t1\t2\ndog.jpg\tdog.jpg#1\t4\t4\t4\n"
    "cat.jpg\tdog.jpg#0\t1\t2\t2\n",
    "CrowdFlowerAnnotations.txt": "dog.jpg\tcat.jpg.1#1\t0.25\t1\t3\ndog.jpg\tdog.jpg#1\t1\t3\t0\n",
}


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "Flickr8k_text"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    return tmp_path


def test_experts_judge_captions_that_are_no_reference(release):
    judged = read_expert(release)
    dog, cat = ["A dog runs .", "A brown dog ."], ["A cat\u2028sleeps .", "A grey cat ."]
    assert judged.hypotheses == [cat[0], dog[0]]
    assert judged.references == [dog, cat]
    assert judged.judgements.tolist() == [[1, 1, 2], [1, 2, 2]]


@pytest.mark.parametrize("folder", [".", "Flickr8k_text"])
def test_a_caption_that_the_crowd_judges_is_no_reference_of_its_image(release, folder):
    judged = read_crowd(release / folder)
    assert judged.hypotheses == ["A grey cat .", "A brown dog ."]
    assert judged.references == [["A dog runs ."]] * 2
    assert judged.judgements.tolist() == [[0.25], [1]]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_says_what_it_is_and_where_it_comes_from(release, name):
    (release / "Flickr8k_text" / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is neither.*captioning\.download flickr8k"):
        read_expert(release)
        read_crowd(release)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog.jpg\tcat.jpg.1#0\t1\t1", r"Annotations.txt:1: 4 columns and not 5"),
        ("dog.jpg\tcat.jpg.1#0\t1\t1\tgood", r":1: .* are not numbers"),
        ("dog.jpg\tcat.jpg.1#7\t1\t1\t1", r":1: .* or no cat.jpg.1#7"),
        ("cow.jpg\tdog.jpg#0\t1\t1\t1", r":1: .* no caption of cow.jpg"),
        ("dog.jpg\tdog.jpg#0\t1\t1\t1", "holds no judgement"),
        ("", "holds no judgement"),
    ],
)
def test_a_line_that_does_not_fit_is_named(release, line, message):
    (release / "Flickr8k_text" / "ExpertAnnotations.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        read_expert(release)


def count_pairs(scores, judgements, variant):
    """Kendall 1938 and 1945, Stuart 1953: pairs in the same order less pairs in the other."""
    pairs = [
        (np.sign(scores[a] - scores[b]), np.sign(judgements[a] - judgements[b]))
        for a, b in combinations(range(len(scores)), 2)
    ]
    difference = sum(first * second for first, second in pairs)
    if variant == "b":
        return difference / np.sqrt(np.prod([sum(side != 0) for side in np.array(pairs).T]))
    fewest = min(len(set(scores)), len(set(judgements)))
    return 2 * difference / (len(scores) ** 2 * (fewest - 1) / fewest)


JUDGEMENTS = st.lists(st.integers(1, 4), min_size=3, max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6]), JUDGEMENTS), min_size=2, max_size=8)
)
def test_agreement_counts_each_judgement_as_a_pair_of_its_own(rows):
    scores, judgements = zip(*rows, strict=True)
    nothing = [""] * len(rows)
    judged = Judged(nothing, nothing, [nothing] * len(rows), np.array(judgements, float))
    repeated, flat = np.repeat(scores, 3), judged.judgements.ravel()
    for variant in "bc":
        if len(set(scores)) == 1 or len(set(flat)) == 1:
            with pytest.raises(UserError, match="nothing to rank"):
                agreement(scores, judged, variant)
        else:
            expected = count_pairs(repeated, flat, variant)
            assert agreement(scores, judged, variant) == pytest.approx(expected)
