"""Beam search, vectorised over articles; greedy search and sampling are its cases of one beam.

The same tokens as transformers' `generate()` (its `_beam_search`): what decides there for each article decides here for
each article, so an article that is done leaves the batch at once and the others do not notice.

The beams of an article stand in lanes: those of one lane compete with each other. Where several headlines are wanted
there are several lanes, and each shuns the tokens of those before it: diverse beam search (Vijayakumar et al., 2018,
https://arxiv.org/abs/1610.02424), here wherever in the headline those tokens stand, or it would only shift them.
What lanes with limits (`constraints.py`) write may be cut short at every step: at the limit it is too late to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.engine.constraints import OPTIONS, Constrained, Constraints, Continuation
from app.engine.decoder import Decoder
from app.engine.decoding import Decoding
from app.engine.finished import UNFINISHED, Finished, gather
from app.engine.names import Names, Prices
from app.engine.rules import Rules
from app.engine.sampling import Sampler
from app.engine.vocabulary import Vocabulary
from app.headlines.headline import NO_LIMITS, Limits, Sampling, tidy

DEAD = UNFINISHED / 2  # a lower score belongs to a beam that has ended, or has nothing to go on with
WORTH_LEAVING = 0.25  # the share of articles done at which the rest is copied together
DIVERSITY = 0.5  # nats that a token costs for every lane before that has it in its headline
# A headline that a limit cuts short is judged by its words, by how ready it was to end, by the room it fills, and by
# whether the best beam wrote it; weighed by ROUGE-L on 420 held-out articles with limits of 40, 60 and 80 characters.
READINESS = 0.02
FULLNESS = 1.5
SECOND = 0.3
CUTS = 4  # so many times more of them are kept than there are beams


@dataclass(frozen=True)
class Candidate:
    """One headline as tokens (no start token; the end token is there unless the length ran out)."""

    tokens: tuple[int, ...]
    score: float  # mean log-probability per token, natural log
    lane: int = 0


@dataclass(frozen=True)
class Wanted:
    """What one article's search is to find."""

    limits: Limits = NO_LIMITS
    sampling: Sampling | None = None
    names: Names | None = None  # that are to be written as the article does


ANYTHING = Wanted()


def beam_search(
    decoder: Decoder,
    decoding: Decoding,
    articles: Sequence[Wanted],
    vocabulary: Vocabulary | None = None,
    *,
    lanes: int = 1,
    beams: int,
    look_every: int = 1,
) -> list[list[Candidate]]:
    """For each article of the decoder's batch the best candidates of each of its lanes, at most `beams`, best first.

    `vocabulary` is needed for limits only. `look_every`: after so many steps it is seen who is done, for which a device
    of its own must be waited for; who is done is not written on in any case.
    """
    search = _Search(decoding, articles, vocabulary, lanes=lanes, beams=beams, device=decoder.device)
    for length in range(1, decoding.max_new_tokens + 1):
        logits = decoder.step(search.last_tokens(length))
        parents = search.advance(logits, length)
        looks = length % look_every == 0
        if length == decoding.max_new_tokens or (looks and search.all_done):
            break
        if length == 1:
            decoder.spread(lanes * beams)  # until here the beams of an article were all alike
        else:
            decoder.follow(parents)
        if looks and search.articles_done.float().mean() >= WORTH_LEAVING:
            decoder.keep(*search.leave())
    return search.results()


class _Search:
    """The lanes of the articles that are still searched, `lanes` of each, and the finished headlines of all."""

    def __init__(
        self,
        decoding: Decoding,
        articles: Sequence[Wanted],
        vocabulary: Vocabulary | None,
        *,
        lanes: int,
        beams: int,
        device: torch.device,
    ) -> None:
        self._decoding = decoding
        self._lanes = lanes  # of each article
        self._beams = beams
        self._rules = Rules(decoding, device=device)
        self._ends = torch.tensor(decoding.end_tokens, device=device)
        # So many continuations leave `beams` of them running even if all the best ones end.
        self._continuations = max(2, 1 + len(decoding.end_tokens)) * beams

        self._sampler = Sampler([article.sampling for article in articles], lanes=lanes, device=device)
        # Where there are several, the first lane writes at any length: what the others are to say in short.
        limits = [
            replace(article.limits, max_chars=None, max_words=None) if lanes > 1 and lane == 0 else article.limits
            for article in articles
            for lane in range(lanes)
        ]
        self._constraints: Constraints | None = None
        self._vocabulary = vocabulary
        self._limits = limits
        if any(limits):
            if vocabulary is None:
                raise ValueError("limits need a vocabulary")
            self._constraints = Constraints(limits, vocabulary, ends=self._ends, max_new_tokens=decoding.max_new_tokens)
        self._prices: Prices | None = None
        if any(article.names for article in articles):
            if vocabulary is None:
                raise ValueError("names need a vocabulary")
            names = [article.names for article in articles for _ in range(lanes)]
            self._prices = Prices(names, vocabulary, beams=beams, device=device)
        self._limited = torch.tensor([bool(limit) for limit in limits], device=device)
        self._bounded = torch.tensor([limit.bound_length for limit in limits], device=device)
        # Greedy search ends with its first headline; a longer one could never replace it.
        self._stops_when_full = decoding.early_stopping is True or beams == 1

        everywhere = len(articles) * lanes
        self._places = torch.arange(everywhere, device=device)  # which lane each row of what follows is
        shape = (everywhere, beams, 1 + decoding.max_new_tokens)
        self._running = torch.full(shape, decoding.end_tokens[0], dtype=torch.long, device=device)
        self._running[..., 0] = decoding.start_token
        self._running_scores = torch.zeros(everywhere, beams, device=device)
        self._running_sums = torch.zeros(everywhere, beams, device=device)  # of log-probabilities, nothing weighed
        self._finished = Finished(self._running, beams)
        self._cut_short = Finished(self._running, CUTS * beams)
        self._done = torch.zeros(everywhere, dtype=torch.bool, device=device)
        self._results: list[list[Candidate]] = [[] for _ in range(everywhere)]

    @property
    def all_done(self) -> bool:
        return bool(self._done.all())

    @property
    def articles_done(self) -> Tensor:
        return self._done.view(-1, self._lanes).all(1)

    def last_tokens(self, length: int) -> Tensor:
        """The tokens to step from: one a beam [articles * lanes * beams]; in the first step one an article."""
        beams = self._running[:: self._lanes, :1] if length == 1 else self._running
        return beams[..., length - 1].flatten()

    def advance(self, logits: Tensor, length: int) -> Tensor:
        """Choose the next tokens from `logits` [rows, vocabulary]; the rows they follow from, `parents` [rows]."""
        if length == 1:
            logits = logits.repeat_interleave(self._lanes, 0) if self._lanes > 1 else logits
        logits = logits.view(len(self._running), -1, logits.shape[-1])
        normaliser = logits.logsumexp(-1, keepdim=True)
        sequences = self._running[:, : logits.shape[1], :length]
        self._rules.apply(logits.flatten(0, 1), normaliser.flatten(0, 1), sequences.flatten(0, 1))
        if self._prices is not None:
            self._running_scores = self._running_scores - self._prices.apply(logits)
        free = logits
        if self._constraints is not None:
            logits = logits.clone()
            constrained = self._constraints.apply(logits, sequences)
        logits = self._sampler.apply(logits, normaliser)
        if self._constraints is not None:
            self._cut(logits, free, normaliser, constrained, length)
        scores, beams, tokens = self._continue(logits, normaliser)
        sums = self._running_sums.gather(1, beams) + _log_probabilities(free, normaliser, beams, tokens)
        if self._prices is not None:
            sums -= self._prices.changed(beams, tokens)

        sequences = gather(self._running, beams)
        sequences[..., length] = tokens
        ends = torch.isin(tokens, self._ends)
        if length == self._decoding.max_new_tokens:
            ends |= ~self._limited[:, None]  # a limit may forbid to end here
        self._finish(sequences, scores, sums, ends, length)

        self._running_scores, best = (scores + ends * UNFINISHED).topk(self._beams)
        self._running_sums = sums.gather(1, best)
        self._running = gather(sequences, best)
        if self._prices is not None:
            before = self._running[..., length - 1] if length > 1 else None
            self._prices.follow(beams.gather(1, best), self._running[..., length], before)
        self._note_done(length)
        first_row = torch.arange(len(beams), device=beams.device)[:, None] * self._beams
        return (first_row + beams.gather(1, best)).flatten()

    def _cut(self, logits: Tensor, free: Tensor, normaliser: Tensor, constrained: Constrained, length: int) -> None:
        """Keep what lanes with limits have written as headlines that end here; none goes on as an end that may not.

        free: the logits before limits and draws, for the true log-probabilities.
        """
        rows = logits.shape[1]
        end, which = (logits[..., self._ends] - normaliser).max(-1)
        words = self._running_scores[:, :rows] / max(length - 1, 1) ** self._decoding.length_penalty
        scores = words + READINESS * end + FULLNESS * constrained.fullness - constrained.cost
        scores[:, 1:] -= SECOND
        end_tokens = self._ends[which]
        beams = torch.arange(rows, device=logits.device).expand_as(end_tokens)
        sums = self._running_sums[:, :rows] + _log_probabilities(free, normaliser, beams, end_tokens)
        ended = self._running[:, :rows].clone()
        ended[..., length] = end_tokens
        none = (~self._limited | self._done)[:, None] | (self._running_scores[:, :rows] < DEAD)
        self._cut_short.take(ended, scores.masked_fill(none, UNFINISHED), sums, length)
        may_not = (constrained.cost > 0)[..., None] | self._bounded[:, None, None]  # which are cut anyway
        logits[..., self._ends] = logits[..., self._ends].masked_fill(may_not, -torch.inf)

    def _continue(self, logits: Tensor, normaliser: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of each lane: scores, beams and tokens, each [lanes, continuations], best first."""
        if self._lanes == 1:
            return self._best(logits, normaliser, slice(None))
        taken = logits.new_zeros(len(logits) // self._lanes, logits.shape[-1])  # by how many lanes
        found = []
        for lane in range(self._lanes):
            here = slice(lane, None, self._lanes)
            searched = ~self._sampler.draws[here]
            found.append(self._best(logits[here] - (taken * searched[:, None])[:, None], normaliser[here], here))
            _, beams, tokens = found[-1]
            chosen = torch.cat([gather(self._running[here], beams[:, :1])[:, 0], tokens[:, :1]], 1)
            taken += torch.zeros_like(taken).scatter_(1, chosen, DIVERSITY)
        scores, beams, tokens = (torch.stack(parts, 1).flatten(0, 1) for parts in zip(*found, strict=True))
        return scores, beams, tokens

    def _best(self, logits: Tensor, normaliser: Tensor, lanes: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of these lanes: scores, beams, tokens."""
        running = self._running_scores[lanes, : logits.shape[1], None]
        # No lane takes more from one beam than it takes in all, so the best of each beam are enough to choose from.
        best, tokens = logits.topk(min(self._continuations, logits.shape[-1]))
        scores = best - normaliser + running
        flat, chosen = scores.flatten(1).topk(min(self._continuations, scores[0].numel()))
        found = flat, chosen // best.shape[-1], tokens.flatten(1).gather(1, chosen)
        if self._constraints is not None:
            self._share_out(*found, scores, tokens, (running - normaliser)[..., 0], lanes)
        return found

    def _share_out(
        self,
        chosen_scores: Tensor,
        chosen_beams: Tensor,
        chosen_tokens: Tensor,
        scores: Tensor,
        tokens: Tensor,
        bases: Tensor,
        lanes: slice,
    ) -> None:
        """Where an article has phrases, put in place of the best continuations those that get on with them."""
        assert self._constraints is not None
        for row, lane in enumerate(range(len(self._running))[lanes]):
            if not self._constraints.has_phrases(lane):
                continue
            several = max(OPTIONS, self._continuations) if self._beams == 1 else OPTIONS
            columns = zip(scores[row, :, :several].tolist(), tokens[row, :, :several].tolist(), strict=True)
            found = [
                Continuation(score, beam, token)
                for beam, ways in enumerate(columns)
                for score, token in zip(*ways, strict=True)
            ]
            ways = self._constraints.choose(lane, found, beams=self._beams, bases=bases[row].tolist())
            chosen_scores[row] = -torch.inf
            for place, way in enumerate(sorted(ways, key=lambda way: -way.score)):
                chosen_scores[row, place], chosen_beams[row, place], chosen_tokens[row, place] = (
                    way.score,
                    way.beam,
                    way.token,
                )

    def _finish(self, sequences: Tensor, scores: Tensor, sums: Tensor, ends: Tensor, length: int) -> None:
        """Headlines that just ended among a lane's `beams` best take their place among its finished ones."""
        ended = ends.clone()
        ended[:, self._beams :] = False  # the others are there only to go on with
        ended &= ~self._done[:, None] & (scores > DEAD)
        scores = torch.where(ended, scores / length**self._decoding.length_penalty, UNFINISHED)
        self._finished.take(sequences, scores, sums, length)

    def _note_done(self, length: int) -> None:
        """A lane is done when nothing that runs can better its finished headlines any more."""
        full = (self._finished.scores > UNFINISHED).all(1)
        hopeless = self._best_possible(length) <= self._finished.scores.min(1).values
        self._done |= full & (hopeless | self._stops_when_full)
        if self._constraints is not None:
            self._done |= self._running_scores[:, 0] < DEAD  # its limits leave nothing to go on with

    def _best_possible(self, length: int) -> Tensor:
        """The score that a running beam may reach, by generate()'s rule for `early_stopping`; [lanes]."""
        decoding = self._decoding
        longest = decoding.early_stopping == "never" and decoding.length_penalty > 0
        reached: float = (decoding.max_new_tokens if longest else length) ** decoding.length_penalty
        return self._running_scores[:, 0] / reached

    def leave(self) -> tuple[Tensor, Tensor]:
        """Take the done articles out of the search; the articles that stay, and their rows."""
        done = self.articles_done
        stay = (~done).nonzero().flatten()
        lanes = (stay[:, None] * self._lanes + torch.arange(self._lanes, device=stay.device)).flatten()
        self._collect(done.repeat_interleave(self._lanes))
        for name in ("_places", "_running", "_running_scores", "_running_sums", "_limited", "_bounded", "_done"):
            setattr(self, name, getattr(self, name)[lanes])
        if self._prices is not None:
            self._prices.keep(lanes)
        self._finished.keep(lanes)
        self._cut_short.keep(lanes)
        self._sampler.keep(stay)
        if self._constraints is not None:
            self._constraints.keep(lanes)
        rows = lanes[:, None] * self._beams + torch.arange(self._beams, device=stay.device)
        return stay, rows.flatten()

    def results(self) -> list[list[Candidate]]:
        """For each article its candidates, lane by lane."""
        self._collect(torch.ones_like(self._done))
        lanes = self._results
        return [
            [found for lane in lanes[place : place + self._lanes] for found in lane]
            for place in range(0, len(lanes), self._lanes)
        ]

    def _collect(self, lanes: Tensor) -> None:
        """Put the finished headlines of these lanes among the results, those cut short behind the others."""
        about = torch.stack([self._places, self._limited], 1)[lanes]
        tables = [self._finished.table(), self._cut_short.table()] if self._constraints else [self._finished.table()]
        rows = torch.cat([about.float(), *(table[lanes].flatten(1) for table in tables)], 1).tolist()  # one transfer
        width = tables[0].shape[-1]
        for place, limited, *numbers in rows:
            found = [Finished.read(numbers[start : start + width]) for start in range(0, len(numbers), width)]
            for tokens, score in filter(None, found):
                # What no count foresaw: bytes that make no character, white space of several tokens.
                if not limited or self._obeys(tokens, self._limits[int(place)]):
                    self._results[int(place)].append(Candidate(tokens, score, int(place) % self._lanes))

    def _obeys(self, tokens: Sequence[int], limits: Limits) -> bool:
        assert self._vocabulary is not None
        return self._vocabulary.is_text(tokens) and limits.obeyed_by(tidy(self._vocabulary.text(tokens)))


def _log_probabilities(logits: Tensor, normaliser: Tensor, beams: Tensor, tokens: Tensor) -> Tensor:
    """Of `tokens` [lanes, chosen] behind `beams` [lanes, chosen]; logits: [lanes, rows, vocabulary]."""
    return logits.flatten(1).gather(1, beams * logits.shape[-1] + tokens) - normaliser[..., 0].gather(1, beams)
