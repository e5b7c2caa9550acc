"""Text to the tokens a model reads, and the tokens it wrote to text."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Reading:
    """An article as the model reads it."""

    tokens: tuple[int, ...]  # prefix, head of the article, and the tokenizer's own marks
    article_tokens: int  # how many they were before the article's tail was cut off

    @property
    def truncated(self) -> bool:
        return len(self.tokens) < self.article_tokens


class ArticleTokenizer:
    """Keeps the head of an article that is too long, and always the task prefix and the end mark.

    Truncation stays off and the cut is made by hand: a fast tokenizer holds its truncation as shared state, so threads
    that share it with truncation on get each other's lengths.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, prefix: str, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._max_tokens = max_tokens
        self._fast = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        if self._fast is not None:
            self._fast.no_truncation()
            self._fast.no_padding()
        self._before, self._after = self._marks()
        room = max_tokens - len(self._before) - len(self._after) - len(self._tokens(prefix))
        if room < 1:
            raise ValueError(f"{max_tokens} source tokens leave no room for an article behind the prefix {prefix!r}")

    def read(self, text: str) -> Reading:
        """The tokens of `prefix + text`, at most `max_tokens`."""
        tokens = self._tokens(self._prefix + text)
        marks = len(self._before) + len(self._after)
        kept = tokens[: self._max_tokens - marks]
        return Reading((*self._before, *kept, *self._after), len(tokens) + marks)

    def write(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special ones left out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _tokens(self, text: str) -> list[int]:
        if self._fast is not None:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def _marks(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and behind a text."""
        bare = self._tokens("a")
        marked = list(self._tokenizer.encode("a", add_special_tokens=True))
        for start in range(len(marked) - len(bare) + 1):
            if marked[start : start + len(bare)] == bare:
                return marked[:start], marked[start + len(bare) :]
        raise ValueError("the tokenizer changes a text when it adds its special tokens")
