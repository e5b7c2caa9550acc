"""What every model must beat: headlines that are cut from the article's start. Knows sentences, but no model."""

import re
from itertools import pairwise

FIRST_SENTENCE_WORDS = 10
# Where a sentence ends: behind its mark, before white space and what may begin another; or at a mark that stands alone,
# as in tokenised text. Not behind an initial or an abbreviation.
END = re.compile(
    r"(?<=\s)[.!?](?=\s)"
    r"|(?<!\b[A-Z])(?<!\b(?:Dr|Ft|Jr|Lt|Mr|Ms|No|Sr|St|vs))(?<!\b(?:Col|Gen|Gov|Hon|Mrs|Rep|Rev|Sen|Sgt|Ltd|Inc))"
    r"[.!?…][\"”’')\]]*(?=\s+[\"“‘'(\[]?[A-Z0-9])"
)


def sentence(article: str) -> str:
    """The article's first sentence."""
    end = END.search(article)
    return article[: end.end()] if end else article


def sentences(text: str) -> list[str]:
    """The text's sentences."""
    ends = [end.end() for end in END.finditer(text)]
    parts = [text[start:end].strip() for start, end in pairwise([0, *ends, len(text)])]
    return [part for part in parts if part]


def first_sentence(article: str) -> str:
    """The article's first sentence, of its words at most 10."""
    return lead(sentence(article), FIRST_SENTENCE_WORDS)


def lead(article: str, words: int) -> str:
    """As many words from the article's start."""
    return " ".join(article.split(maxsplit=words)[:words])
