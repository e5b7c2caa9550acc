"""Headlines that are drawn: logits become draws, so that the best token of each row is one drawn by its probability."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.headlines.headline import Sampling


class Sampler:
    """Draws for the articles that want it, each from its own seed, whatever else is in the batch."""

    def __init__(self, articles: Sequence[Sampling | None], *, lanes: int, device: torch.device) -> None:
        """lanes: of each article; each draws for itself."""
        self._articles = list(articles)
        self._lanes = lanes
        self._sources = [None if it is None else torch.Generator().manual_seed(it.seed) for it in articles]
        self.draws = torch.tensor([it is not None for it in articles for _ in range(lanes)], device=device)

    def keep(self, articles: Tensor) -> None:
        """Drop all but these articles."""
        self._articles = [self._articles[article] for article in articles.tolist()]
        self._sources = [self._sources[article] for article in articles.tolist()]
        self.draws = self.draws.view(-1, self._lanes)[articles].flatten()

    def apply(self, logits: Tensor, normaliser: Tensor) -> Tensor:
        """logits [articles * lanes, beams, vocabulary] with those of drawing articles replaced, the others as they are.

        Gumbel noise on log-probabilities: its greatest is a draw (Gumbel-max). All beams of a lane share it.
        """
        if not any(self._sources):
            return logits
        drawn = logits.clone()
        for article, (wanted, source) in enumerate(zip(self._articles, self._sources, strict=True)):
            if wanted is None:
                continue
            here = slice(article * self._lanes, (article + 1) * self._lanes)
            likely = (logits[here] / wanted.temperature).log_softmax(-1)
            likely = likely.nan_to_num(nan=-torch.inf, neginf=-torch.inf)  # rows that have nothing to go on with
            likely = _nucleus(likely, wanted.top_p, at_least=logits.shape[1])
            noise = torch.empty(self._lanes, 1, logits.shape[-1]).exponential_(generator=source).log_().neg_()
            drawn[here] = likely + noise.to(logits.device) + normaliser[here]
        return drawn


def _nucleus(log_probabilities: Tensor, top_p: float, *, at_least: int) -> Tensor:
    """Only the likeliest tokens that together reach `top_p`, the others at minus infinity (Holtzman et al., 2020)."""
    if top_p >= 1:
        return log_probabilities
    ordered, tokens = log_probabilities.sort(descending=True)
    probabilities = ordered.exp()
    before = probabilities.cumsum(-1) - probabilities
    beyond = before >= top_p
    beyond[..., :at_least] = False
    return log_probabilities.masked_fill(beyond.gather(-1, tokens.argsort(-1)), -torch.inf)
