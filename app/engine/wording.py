"""What a headline's text so far means for its next token where phrases are wanted or unwanted. Knows no torch."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.engine.vocabulary import Vocabulary
from app.headlines.headline import Limits
from app.headlines.phrases import contains, fold, is_word, may_part


@dataclass
class Row:
    """What the text of one row means for its next token."""

    forbidden: set[int] = field(default_factory=set)  # they complete an avoided phrase
    risky: set[int] = field(default_factory=set)  # they do unless the word goes on
    must_go_on: bool = False  # the text ends in an avoided phrase
    begun: bool = False  # the text ends in the beginning of an included phrase
    must_part: bool = False  # the text ends in an included phrase
    missed: int = 0  # phrases
    there: int = 0  # tokens of the phrases that are there
    owed: int = 0  # tokens that the missed phrases take
    owed_chars: int = 0
    owed_words: int = 0
    steps: dict[int, int] = field(default_factory=dict)  # the tokens that get on with a phrase -> tokens reached then


class Phrases:
    """The phrases that one article's headlines must include and avoid."""

    def __init__(self, limits: Limits, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._avoided = [fold(phrase).strip() for phrase in limits.avoid]
        self._longest = max(map(len, self._avoided), default=0)
        self._beginnings: defaultdict[str, set[str]] = defaultdict(set)  # the start of a phrase -> what then follows
        for phrase in self._avoided:
            for end in range(1, len(phrase) + 1):
                self._beginnings[phrase[:end]].add(phrase[end:])
        self._included = [
            Included(
                fold(phrase).strip(),
                vocabulary.tokens(phrase.capitalize() if phrase.islower() else phrase, at_start=True),
                vocabulary.tokens(phrase, at_start=False),
                chars=len(phrase) + 1,
                words=len(phrase.split()),
            )
            for phrase in limits.include
        ]

    def look(self, tokens: Sequence[int]) -> Row:
        """What may follow these tokens, no start token among them."""
        text = fold(self._vocabulary.text(tokens))
        row = Row()
        if self._avoided:
            self._avoid(text, row)
        if self._included:
            self._include(text, tuple(tokens), row)
        return row

    def _avoid(self, text: str, row: Row) -> None:
        for phrase in self._avoided:
            self._forbid(phrase, begun=False, row=row)
            if may_part(text, phrase):
                self._forbid(phrase, begun=True, row=row)
        for start in range(max(0, len(text) - self._longest), len(text)):
            if may_part(text[:start], text[start:]):
                for rest in self._beginnings.get(text[start:], ()):
                    if rest:
                        self._forbid(rest, begun=True, row=row)
                    else:
                        row.must_go_on = True

    def _forbid(self, rest: str, *, begun: bool, row: Row) -> None:
        complete, at_end = self._vocabulary.completing(rest, begun=begun)
        row.forbidden.update(complete)
        row.risky.update(at_end)

    def _include(self, text: str, tokens: tuple[int, ...], row: Row) -> None:
        missed = []
        for phrase in self._included:
            if not contains(text, phrase.folded):
                missed.append(phrase)
                continue
            row.there += len(phrase.within)
            # Only as long as no word goes on behind it.
            row.must_part |= is_word(phrase.folded[-1]) and not contains(f"{text}x", phrase.folded)
        for phrase in missed:
            row.missed += 1
            row.owed += len(phrase.within)
            row.owed_chars += phrase.chars
            row.owed_words += phrase.words
        begun = {phrase: progress for phrase in missed if (progress := phrase.progress(tokens))}
        row.begun = bool(begun)
        for phrase, progress in (begun or dict.fromkeys(missed, 0)).items():
            sequence = phrase.sequence(tokens, progress)
            row.steps[sequence[progress]] = row.there + progress + 1


@dataclass(frozen=True)
class Included:
    folded: str
    at_start: tuple[int, ...]
    within: tuple[int, ...]
    chars: int
    words: int

    def progress(self, tokens: tuple[int, ...]) -> int:
        """How many of the phrase's tokens the row ends in; not all of them, or it would be there."""
        for length in range(min(len(tokens), len(self.within) - 1), 0, -1):
            if tokens[-length:] == self.within[:length]:
                return length
        begun = len(tokens)
        return begun if 0 < begun < len(self.at_start) and tokens == self.at_start[:begun] else 0

    def sequence(self, tokens: tuple[int, ...], progress: int) -> tuple[int, ...]:
        return self.at_start if len(tokens) == progress else self.within
