"""What a model's decoding options forbid or force as the next token: masks on the logits, in place."""

import math

import torch
from torch import Tensor

from app.engine.decoding import Decoding


class Rules:
    """Applies the options of transformers' logits processors to raw logits.

    Those processors see log-probabilities; all that stand here only set values to minus infinity, which commutes with
    the softmax, or force a token, whose log-probability then is 0 as theirs is.
    """

    def __init__(self, decoding: Decoding, *, device: torch.device) -> None:
        self._decoding = decoding
        self._ends = torch.tensor(decoding.end_tokens, device=device)
        single = [word[0] for word in decoding.bad_words if len(word) == 1]
        self._never = torch.tensor([*decoding.suppressed, *single], dtype=torch.long, device=device)
        self._never_first = torch.tensor(decoding.suppressed_first, dtype=torch.long, device=device)
        # With a forced first token, "the first" that is free to choose is the second.
        self._first_free = 1 if decoding.forced_first is None else 2
        self._bad_words = [
            (torch.tensor(word[:-1], device=device), word[-1]) for word in decoding.bad_words if len(word) > 1
        ]

    def apply(self, logits: Tensor, normaliser: Tensor, sequences: Tensor) -> None:
        """Forbid and force, in place; with `renormalised`, the normaliser then is that of what is left.

        logits: [rows, vocabulary]; normaliser: their log-sum-exp [rows, 1], the log-probability of a token being
        logit minus normaliser; sequences: [rows, length], the tokens so far, the start token first.
        """
        length = sequences.shape[1]
        self._no_repeated_ngram(logits, sequences)
        self._no_bad_words(logits, sequences)
        if length <= self._decoding.min_new_tokens:
            logits[:, self._ends] = -math.inf
        if length == 1 and self._decoding.forced_first is not None:
            _force(logits, normaliser, [self._decoding.forced_first])
        if length == self._decoding.max_new_tokens and self._decoding.forced_last:
            _force(logits, normaliser, list(self._decoding.forced_last))
        if len(self._never):
            logits[:, self._never] = -math.inf
        if length == self._first_free and len(self._never_first):
            logits[:, self._never_first] = -math.inf
        if self._decoding.renormalised:
            normaliser.copy_(logits.logsumexp(-1, keepdim=True))

    def _no_repeated_ngram(self, logits: Tensor, sequences: Tensor) -> None:
        """No n-gram twice: forbid what followed an earlier occurrence of the last n - 1 tokens."""
        size = self._decoding.no_repeat_ngram_size
        if size < 1 or sequences.shape[1] < size:
            return
        earlier = sequences.unfold(1, size, 1)  # [rows, windows, size]
        last = sequences[:, sequences.shape[1] - size + 1 :]  # [rows, size - 1]
        repeats = (earlier[..., :-1] == last[:, None]).all(-1)
        # Added, not set where they are: to find them would wait for the device.
        logits.scatter_add_(1, earlier[..., -1], torch.where(repeats, -math.inf, 0.0))

    def _no_bad_words(self, logits: Tensor, sequences: Tensor) -> None:
        for start, end in self._bad_words:
            if sequences.shape[1] >= len(start):
                about_to_end = (sequences[:, -len(start) :] == start).all(-1)
                logits[:, end] = logits[:, end].masked_fill(about_to_end, -math.inf)


def _force(logits: Tensor, normaliser: Tensor, tokens: list[int]) -> None:
    logits.fill_(-math.inf)
    logits[:, tokens] = normaliser
