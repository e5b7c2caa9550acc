"""Turns a row of the plan into the tokens of one example. Knows the tokenizer, but no model.

Every example depends on the seed and its own place only, so a training that goes on after a stop sees the same ones.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as Examples
from transformers import PreTrainedTokenizerBase

from app.headlines.support import support_ends
from app.training.augment import Augment, split_first
from app.training.errors import TrainingError
from app.training.plan import Plan, Task
from app.training.recipe import Recipe

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
        self._augment = Augment(recipe, partial(_any_article, pairs))
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
        plain = pair["article"], pair["headline"]
        article, headline = changed = self._augment(*plain, random)
        if self._recipe.supported_only and changed != plain and not self._is_supported(headline, article, limit):
            article, headline = plain
        return self._example(article, headline, limit, self._recipe.max_target_tokens)

    def _is_supported(self, headline: str, article: str, limit: int) -> bool:
        """Whether all that the headline names is still in what is seen of the article."""
        end = support_ends(headline, article)
        return end is not None and len(self._tokens(self._prefix + article[:end])) <= limit

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return tokens

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


def _any_article(pairs: Dataset, random: np.random.Generator) -> str:
    return str(pairs[int(random.integers(len(pairs)))]["article"])


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
    """The tokens with `HOLES` of them gone, one `hole` for each run (Lewis et al. 2020)."""
    gone = round(HOLES * len(tokens))
    number = -(-gone // HOLE)
    if not gone:
        return list(tokens)
    lengths = 1 + random.multinomial(gone - number, np.full(number, 1 / number))  # Poisson's whose sum is known
    kept = np.sort(random.choice(len(tokens) - gone + 1, number, replace=False))  # tokens before each hole
    holed: list[int] = []
    place = 0
    for start, length in zip(kept + np.cumsum(lengths) - lengths, lengths, strict=True):
        holed += [*tokens[place:start], hole or 0]
        place = start + length
    return [*holed, *tokens[place:]]
