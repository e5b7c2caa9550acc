"""Articles as tokens in, the encoder's output for them out: what the decoder's cross-attention reads."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Encoder:
    """A model's encoder, for articles of any lengths together."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._encoder = model.get_encoder()

    def encode(self, articles: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [articles, tokens, width], and a mask [articles, tokens] where there is padding."""
        device = self._model.device
        longest = max(map(len, articles))
        mask = torch.zeros(len(articles), longest, dtype=torch.long)
        for row, article in zip(mask, articles, strict=True):
            row[: len(article)] = 1
        padded = not bool(mask.all())
        mask = mask.to(device, non_blocking=True)
        if not padded or device.type != "cpu":
            tokens = torch.zeros(len(articles), longest, dtype=torch.long)
            for row, article in zip(tokens, articles, strict=True):
                row[: len(article)] = torch.tensor(article)
            return self._encode_rows(tokens, mask if padded else None), mask if padded else None
        return self._encode_unpadded(articles, longest), mask

    def _encode_unpadded(self, articles: Sequence[Sequence[int]], longest: int) -> Tensor:
        """Each article at its own length: on a CPU padding costs more than a bigger product saves."""
        outputs = [self._encode_rows(torch.tensor([article]), None)[0] for article in articles]
        memory = outputs[0].new_zeros(len(articles), longest, outputs[0].shape[-1])
        for row, output in zip(memory, outputs, strict=True):
            row[: len(output)] = output
        return memory

    def _encode_rows(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        output = self._encoder(input_ids=tokens.to(self._model.device, non_blocking=True), attention_mask=mask)
        hidden: Tensor = output.last_hidden_state
        return hidden
