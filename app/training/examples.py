"""Turns a row of the plan into the tokens of one example. Knows the tokenizer, but no model.

Every example depends on the seed and its own place only, so a training that goes on after a stop sees the same ones.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as Examples
from transformers import PreTrainedTokenizerBase

from app.training.errors import TrainingError
from app.training.plan import Plan, Task
from app.training.recipe import Recipe

SENTENCE_END = re.compile(r"(?<=[.!?][\"”’')\]]) +|(?<=[^.][^.][.!?]) +(?=[A-Z0-9\"“‘'(])")
CHARS_PER_TOKEN = 12  # more characters a token than any article has
STRETCH = 61  # tokens of a text whose holes are filled in
HOLES = 0.3  # of its tokens
HOLE = 3  # tokens of a hole, in the mean
FIRST = 48  # tokens of a first sentence that are written at most


class Tokenised(Examples[dict[str, list[int]]]):
    """The examples of a plan: `input_ids`, `attention_mask` and `labels` of each."""

    def __init__(self, pairs: Dataset, plan: Plan, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, prefix: str):
        self._pairs, self._plan, self._recipe = pairs, plan, recipe
        self._tokenizer, self._prefix = tokenizer, prefix
        self._hole = mask_token(tokenizer) if recipe.infill else None
        self._before, self._after = marks(tokenizer)

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, place: int) -> dict[str, list[int]]:
        pair = self._pairs[int(self._plan.pairs[place])]
        limit, task = int(self._plan.limits[place]), Task(self._plan.tasks[place])
        random = np.random.default_rng((self._recipe.seed, place))
        match task:
            case Task.INFILL:
                return self._infill(pair["article"], random)
            case Task.FIRST_SENTENCE:
                first, rest = split_first(pair["article"])
                return self._example(rest, first, limit, FIRST)
        article = augmented(pair["article"], self._recipe, random)
        return self._example(article, pair["headline"], limit, self._recipe.max_target_tokens)

    def _example(self, text: str, target: str, limit: int, target_limit: int) -> dict[str, list[int]]:
        text = self._prefix + text[: limit * CHARS_PER_TOKEN]
        encoded = self._tokenizer(text, truncation=True, max_length=limit)
        labels = self._tokenizer(text_target=target, truncation=True, max_length=target_limit)
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels["input_ids"],
        }

    def _infill(self, article: str, random: np.random.Generator) -> dict[str, list[int]]:
        """A stretch of the article with holes in, the whole stretch out."""
        text = article[: self._recipe.max_source_tokens * CHARS_PER_TOKEN]
        tokens = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        longest = min(STRETCH, self._recipe.max_source_tokens - len(self._before) - len(self._after))
        start = int(random.integers(0, max(1, len(tokens) - longest)))
        stretch = tokens[start : start + longest]
        inputs, labels = self._framed(with_holes(stretch, self._hole, random)), self._framed(stretch)
        return {"input_ids": inputs, "attention_mask": [1] * len(inputs), "labels": labels}

    def _framed(self, tokens: list[int]) -> list[int]:
        """The tokens between the marks that the tokenizer sets around a text."""
        return [*self._before, *tokens, *self._after]


def marks(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the tokenizer sets before and after the tokens of a text."""
    whole, plain = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(place for place in range(len(whole)) if whole[place : place + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def mask_token(tokenizer: Any) -> int:
    """The token that stands for a hole: the tokenizer's mask, or T5's first sentinel. Raises TrainingError."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    sentinel = tokenizer.get_vocab().get("<extra_id_0>")
    if sentinel is None:
        raise TrainingError("infilling needs a tokenizer with a mask token, and the base's has none")
    return int(sentinel)


def with_holes(tokens: Sequence[int], hole: int | None, random: np.random.Generator) -> list[int]:
    """The tokens with about `HOLES` of them gone, one `hole` for each run (Lewis et al. 2020)."""
    kept: list[int] = []
    place, left = 0, round(HOLES * len(tokens))
    while place < len(tokens):
        if left > 0 and random.random() < HOLES / HOLE * 1.4:
            length = min(left, 1 + int(random.poisson(HOLE - 1)))
            kept.append(hole or 0)
            place, left = place + length, left - length
        else:
            kept.append(tokens[place])
            place += 1
    return kept


def split_first(article: str) -> tuple[str, str]:
    """The first sentence and the rest; half and half where there is but one."""
    end = SENTENCE_END.search(article, 30)
    middle = end.start() if end else article.rfind(" ", 0, len(article) // 2)
    return article[: max(middle, 1)].strip(), article[max(middle, 1) :].strip()


def augmented(article: str, recipe: Recipe, random: np.random.Generator) -> str:
    """The article as the recipe's noise leaves it."""
    chances = random.random(3)
    if chances[0] < recipe.drop_sentence:
        article = without_sentence(article, random)
    if chances[1] < recipe.shuffle_sentences:
        article = shuffled(article, random)
    if chances[2] < recipe.noise:
        article = noisy(article, random)
    return article


def without_sentence(article: str, random: np.random.Generator) -> str:
    """The article without its first, second or third sentence, where it has more than that."""
    sentences = SENTENCE_END.split(article)
    if len(sentences) > 3:
        sentences.pop(int(random.integers(0, 3)))
    return " ".join(sentences)


def shuffled(article: str, random: np.random.Generator) -> str:
    """The article with its first four sentences in another order."""
    sentences = SENTENCE_END.split(article)
    head = [sentences[place] for place in random.permutation(min(4, len(sentences)))]
    return " ".join(head + sentences[4:])


def noisy(article: str, random: np.random.Generator) -> str:
    """The article all in lower case, all in capitals, or without its commas, quotes and dashes."""
    match int(random.integers(0, 3)):
        case 0:
            return article.lower()
        case 1:
            return article.upper()
        case _:
            return re.sub(r"[,;:\"“”‘’()–—]", "", article)
