import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning import UserError
from captioning.data.tokenizer import tokenize
from captioning.data.vocabulary import BOS, EOS, SPECIALS, UNK, Vocabulary


def test_specials_are_ids_0_to_3():
    assert Vocabulary.from_captions(["a dog"]).words[:4] == list(SPECIALS)


def test_rare_words_become_unk():
    vocabulary = Vocabulary.from_captions(["a dog", "a cat"], min_count=2)
    assert vocabulary.words[4:] == ["a"]
    assert vocabulary.encode("a dog") == [BOS, 4, UNK, EOS]


def test_equal_counts_are_in_the_order_of_the_alphabet():
    vocabulary = Vocabulary.from_captions(["zebra apple", "mango"])
    assert vocabulary.words[4:] == ["apple", "mango", "zebra"]


def test_decode_stops_at_eos():
    vocabulary = Vocabulary.from_captions(["a dog runs"])
    tokens = vocabulary.encode("a dog") + vocabulary.encode("runs")
    assert vocabulary.decode(tokens) == "a dog"


def test_text_that_looks_like_a_special_token_is_no_special_token():
    assert EOS not in Vocabulary.from_captions(["a <eos> b"]).encode("a <eos> b")[1:-1]


def test_no_word_left_is_an_error_that_names_the_option():
    with pytest.raises(UserError, match=r"datamodule\.min_count"):
        Vocabulary.from_captions(["a dog"], min_count=2)


@pytest.mark.parametrize("words", [["a"], [*SPECIALS, "a", "a"], [*SPECIALS[::-1]]])
def test_other_words_are_refused(words):
    with pytest.raises(UserError, match="a vocabulary"):
        Vocabulary(words)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_the_words_alone_make_the_same_vocabulary(captions):
    try:
        vocabulary = Vocabulary.from_captions(captions)
    except UserError:
        return
    copy = Vocabulary(vocabulary.words)
    assert copy.sha256 == vocabulary.sha256
    for caption in captions:
        special = {*SPECIALS} & {*tokenize(caption)}  # "<BOS>" spells one, and is unknown
        assert (UNK in copy.encode(caption)) == bool(special)
