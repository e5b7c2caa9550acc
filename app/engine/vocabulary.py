"""What each token of a vocabulary adds to a headline's text: how many characters and words, and which letters.

`text(tokens)` is what the tokenizer's own decoding gives, built from pieces that stand alone, so the length of a
headline is known while it is written. Where a tokenizer also tidies up (WordPiece draws "word ," together) the pieces
are longer than what it makes of them, never shorter.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from app.headlines.phrases import fold, is_word, may_part


class Table(NamedTuple):
    """What each token adds, [vocabulary] each."""

    chars: Tensor  # characters that begin in it
    chars_at_start: Tensor  # the same at a headline's start, where white space is dropped
    words: Tensor  # words that begin in it behind its own white space
    begins_solid: Tensor  # it does not begin with white space: a word begins there, if white space stood before it
    ends_blank: Tensor  # it ends in white space
    continues: Tensor  # a word that stood before it goes on in it
    ends_word: Tensor  # its last character belongs to a word
    is_within_word: Tensor  # all its characters do
    is_empty: Tensor  # it adds nothing, as special tokens
    completes: Tensor  # so many bytes at its start belong to a character that was begun before it
    is_part: Tensor  # it is nothing but such bytes
    lacks: Tensor  # so many bytes are still to come of the character that it begins at its end

    @classmethod
    def of(cls, pieces: Sequence[bytes], starts: Sequence[bytes]) -> "Table":
        texts = [piece.decode(errors="ignore") for piece in pieces]
        shown = [piece.decode(errors="replace") for piece in pieces]
        last_words = [_last_word(piece) for piece in pieces]
        return cls(
            chars=torch.tensor([_begins(piece) for piece in pieces]),
            chars_at_start=torch.tensor([_begins(piece.lstrip()) for piece in starts]),
            words=torch.tensor([_words_begun(text) for text in shown]),
            begins_solid=torch.tensor([bool(text) and not text[0].isspace() for text in shown]),
            ends_blank=torch.tensor([text[-1:].isspace() for text in shown]),
            continues=torch.tensor(
                [bool(piece) and (not text or is_word(text[0])) for piece, text in zip(pieces, texts, strict=True)]
            ),
            ends_word=torch.tensor([bool(word) for word in last_words]),
            is_within_word=torch.tensor(
                [bool(piece) and piece == word for piece, word in zip(pieces, last_words, strict=True)]
            ),
            is_empty=torch.tensor([not piece for piece in pieces]),
            completes=torch.tensor([_completes(piece) for piece in pieces]),
            is_part=torch.tensor([0 < len(piece) == _completes(piece) for piece in pieces]),
            lacks=torch.tensor([_lacks(piece) for piece in pieces]),
        )

    def open_bytes(self, tokens: Tensor) -> Tensor:
        """How many bytes the last character of each row lacks; tokens: [..., length] -> [...]."""
        lacking = torch.zeros(tokens.shape[:-1], dtype=torch.long, device=tokens.device)
        for token in tokens[..., -4:].unbind(-1):  # no character has more bytes
            lacking = torch.where(self.is_part[token], lacking - self.completes[token], self.lacks[token])
        return lacking.clamp(min=0)

    def fits(self, lacking: Tensor) -> Tensor:
        """Which tokens go on with a character that lacks so many bytes, or begin one: [...] -> [..., vocabulary]."""
        lacking = lacking[..., None]
        return (self.completes == lacking) | (self.is_part & (self.completes < lacking))


class Vocabulary:
    """The pieces of a vocabulary of `size` tokens; special tokens have none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, size: int) -> None:
        self._tokenizer = tokenizer
        pairs = list(_pieces(tokenizer, size))
        self.pieces = [piece for piece, _ in pairs]
        self._starts = [start for _, start in pairs]  # what they are at the start of a text
        self._table = Table.of(self.pieces, self._starts)

    @lru_cache(maxsize=8)  # noqa: B019 - a vocabulary lives as long as its model
    def on(self, device: torch.device) -> Table:
        return Table(*(column.to(device) for column in self._table))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without white space at its start; half a character at its end is left out."""
        return self._bytes(tokens).decode(errors="ignore").lstrip()

    def is_text(self, tokens: Sequence[int]) -> bool:
        """Whether their bytes are whole characters."""
        try:
            self._bytes(tokens).decode()
        except UnicodeDecodeError:
            return False
        return True

    def _bytes(self, tokens: Sequence[int]) -> bytes:
        return b"".join((self.pieces if place else self._starts)[token] for place, token in enumerate(tokens))

    def tokens(self, text: str, *, at_start: bool) -> tuple[int, ...]:
        """The tokens of words that begin a headline, or go on with one behind a word."""
        if at_start:
            return tuple(self._tokenizer.encode(text, add_special_tokens=False))
        anchor = self._tokenizer.encode("a", add_special_tokens=False)
        both = self._tokenizer.encode(f"a {text}", add_special_tokens=False)
        return tuple(both[len(anchor) :])

    def is_token(self, word: bytes) -> bool:
        """Whether the word is one token behind a blank."""
        return b" " + word in self._tokens_of

    @lru_cache(maxsize=20_000)  # noqa: B019 - a vocabulary lives as long as its model
    def spellings(self, word: bytes) -> tuple[tuple[int, int, int], ...]:
        """Every way to write the word: (start, token, end) for each token that makes word[start:end] of what is written
        up to `start`; from 0 on they stand for tokens that may begin with a blank or a mark before the word."""
        steps, reached = [], {0}
        for start in range(len(word)):
            if start not in reached:
                continue
            tokens = self._tokens_of if start else self._tokens_ending_in
            for end in range(start + 1, len(word) + 1):
                if found := tokens.get(word[start:end]):
                    steps += [(start, token, end) for token in found]
                    reached.add(end)
        return tuple(steps)

    def openings(self) -> Iterator[tuple[int, str]]:
        """The tokens that end in the beginning of a word behind a blank or a mark of their own, and that beginning."""
        for beginning, tokens in self._tokens_ending_in.items():
            text = beginning.decode(errors="ignore")
            yield from ((token, text) for token in tokens if text and len(self.pieces[token]) > len(beginning))

    @property
    def size(self) -> int:
        return len(self.pieces)

    @cached_property
    def _tokens_of(self) -> dict[bytes, list[int]]:
        """The tokens of each piece."""
        tokens = defaultdict(list)
        for token, piece in enumerate(self.pieces):
            tokens[piece].append(token)
        return tokens

    @cached_property
    def _tokens_ending_in(self) -> dict[bytes, list[int]]:
        """The tokens that end in each beginning of a word, and have nothing else of a word before it."""
        tokens = defaultdict(list)
        for token, piece in enumerate(self.pieces):
            tokens[_last_word(piece)].append(token)
        return tokens

    @cached_property
    def _folded(self) -> list[str]:
        return [fold(piece.decode(errors="ignore")) for piece in self.pieces]

    @cached_property
    def _whole(self) -> list[tuple[str, int]]:
        return sorted((folded, token) for token, folded in enumerate(self._folded) if folded)

    @cached_property
    def _inner(self) -> list[tuple[str, int]]:
        """What stands in a piece from each place on where a phrase may begin, whatever was before the piece."""
        return sorted(
            (folded[place:], token)
            for token, folded in enumerate(self._folded)
            for place in range(len(folded))
            if not is_word(folded[place]) or (place > 0 and not is_word(folded[place - 1]))
        )

    @lru_cache(maxsize=10_000)  # noqa: B019 - a vocabulary lives as long as its model
    def completing(self, rest: str, *, begun: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that complete a phrase of which `rest` is still to come (folded): those behind which it is
        complete whatever follows, and those behind which it is unless a word goes on.

        With `begun` the rest must follow at once, else it may stand anywhere in the token where a phrase may begin.
        """
        entries = self._whole if begun else self._inner
        complete, at_end = set(), set()
        for place in range(bisect_left(entries, (rest, -1)), len(entries)):
            text, token = entries[place]
            if not text.startswith(rest):
                break
            if text == rest and is_word(rest[-1]):
                at_end.add(token)
            elif may_part(rest, text[len(rest) :]):
                complete.add(token)
        return tuple(complete), tuple(at_end - complete)


def _pieces(tokenizer: PreTrainedTokenizerBase, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The bytes that each token decodes to behind another one, and those at the start of a text."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    to_bytes = _byte_alphabet(tokenizer)
    anchor = tokenizer.encode("a", add_special_tokens=False)
    before = _decoded(tokenizer, anchor)
    for token in range(size):
        name = names[token] if token < len(names) else None
        if name is None or token in special:
            yield b"", b""
        elif to_bytes is not None and all(character in to_bytes for character in name):
            yield (piece := bytes(to_bytes[character] for character in name)), piece
        elif len(name) == 6 and name.startswith("<0x"):
            yield (piece := bytes([int(name[3:5], 16)])), piece
        else:
            behind = _decoded(tokenizer, [*anchor, token])[len(before) :]
            yield behind.encode(), _decoded(tokenizer, [token]).encode()


def _byte_alphabet(tokenizer: PreTrainedTokenizerBase) -> dict[str, int] | None:
    """The bytes behind the characters of token names, where a tokenizer works on bytes."""
    if not tokenizer.is_fast:
        works_on_bytes = type(tokenizer).__name__ == "ByT5Tokenizer"
        return {chr(byte): byte for byte in range(256)} if works_on_bytes else None
    if "ByteLevel" not in str(tokenizer.backend_tokenizer.decoder):
        return None
    return {character: byte for byte, character in bytes_to_unicode().items()}


def _decoded(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    text: Any = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _begins(piece: bytes) -> int:
    """How many characters begin in the piece: every byte but those that go on with one (10xxxxxx in UTF-8)."""
    return sum(byte & 0b1100_0000 != 0b1000_0000 for byte in piece)


def _completes(piece: bytes) -> int:
    return next((place for place, byte in enumerate(piece) if byte & 0b1100_0000 != 0b1000_0000), len(piece))


def _lacks(piece: bytes) -> int:
    """How many bytes of its last character the piece lacks."""
    for behind, byte in enumerate(reversed(piece[-3:])):
        if byte >= 0b1100_0000:
            whole = 4 if byte >= 0b1111_0000 else 3 if byte >= 0b1110_0000 else 2
            return whole - 1 - behind
        if byte < 0b1000_0000:
            break
    return 0


def _last_word(piece: bytes) -> bytes:
    """What the piece ends in of a word, the bytes of a half character too; nothing where it ends in something else."""
    start = len(piece)
    while start > 0:
        character = max(0, start - 1)
        while character > 0 and piece[character] & 0b1100_0000 == 0b1000_0000:
            character -= 1
        text = piece[character:start].decode(errors="ignore")
        if text and not is_word(text):
            break
        start = character
    return piece[start:]


def _words_begun(text: str) -> int:
    return sum(not after.isspace() and before.isspace() for before, after in pairwise(text))
