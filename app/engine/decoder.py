"""One batch's way through a model's decoder: its memory of the articles, its caches, one step at a time."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel


class Decoder:
    """Steps `rows = articles * beams` sequences forward together.

    With `grouped`, the model attends through `attention.grouped_attention` and everything about the articles is held
    once; else (a family whose attention does not go through transformers' interface) once a beam, as generate() does.
    """

    def __init__(self, model: PreTrainedModel, memory: Tensor, mask: Tensor | None, *, grouped: bool) -> None:
        """memory: the encoder's output [articles, tokens, width]; mask: [articles, tokens], 0 on padding, or None."""
        self._model = model
        self._memory = memory
        self._grouped = grouped
        self._mask = mask[:, None, None].bool() if grouped and mask is not None else mask
        config = model.config.get_text_config(decoder=True)
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))

    @property
    def device(self) -> torch.device:
        return self._memory.device

    def step(self, tokens: Tensor) -> Tensor:
        """The next tokens' logits [rows, vocabulary], in float32, from the last tokens [rows]."""
        output: Any = self._model(
            encoder_outputs=(self._memory,),
            attention_mask=self._mask,
            decoder_input_ids=tokens[:, None],
            cache=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits.float()

    def spread(self, beams: int) -> None:
        """From one row an article to `beams` rows, after the first step."""
        self._cache.self_attention_cache.batch_repeat_interleave(beams)
        if not self._grouped:
            self._cache.cross_attention_cache.batch_repeat_interleave(beams)
            self._memory = self._memory.repeat_interleave(beams, dim=0)
            self._mask = None if self._mask is None else self._mask.repeat_interleave(beams, dim=0)

    def follow(self, parents: Tensor) -> None:
        """Row i goes on from what was row parents[i], of the same article."""
        self._cache.self_attention_cache.reorder_cache(parents)

    def keep(self, articles: Tensor, rows: Tensor) -> None:
        """Drop all but these articles, whose rows are `rows`."""
        kept = articles if self._grouped else rows
        self._memory = self._memory[kept]
        self._mask = None if self._mask is None else self._mask[kept]
        self._cache.self_attention_cache.reorder_cache(rows)
        self._cache.cross_attention_cache.reorder_cache(kept)
