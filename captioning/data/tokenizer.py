"""Split captions into lower-case words as coco-caption does, and join words into readable text.

Training and scoring use the same words: those of the Penn Treebank rules of Stanford's
PTBTokenizer 3.4.1 (-preserveLines -lowerCase), without the punctuation list of pycocoevalcap. Its
quirks stay because scores depend on them: "(" becomes "-lrb-" and stays, "!!" stays, "dog.The" is
one word, "a." at the end of a sentence stays an initial.
"""

import re
import unicodedata
from collections.abc import Sequence

PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

# What Stanford rewrites before it looks for words. Curly quotes and long dashes join the ASCII
# ones; a soft hyphen is dropped; zero-width marks and control characters separate words.
REWRITE = str.maketrans(
    {
        **dict.fromkeys("’‘‛‹›", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("–—―", " -- "),
        **dict.fromkeys("\u200b\u200d\ufeff\ufffd", " "),
        **dict.fromkeys([*range(32), 127], " "),
        **{"\u00ad": "", "…": " ... ", "£": " # ", "€": " $ ", "¢": " cents "},
        **{"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 "},
    }
)
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
SPLIT = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"]}
SPLIT |= {"wanna": ["wan", "na"], "gimme": ["gim", "me"], "lemme": ["lem", "me"]}

ABBREVIATIONS = (
    "adm|al|apr|assn|aug|ave|blvd|bros|calif|capt|cf|co|col|conn|corp|ct|dec|dept|det|dr|etc|"
    "feb|fla|fri|ft|ga|gen|gov|hon|inc|jan|jr|jul|jun|lt|ltd|maj|mar|messrs|mich|minn|mon|mr|"
    "mrs|ms|mt|natl|nev|nov|oct|pa|pres|prof|rd|rep|rev|sen|sep|sept|sgt|sq|sr|st|supt|tel|thu|"
    "tue|univ|vs|wed"
)
CLITIC = r"(?:s|m|d|ll|re|ve)(?![^\W\d_])"
# Marks that Python does not count as letters: accents, vowel signs of Hebrew, Arabic, Hindi, Thai.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0eff"
# Ordered: the first alternative that matches wins, where Stanford's lexer takes the longest.
TOKEN = re.compile(
    rf"""
      [a-z]+(?=\s)                                       # nearly every word, so first
    | https?://[^\s"<>()]*[^\s"<>().,!?;:'-]             # an address
    | [\w.-]+@\w+(?:\.\w+)+                              # an e-mail address
    | </?[a-z][^<>]*>                                    # a tag, <unk> among them
    | -[lr][rsc]b-                                       # a bracket that is a token already
    | n't(?!\w) | '{CLITIC}                              # do n't, dog 's
    | 't(?=is(?!\w)|was(?!\w)|isn't|wasn't)              # 't is, 't was
    | 'n' | '(?:n|em|till?|cause)(?!\w)                  # rock 'n' roll, 'em
    | (?<!\d)'(?:[2-9]0s|\d\d)(?!\w)                     # '80s, '08
    | y'(?=all(?!\w)) | more(?='n(?!\w))                 # y' all, more 'n
    | (?:{ABBREVIATIONS})\.(?!\w)                        # mr.
    | nos?\.(?=\s*\d)                                    # no. 1
    | [^\W_]+?(?=n't(?!\w))                              # the "do" of don't
    | [ldjo]'(?!{CLITIC})[^\W\d_]+(?:-\w+)*              # o'clock, d'or
    | [^\W\d_]+[aeiouy]'(?!{CLITIC})(?-i:[aeiouA-Z])[^\W\d_]* # ma'am, Hawai'i
    | (?:cap'n|c'mon|s'mores|li'l|ne'er|e'er)(?!\w)
    | (?:ol|somethin)'(?!\w)
    | (?-i:[A-Z]+(?:&[A-Z]+)+)                           # AT&T
    | [a-z0-9]+(?:-[a-z0-9]+)*(?:/[a-z0-9]+(?:-[a-z]+)*)+(?!\w) # and/or, 1/2
    | [a-z0-9][a-z0-9.,]*(?:-[a-z0-9]+)+(?![^\W_])       # t-shirt, U.S.-based, wet,snow-covered
    | (?:[a-z]\.)+(?!\w)                                 # U.S., J. Smith
    | [^\W\d_]\w*(?:[.!?][^\W\d_]\w*)+(?:-\w+)*          # two sentences run together: dog.The
    | [-+]?(?:\d+(?:[.,:]\d+)+|[.,]\d+(?:[.,:]\d+)*)     # 1,000 10:30 .5 -2.5
    | [-+]\d+(?!\w)                                      # +5
    | [#@][^\W\d]\w*                                     # #hashtag, @name
    | (?!_)[\w{MARKS}]+(?:-[\w{MARKS}]+)*(?<!_)          # every other word
    | &\#\d+; | -+ | \.+ | [!?]+ | \*+ | _+ | \#+ | << | >> | `` | ''
    | [^\s\U00010000-\U0010ffff]                         # emoji vanish
    """,
    re.VERBOSE | re.IGNORECASE,
)


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption as coco-caption counts them; [] where there is none."""
    text = unicodedata.normalize("NFC", caption).translate(REWRITE)
    text = re.sub(r"&\w+;", lambda match: ENTITIES.get(match[0].lower(), match[0]), text)
    words = []
    for token in TOKEN.findall(text):
        token = BRACKETS.get(token, token.lower())
        words += SPLIT.get(token, [token])
    return [word for word in words if word not in PUNCTUATION and word.strip('-."')]


def detokenize(words: Sequence[str]) -> str:
    """Join words into readable text, which `tokenize` splits into the same words."""
    text = f" {' '.join(words)} "
    text = re.sub(r"( [^\W\d_]+) n't(?= )", r"\1n't", text)
    text = re.sub(rf"(?<=[\w.]) ('{CLITIC})(?= )", r"\1", text)
    text = re.sub(r" (y'|'t) ", r" \1", text)
    for word, parts in SPLIT.items():
        text = text.replace(f" {' '.join(parts)} ", f" {word} ")
    for bracket, token in BRACKETS.items():
        text = text.replace(f"{token} " if bracket in "([{" else f" {token}", bracket)
    return text.strip()
