"""Articles as tokens in, the encoder's output for them out: what the decoder's cross-attention reads."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Encoder:
    """A model's encoder, for articles of any lengths together. Safe to call from several threads at once.

    Models for long articles (LED, LongT5, Pegasus-X, BigBird-Pegasus) read in windows or blocks, and fill the last one
    up by themselves.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._encoder = model.get_encoder()
        self._pad: int = self._encoder.config.pad_token_id or 0
        self._first_is_global = model.config.model_type == "led"
        self._sparse = getattr(self._encoder, "attention_type", None) == "block_sparse"
        self._full = _attending_in_full(self._encoder) if self._sparse else self._encoder
        # What is padding counts in BigBird: the last block is one that all others see.
        self._unpadded = self._sparse or model.device.type == "cpu"

    def encode(self, articles: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """The encoder's output [articles, tokens, width], and a mask [articles, tokens] where there is padding."""
        longest = max(map(len, articles))
        on_card = self._model.device.type == "cuda"
        both = torch.zeros(2, len(articles), longest, dtype=torch.long, pin_memory=on_card)  # one transfer
        both[0] = self._pad
        for place, article in enumerate(articles):
            both[0, place, : len(article)] = torch.tensor(article)
            both[1, place, : len(article)] = 1
        padded = any(len(article) < longest for article in articles)
        tokens, mask = both.to(self._model.device, non_blocking=True)
        if padded and self._unpadded:
            return self._encode_unpadded(articles, longest), mask
        return self._encode_rows(tokens, mask if padded else None), mask if padded else None

    def _encode_unpadded(self, articles: Sequence[Sequence[int]], longest: int) -> Tensor:
        """Each article at its own length: on a CPU padding costs more than a bigger product saves."""
        outputs = [self._encode_rows(torch.tensor([article]), None)[0] for article in articles]
        memory = outputs[0].new_zeros(len(articles), longest, outputs[0].shape[-1])
        for row, output in zip(memory, outputs, strict=True):
            row[: len(output)] = output
        return memory

    def _encode_rows(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens, mask: [articles, tokens] -> [articles, tokens, width]."""
        tokens = tokens.to(self._model.device, non_blocking=True)
        encoder = self._encoder if self._reads_blocks(tokens.shape[1]) else self._full
        options: dict[str, Any] = {}
        if self._first_is_global:  # it sees all and all see it, as LED's checkpoints for summaries were trained
            options["global_attention_mask"] = torch.zeros_like(tokens)
            options["global_attention_mask"][:, 0] = 1
        output = encoder(input_ids=tokens, attention_mask=mask, **options)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _reads_blocks(self, length: int) -> bool:
        """Whether BigBird reads an article of that length in blocks: from where they are fewer than all of it."""
        config = self._encoder.config
        return self._sparse and length > (5 + 2 * config.num_random_blocks) * config.block_size


def _attending_in_full(encoder: PreTrainedModel) -> PreTrainedModel:
    """A BigBird encoder of the same weights for short articles.

    The first short article makes transformers' own attend in full from then on, to long ones too.
    """
    layers = {id(layer): layer for layer in encoder.modules() if not list(layer.children())}
    twin: PreTrainedModel = copy.deepcopy(encoder, layers)  # those are shared
    twin.set_attention_type("original_full")
    return twin
