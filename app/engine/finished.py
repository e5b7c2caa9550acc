"""The finished headlines of a search: the best of each lane, on the device until the end."""

from collections.abc import Sequence

import torch
from torch import Tensor

UNFINISHED = -1.0e9  # the score of a place that no finished headline has taken


class Finished:
    """The best finished headlines of each lane."""

    def __init__(self, running: Tensor, places: int) -> None:
        """running: [lanes, beams, length], for the shape; places: how many headlines each lane keeps."""
        self._sequences = running[:, :1].repeat(1, places, 1)
        self.scores = torch.full((len(running), places), UNFINISHED, device=running.device)  # best first
        self._sums = torch.zeros_like(self.scores)
        self._lengths = torch.zeros_like(self.scores, dtype=torch.long)

    def take(self, sequences: Tensor, scores: Tensor, sums: Tensor, length: int) -> None:
        """Keep the best of these and of those that are here; sequences: [lanes, new, length]."""
        self.scores, best = torch.cat([self.scores, scores], 1).topk(self.scores.shape[1])
        self._sequences = gather(torch.cat([self._sequences, sequences], 1), best)
        self._sums = torch.cat([self._sums, sums], 1).gather(1, best)
        lengths = torch.full_like(sums, length, dtype=torch.long)
        self._lengths = torch.cat([self._lengths, lengths], 1).gather(1, best)

    def keep(self, lanes: Tensor) -> None:
        for name in ("_sequences", "scores", "_sums", "_lengths"):
            setattr(self, name, getattr(self, name)[lanes])

    def table(self) -> Tensor:
        """All in one, [lanes, places, numbers]: score, sum, length, sequence. Tokens are small enough for float32."""
        heads = torch.stack([self.scores, self._sums, self._lengths.float()], -1)
        return torch.cat([heads, self._sequences.float()], -1)

    @staticmethod
    def read(numbers: Sequence[float]) -> tuple[tuple[int, ...], float] | None:
        """Tokens and mean log-probability from an entry of the table; None where no headline is."""
        score, total, length, _, *sequence = numbers
        return (tuple(map(int, sequence[: int(length)])), total / length) if score > UNFINISHED else None


def gather(sequences: Tensor, beams: Tensor) -> Tensor:
    """sequences: [lanes, beams, length]; beams: [lanes, chosen] -> [lanes, chosen, length]."""
    return sequences.gather(1, beams[..., None].expand(-1, -1, sequences.shape[-1]))
