"""`tokenize` equals coco-caption's tokenizer in Java; `detokenize` keeps the words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.data.tokenizer import PUNCTUATION, SPLIT, detokenize, tokenize

# A caption, and below it what Stanford's PTBTokenizer 3.4.1 (-preserveLines -lowerCase) printed for
# it alone, less the PUNCTUATIONS of pycocoevalcap.
LINES = """\
A dog's ball isn't in the dogs' basket.
a dog 's ball is n't in the dogs basket
They can't swim, won't run and don't care; I'm sure we'd've seen it!
they ca n't swim wo n't run and do n't care i 'm sure we 'd 've seen it
I cannot say who's gonna win, "wanna bet?" he says.
i can not say who 's gon na win wan na bet he says
'Tis a rock 'n' roll band from the '80s... isn't it?
't is a rock 'n' roll band from the '80s is n't it
Ma'am, it's 5 o'clock at O'Hare, y'all!
ma'am it 's 5 o'clock at o'hare y' all
The men’s team – in “red” – doesn’t mind…
the men 's team in red does n't mind
Mr. Smith and Dr. Jones live on St. James St. in Washington D.C.
mr. smith and dr. jones live on st. james st. in washington d.c.
The U.S. flag hangs at 10:30 a.m. near J. Park's U.S.-made R.V.
the u.s. flag hangs at 10:30 a.m. near j. park 's u.s.-made r.v.
A man holds a sign with the letter a.
a man holds a sign with the letter a.
A 3-year-old in a t-shirt plays tug-of-war with a 4x4 on the 2nd day.
a 3-year-old in a t-shirt plays tug-of-war with a 4x4 on the 2nd day
1,000 runners (most of them women) pay $5.50, i.e. 50% more.
1,000 runners -lrb- most of them women -rrb- pay $ 5.50 i.e. 50 % more
A bike/scooter shop sells 1/2 price helmets and/or pads w/o straps.
a bike/scooter shop sells 1/2 price helmets and/or pads w/o straps
The No. 7 jersey, the #1 fan, and no. He is 5'10".
the no. 7 jersey the # 1 fan and no he is 5 10
Two dogs--one black,one white--run.The cat sleeps!!
two dogs one black one white run.the cat sleeps !!
Wet,snow-covered hills -- and a half- eaten sandwich - lie there?!
wet,snow-covered hills and a half eaten sandwich lie there ?!
[Caption] {none} <unk> a <b>bold</b> move & AT&T tower
-lsb- caption -rsb- -lcb- none -rcb- <unk> a <b> bold </b> move & at&t tower
Café-goers à l'été drink a piña colada for £5, €6 or 7¢.
café-goers à l'été drink a piña colada for # 5 $ 6 or 7 cents
Visit www.example.com or http://example.org/a?b=1, or mail a@example.org.
visit www.example.com or http://example.org/a?b=1 or mail a@example.org
ONE MAN'S DOG COULDN'T CATCH THE BOY'S FRISBEE.
one man 's dog could n't catch the boy 's frisbee
The boss's, James' and James's dog's
the boss 's james and james 's dog 's
a man_with_a_plan tags @friend #sunset at -5 + 3 = x degrees
a man_with_a_plan tags @friend #sunset at -5 + 3 = x degrees
Dogs&amp;cats: it&apos;s "50/50"; 'quoted' ``twice''
dogs & cats it 's 50/50 quoted twice
A smile 😀 and a ☺ heart
a smile and a ☺ heart
He saw 'em 'til 9. 9 of them, etc. and 2.5 more
he saw 'em 'til 9 9 of them etc. and 2.5 more
एक कुत्ता पानी में कूदता है
एक कुत्ता पानी में कूदता है
""".splitlines()
JAVA = list(zip(LINES[::2], LINES[1::2], strict=True))


@pytest.mark.parametrize(("caption", "words"), JAVA)
def test_words_are_those_of_the_java_tokenizer(caption, words):
    assert tokenize(caption) == words.split()


@pytest.mark.parametrize(("caption", "words"), JAVA)
def test_readable_text_comes_apart_into_the_same_words(caption, words):
    words = words.replace("at&t", "at & t").split()  # Stanford joins it in capitals only
    assert tokenize(detokenize(words)) == words


@pytest.mark.parametrize(
    "caption", ["", " ", ".", " . \n", "\t", '"', "''", "- -- ... !", "\u200b"]
)
def test_caption_without_words_is_an_empty_list(caption):
    assert tokenize(caption) == []


@pytest.mark.parametrize("space", [*"\n\t\r\v\f\0\x7f\x85\xa0\u2003\u2028\u200b\ufeff", "\r\n"])
def test_any_white_space_separates_words(space):
    assert tokenize(f"{space}a{space}dog{space}") == ["a", "dog"]


def test_decomposed_accent_is_the_composed_letter():
    assert tokenize("cafe\u0301") == tokenize("caf\u00e9") == ["caf\u00e9"]


@pytest.mark.parametrize("word", ["<pad>", "<bos>", "<eos>", "<unk>"])
def test_special_token_stays_one_word(word):
    assert tokenize(f"a {word} dog") == ["a", word, "dog"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("a dog 's ball", "a dog's ball"),
        ("they do n't and wo n't", "they don't and won't"),
        ("we 'd 've and i 'm", "we'd've and i'm"),
        ("y' all say 't is 'em", "y'all say 'tis 'em"),
        ("gon na can not got ta", "gonna cannot gotta"),
        ("-lrb- two -rrb- dogs", "(two) dogs"),
        ("the '80s rock 'n' roll", "the '80s rock 'n' roll"),
        ("", ""),
    ],
)
def test_words_become_readable_text(words, text):
    assert detokenize(words.split()) == text


@given(st.lists(st.sampled_from(["a", "dog", "t-shirt", "'s", "n't", "'ll", "can", "not", "u.s."])))
def test_detokenize_keeps_the_words(words):
    assert tokenize(detokenize(words)) == words


@given(st.text() | st.text(alphabet="aB1 .,-'/&!?n't\"<>()#@_"))
def test_words_are_lower_case_and_free_of_space_and_punctuation(caption):
    words = tokenize(caption)
    assert not PUNCTUATION & set(words)
    assert not SPLIT.keys() & set(words)
    assert all(word.strip() and word == word.lower() for word in words)
