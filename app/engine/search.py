"""Beam search, vectorised over articles; greedy is its case of one beam.

The same tokens as transformers' `generate()` (its `_beam_search`): what decides there for each article decides here for
each article, so an article that is done leaves the batch at once and the others do not notice.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.engine.decoder import Decoder
from app.engine.decoding import Decoding
from app.engine.rules import Rules

UNFINISHED = -1.0e9  # the score of a place that no finished headline has taken
WORTH_LEAVING = 0.25  # the share of articles done at which the rest is copied together


@dataclass(frozen=True)
class Candidate:
    """One headline as tokens (no start token; the end token is there unless the length ran out)."""

    tokens: tuple[int, ...]
    score: float  # mean log-probability per token, natural log


def beam_search(decoder: Decoder, decoding: Decoding, *, articles: int, beams: int) -> list[list[Candidate]]:
    """For each article of the decoder's batch its best candidates, at most `beams`, best first."""
    search = _Search(decoding, articles=articles, beams=beams, device=decoder.device)
    for length in range(1, decoding.max_new_tokens + 1):
        logits = decoder.step(search.last_tokens(length, first_only=length == 1))
        parents = search.advance(logits, length)
        if search.all_done or length == decoding.max_new_tokens:
            break
        if length == 1:
            decoder.spread(beams)  # until here the beams of an article were all alike
        else:
            decoder.follow(parents)
        if search.done.float().mean() >= WORTH_LEAVING:
            decoder.keep(*search.leave())
    return search.results()


class _Search:
    """The beams of the articles that are still searched, and the finished headlines of all."""

    def __init__(self, decoding: Decoding, *, articles: int, beams: int, device: torch.device) -> None:
        self._decoding = decoding
        self._beams = beams
        self._rules = Rules(decoding, device=device)
        self._ends = torch.tensor(decoding.end_tokens, device=device)
        # Greedy search ends with its first headline; a longer one could never replace it.
        self._stop_when_full = decoding.early_stopping is True or beams == 1
        # So many continuations leave `beams` of them running even if all the best ones end.
        self._continuations = max(2, 1 + len(decoding.end_tokens)) * beams

        self._places = torch.arange(articles, device=device)  # where in the results each row's article stands
        shape = (articles, beams, 1 + decoding.max_new_tokens)
        self._running = torch.full(shape, decoding.end_tokens[0], dtype=torch.long, device=device)
        self._running[..., 0] = decoding.start_token
        self._running_scores = torch.zeros(articles, beams, device=device)
        self._finished = self._running.clone()
        self._finished_scores = torch.full((articles, beams), UNFINISHED, device=device)
        self._finished_lengths = torch.zeros(articles, beams, dtype=torch.long, device=device)
        self.done = torch.zeros(articles, dtype=torch.bool, device=device)
        self._results: list[list[Candidate]] = [[] for _ in range(articles)]

    @property
    def all_done(self) -> bool:
        return bool(self.done.all())

    def last_tokens(self, length: int, *, first_only: bool) -> Tensor:
        """The tokens to step from: one a beam [articles * beams], or one an article."""
        beams = self._running[:, :1] if first_only else self._running
        return beams[..., length - 1].flatten()

    def advance(self, logits: Tensor, length: int) -> Tensor:
        """Choose the next tokens from `logits` [rows, vocabulary]; the rows they follow from, `parents` [rows]."""
        scores, beams, tokens = self._continue(logits, length)
        sequences = _gather(self._running, beams)
        sequences[..., length] = tokens
        ends = torch.isin(tokens, self._ends) | (length == self._decoding.max_new_tokens)
        self._finish(sequences, scores, ends, length)

        self._running_scores, best = (scores + ends * UNFINISHED).topk(self._beams)
        self._running = _gather(sequences, best)
        self._note_done(length)
        first_row = torch.arange(len(beams), device=beams.device)[:, None] * self._beams
        return (first_row + beams.gather(1, best)).flatten()

    def _continue(self, logits: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of each article: scores, beams, tokens, each [articles, continuations], best first."""
        articles = len(self._running)
        beams = len(logits) // articles
        normaliser = logits.logsumexp(-1, keepdim=True)
        self._rules.apply(logits, normaliser, self._running[:, :beams, :length].flatten(0, 1))
        # No article takes more from one beam than it takes in all, so the best of each beam are enough to choose from.
        best, tokens = logits.topk(min(self._continuations, logits.shape[-1]))
        scores = (best - normaliser).view(articles, beams, -1) + self._running_scores[:, :beams, None]
        scores, chosen = scores.flatten(1).topk(min(self._continuations, scores[0].numel()))
        return scores, chosen // best.shape[-1], tokens.view(articles, -1).gather(1, chosen)

    def _finish(self, sequences: Tensor, scores: Tensor, ends: Tensor, length: int) -> None:
        """Headlines that just ended among an article's `beams` best take their place among its finished ones."""
        ended = ends.clone()
        ended[:, self._beams :] = False  # the others are there only to go on with
        ended &= ~self.done[:, None]
        scores = torch.where(ended, scores / length**self._decoding.length_penalty, UNFINISHED)
        scores, best = torch.cat([self._finished_scores, scores], 1).topk(self._beams)
        self._finished_scores = scores
        self._finished = _gather(torch.cat([self._finished, sequences], 1), best)
        lengths = torch.full_like(ended, length, dtype=torch.long)
        self._finished_lengths = torch.cat([self._finished_lengths, lengths], 1).gather(1, best)

    def _note_done(self, length: int) -> None:
        """An article is done when nothing that runs can better its finished headlines any more."""
        full = (self._finished_scores > UNFINISHED).all(1)
        hopeless = self._best_possible(length) <= self._finished_scores.min(1).values
        self.done |= full & (hopeless | self._stop_when_full)

    def _best_possible(self, length: int) -> Tensor:
        """The score that a running beam may reach, by generate()'s rule for `early_stopping`; [articles]."""
        decoding = self._decoding
        longest = decoding.early_stopping == "never" and decoding.length_penalty > 0
        reached: float = (decoding.max_new_tokens if longest else length) ** decoding.length_penalty
        return self._running_scores[:, 0] / reached

    def leave(self) -> tuple[Tensor, Tensor]:
        """Take the done articles out of the search; the articles that stay, and their rows."""
        self._collect(self.done)
        stay = (~self.done).nonzero().flatten()
        for name in ("_places", "_running", "_running_scores", "_finished", "_finished_scores", "_finished_lengths"):
            setattr(self, name, getattr(self, name)[stay])
        self.done = self.done[stay]
        rows = stay[:, None] * self._beams + torch.arange(self._beams, device=stay.device)
        return stay, rows.flatten()

    def results(self) -> list[list[Candidate]]:
        self._collect(torch.ones_like(self.done))
        return self._results

    def _collect(self, articles: Tensor) -> None:
        """Put the finished headlines of these articles among the results."""
        penalty = self._decoding.length_penalty
        columns = (self._places, self._finished, self._finished_scores, self._finished_lengths)
        for place, sequences, scores, lengths in zip(*(column[articles].tolist() for column in columns), strict=True):
            for sequence, score, length in zip(sequences, scores, lengths, strict=True):
                if score > UNFINISHED and math.isfinite(score):
                    mean = score * length ** (penalty - 1)  # from sum / length^penalty to sum / length
                    self._results[place].append(Candidate(tuple(sequence[1 : 1 + length]), mean))


def _gather(sequences: Tensor, beams: Tensor) -> Tensor:
    """sequences: [articles, beams, length]; beams: [articles, chosen] -> [articles, chosen, length]."""
    return sequences.gather(1, beams[..., None].expand(-1, -1, sequences.shape[-1]))
