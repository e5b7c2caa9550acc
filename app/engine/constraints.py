"""max_chars, max_words, include and avoid while a headline is written: masks on the next token.

Lengths are counted for all rows at once. What depends on the text so far (phrases) is looked up row by row, for those
articles alone that ask for it. Phrases are included by dynamic beam allocation (Post and Vilar, 2018,
https://aclanthology.org/N18-1119): the beams are shared out among rows that have got equally far with the phrases.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from app.engine.vocabulary import Vocabulary
from app.engine.wording import Phrases, Row
from app.headlines.headline import Limits

MISSED = 1.0e4  # what a phrase that is not there costs a finished headline: complete ones come first
RISKY_SHARE = 4  # one in so many beams may end in an avoided phrase, in the hope that the word goes on
OPTIONS = 4  # of each row so many continuations are considered beside the phrases' own


@dataclass(frozen=True)
class Continuation:
    """One way to go on: from a beam with a token; `score` is the search's."""

    score: float
    beam: int
    token: int


class Constrained(NamedTuple):
    """What limits mean for rows, [lanes, beams]."""

    cost: Tensor  # of ending here, in the search's score; infinite where it may not
    fullness: Tensor  # the share of the room that is filled, 0 to 1


class Constraints:
    """The limits of the lanes of a search: rows of beams that compete with each other, all of one article."""

    def __init__(self, limits: Sequence[Limits], vocabulary: Vocabulary, *, ends: Tensor, max_new_tokens: int) -> None:
        """limits: one for each lane; ends: the end tokens."""
        device = ends.device
        self._ends = ends
        self._end_tokens = frozenset(ends.tolist())
        self._table = vocabulary.on(device)
        self._max_new_tokens = max_new_tokens
        self._limited = torch.tensor([bool(limit) for limit in limits], device=device)
        self._max_chars = _bound([limit.max_chars for limit in limits], device)
        self._max_words = _bound([limit.max_words for limit in limits], device)
        self._has_bounds = any(limit.max_chars or limit.max_words for limit in limits)
        phrases = {limit: Phrases(limit, vocabulary) for limit in limits if limit.include or limit.avoid}
        self._phrases = [phrases.get(limit) for limit in limits]
        self._rows: dict[tuple[int, int], Row] = {}
        self._steps: dict[tuple[int, int], dict[int, float]] = {}

    def keep(self, lanes: Tensor) -> None:
        """Drop all but these lanes."""
        self._limited = self._limited[lanes]
        self._max_chars = self._max_chars[lanes]
        self._max_words = self._max_words[lanes]
        self._phrases = [self._phrases[lane] for lane in lanes.tolist()]

    def apply(self, logits: Tensor, sequences: Tensor) -> Constrained:
        """Forbid tokens in place.

        logits: [lanes, beams, vocabulary]; sequences: [lanes, beams, length], the tokens so far, the start token first.
        """
        ends = logits[..., self._ends].clone()  # to end a headline takes no room
        cost = logits.new_zeros(logits.shape[:2])
        tokens, limited = sequences[..., 1:], self._limited[:, None]
        lacking = self._table.open_bytes(tokens) * limited
        unfit = ~self._table.fits(lacking)  # no half characters,
        if tokens.shape[-1]:
            unfit |= self._table.is_empty  # nor nothing; but the first may be forced, as mBART's language is
        logits.masked_fill_(unfit & limited[..., None], -math.inf)
        cost.masked_fill_(lacking > 0, math.inf)
        likely = logits.argmax(-1)
        owed = self._look(logits, sequences, cost, likely)
        fullness = self._bound(logits, sequences, owed, likely) if self._has_bounds else torch.zeros_like(cost)
        # Where the likeliest next token is the rest of a word, a headline ended here would end in a stump; and where
        # it may not be, whatever else is written is none of the model's words.
        within_word = self._table.continues[likely] & limited
        stumps = within_word & logits.gather(-1, likely[..., None])[..., 0].isneginf()
        for place, row in self._rows.items():
            if row.must_part or row.begun:
                within_word[place] = stumps[place] = False  # it is not the model that wants this word
            elif bool(stumps[place]):
                self._steps[place] = {}
        logits.masked_fill_(stumps[..., None], -math.inf)
        cost.masked_fill_(within_word, math.inf)
        logits[..., self._ends] = ends.masked_fill(cost[..., None].isposinf(), -math.inf)
        return Constrained(cost, fullness)

    def _look(self, logits: Tensor, sequences: Tensor, cost: Tensor, likely: Tensor) -> Tensor:
        """Apply the phrases; the characters and words that each row owes to those it lacks, [lanes, beams, 2]."""
        owed = torch.zeros(*logits.shape[:2], 2, dtype=torch.long, device=logits.device)
        self._rows, self._steps = {}, {}
        left = self._max_new_tokens - sequences.shape[-1]  # tokens behind the next one, the end token among them
        for lane, phrases in enumerate(self._phrases):
            if phrases is None:
                continue
            for beam, tokens in enumerate(sequences[lane, :, 1:].tolist()):
                row = self._rows[lane, beam] = phrases.look(tokens)
                next_logits = logits[lane, beam]
                steps = [] if row.must_go_on else list(row.steps)
                values = next_logits[steps].tolist()
                self._steps[lane, beam] = dict(zip(steps, values, strict=True))
                if row.missed and left <= row.owed:
                    next_logits.fill_(-math.inf)  # no token to spare
                if row.forbidden:
                    next_logits[list(row.forbidden)] = -math.inf
                if (likeliest := int(likely[lane, beam])) in row.risky and self._table.continues[likeliest]:
                    kept = next_logits[likeliest].item()  # it is writing the avoided word; any other end of it is none
                    next_logits.fill_(-math.inf)
                    next_logits[likeliest] = kept
                if row.must_go_on:
                    cost[lane, beam] = math.inf
                    # Unless it would do so by itself, the word that comes of it is none.
                    goes_on = self._table.continues & self._table.continues[likely[lane, beam]]
                    next_logits.masked_fill_(~goes_on, -math.inf)
                if row.must_part:
                    next_logits.masked_fill_(self._table.continues, -math.inf)
                cost[lane, beam] += row.missed * MISSED
                owed[lane, beam, 0], owed[lane, beam, 1] = row.owed_chars, row.owed_words
        return owed

    def _bound(self, logits: Tensor, sequences: Tensor, owed: Tensor, likely: Tensor) -> Tensor:
        """Forbid the tokens that have no room, in characters or in words; the share of the room that is filled."""
        table, tokens = self._table, sequences[..., 1:]
        first = tokens.shape[-1] == 0
        chars = table.chars[tokens].sum(-1)
        if not first:
            chars += table.chars_at_start[tokens[..., 0]] - table.chars[tokens[..., 0]]
        room = self._max_chars[:, None] - chars - owed[..., 0]
        logits.masked_fill_((table.chars_at_start if first else table.chars) > room[..., None], -math.inf)
        behind_blank = torch.cat([torch.ones_like(chars, dtype=torch.bool)[..., None], table.ends_blank[tokens]], -1)
        if not first:
            behind_blank[..., 1] |= table.is_empty[tokens[..., 0]]  # a forced token
        blank = behind_blank[..., -1]
        words = table.words[tokens].sum(-1) + (table.begins_solid[tokens] & behind_blank[..., :-1]).sum(-1)
        room = self._max_words[:, None] - words - owed[..., 1]
        adds = table.words + (table.begins_solid & blank[..., None])
        full = (room <= 0) & ~table.continues[likely]  # the words are all written; more would only be stuck to the last
        logits.masked_fill_((adds > room[..., None]) | full[..., None], -math.inf)
        return torch.maximum(chars / self._max_chars[:, None], words / self._max_words[:, None])

    def choose(
        self, lane: int, found: Sequence[Continuation], *, beams: int, bases: Sequence[float]
    ) -> list[Continuation]:
        """Of the continuations `found` and of the phrases' own those that the lane goes on with, at most `beams`, and
        those that end it.

        bases: what is added to a logit of each beam to make the search's score.
        """
        ways = {(way.beam, way.token): way for way in found if way.score > -math.inf}
        for beam, base in enumerate(bases):
            for token, logit in self._steps.get((lane, beam), {}).items():
                if token not in self._rows[lane, beam].forbidden:
                    ways[beam, token] = Continuation(logit + base, beam, token)
        best_first = sorted((way for way in ways.values() if way.score > -math.inf), key=lambda way: -way.score)
        banks: defaultdict[int, list[Continuation]] = defaultdict(list)
        ends, risks = [], 0
        for way in best_first:
            row = self._rows[lane, way.beam]
            if way.token in self._end_tokens:
                ends.append(way)
                continue
            if way.token in row.risky and way.token not in row.steps:
                risks += 1
                if risks > max(1, beams // RISKY_SHARE):
                    continue
            banks[row.steps.get(way.token, row.there)].append(way)
        return _shared_out(banks, beams) + ends[:beams]

    def has_phrases(self, lane: int) -> bool:
        return self._phrases[lane] is not None


def _shared_out(banks: dict[int, list[Continuation]], beams: int) -> list[Continuation]:
    """The best of each bank in turn, the furthest bank first, until there are `beams`."""
    chosen: list[Continuation] = []
    place = 0
    while len(chosen) < beams and any(len(bank) > place for bank in banks.values()):
        chosen += [banks[bank][place] for bank in sorted(banks, reverse=True) if len(banks[bank]) > place]
        place += 1
    return chosen[:beams]


def _bound(bounds: Sequence[int | None], device: torch.device) -> Tensor:
    return torch.tensor([2**31 if bound is None else bound for bound in bounds], device=device)
