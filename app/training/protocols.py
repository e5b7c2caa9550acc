"""How published tables treat texts before they measure: the same here, so that their numbers can stand beside ours.

ROUGE itself, in all of them, lower-cases, stems, and knows letters and digits only: "#" and "<" count for nothing.

- plain: texts as they are, ROUGE-1, -2 and -L.
- gigaword: the headlines of Rush et al. (2015, https://arxiv.org/abs/1509.00685), whose code
  (https://github.com/facebookarchive/NAMAS, dataset/process_agiga.py) takes an article's first sentence, tokenised as
  in the Penn Treebank, in lower case, every digit "#". Later papers report the full-length F1 of ROUGE-1.5.5 (`-m -n 2
  -w 1.2`, DUC/eval.sh) on its test set; recall at 75 bytes (`-b 75`) is for DUC 2004 and not offered. Unknown words,
  "<unk>", are the word UNK, as in UniLM (https://github.com/microsoft/unilm, s2s-ft/evaluations/eval_for_gigaword.py);
  ROUGE sees "unk" either way. The model's headline is brought into the same form, so it may be cased.
- cnn_dailymail: See et al. (2017, https://arxiv.org/abs/1704.04368; https://github.com/abisee/pointer-generator,
  decode.py): at most 400 tokens of the article and 120 of the summary, tokenised as in the Penn Treebank, in lower
  case. The reference is the highlights, a sentence a line; the summary is cut into sentences.
  pyrouge's options mean F1 with stemming, and a ROUGE-L over sentences: rouge-score's "rougeLsum". Tokens that are
  counted for the limits are words between white space; the model reads fewer where it was trained to.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from nltk.tokenize.treebank import TreebankWordTokenizer

from app.training.baselines import sentence, sentences

ARTICLE_TOKENS, SUMMARY_TOKENS = 400, 120
DIGIT = re.compile(r"\d")
UNKNOWN = re.compile(r"<unk>|\[unk\]", re.IGNORECASE)
LINES = re.compile(r"\s*\n\s*|(?<=\s[.!?])\s+")  # the full stop of a highlight stands alone
LEFT, RIGHT = "\ue000", "\ue001"  # of no alphabet
_treebank = TreebankWordTokenizer()


def same(text: str) -> str:
    return text


@dataclass(frozen=True)
class Protocol:
    """What happens to an article before it is read, to a reference and to a headline before they are measured."""

    name: str
    article: Callable[[str], str] = same
    reference: Callable[[str], str] = same
    headline: Callable[[str], str] = same
    kinds: tuple[str, ...] = field(default=("rouge1", "rouge2", "rougeL"))


def gigaword(text: str) -> str:
    """Penn Treebank tokens in lower case, every digit "#"; text that is in this form already stays as it is."""
    # A "#" is a digit once more until it is tokenised: "#.#" would fall apart.
    tokens = tokenised(UNKNOWN.sub("UNK", text).replace("#", "0"))
    return DIGIT.sub("#", tokens)


def gigaword_article(article: str) -> str:
    return gigaword(sentence(article))


def cnn_article(article: str) -> str:
    return _cut(article, ARTICLE_TOKENS)


def highlights(reference: str) -> str:
    """Its sentences, a line each; they are found again where its line breaks are lost."""
    return "\n".join(map(tokenised, LINES.split(reference.strip())))


def summary(headline: str) -> str:
    """Its sentences, a line each, at most 120 tokens."""
    return "\n".join(map(tokenised, sentences(_cut(headline, SUMMARY_TOKENS))))


def tokenised(text: str) -> str:
    """Penn Treebank tokens in lower case, a blank between them; quotes that are tokens already stay what they are."""
    tokens = _treebank.tokenize(text.replace("``", LEFT).replace("''", RIGHT))
    return " ".join(tokens).lower().replace(LEFT, "``").replace(RIGHT, "''")


def _cut(text: str, tokens: int) -> str:
    """The text up to so many tokens, as it stands: the model reads no tokenised text."""
    end = 0
    for number, token in enumerate(text.split()):
        if number == tokens:
            return text[:end].rstrip()
        end = text.index(token, end) + len(token)
    return text


PROTOCOLS = {
    "plain": Protocol("plain"),
    "gigaword": Protocol("gigaword", gigaword_article, gigaword, gigaword),
    "cnn_dailymail": Protocol(
        "cnn_dailymail", cnn_article, highlights, summary, kinds=("rouge1", "rouge2", "rougeLsum")
    ),
}
