"""One batch's way through a model's decoder: its memory of the articles, its caches, one step at a time."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from app.engine.attention import GROUPED, FoldedCrossAttention, register


class Decoder:
    """Steps `rows = articles * beams` sequences forward together.

    With `grouped`, the model attends to the articles as in `attention.py` and everything about them is held once; else
    once a beam, as generate() does.
    """

    def __init__(self, model: PreTrainedModel, memory: Tensor, mask: Tensor | None, *, grouped: bool) -> None:
        """memory: the encoder's output [articles, tokens, width]; mask: [articles, tokens], 0 on padding, or None."""
        self._model = model
        self._memory = memory
        self._grouped = grouped
        self._mask = mask[:, None, None].bool() if grouped and mask is not None else mask
        # T5's own config knows how deep its encoder is, its decoder's how deep that is.
        config = model.get_decoder().config.get_text_config(decoder=True)
        # The cross-attention sees the whole article, also where the decoder's own attention slides.
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache())

    @property
    def device(self) -> torch.device:
        return self._memory.device

    def step(self, tokens: Tensor) -> Tensor:
        """The next tokens' logits [rows, vocabulary], in float32, from the last tokens [rows]."""
        output: Any = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._memory),
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


def group_beams(model: PreTrainedModel) -> None:
    """Let all beams of an article share its keys and values in `model`'s decoder, if that is sure to change nothing.

    A class says too little: some let the interface be set and attend without it, some go through it and say that they
    do not. So the decoder is asked: two articles, one of them padded, with two beams each, both ways. The encoder stays
    as it is; families have an attention of their own there.
    """
    register()
    decoder = model.get_decoder()
    plain: PretrainedConfig = decoder.config
    expected = _second_step(model, grouped=False)
    shared = copy.copy(plain)
    shared._attn_implementation = GROUPED
    _configure(decoder, plain, shared)
    if _agrees(model, expected):
        return
    folded = _fold(decoder)
    if folded and _agrees(model, expected):
        return
    for layer in folded:
        layer.encoder_attn = layer.encoder_attn.attention
    _configure(decoder, shared, plain)


def is_grouped(model: PreTrainedModel) -> bool:
    """Whether `group_beams` had its way."""
    return bool(model.get_decoder().config._attn_implementation == GROUPED)


def _agrees(model: PreTrainedModel, expected: Tensor) -> bool:
    try:
        found = _second_step(model, grouped=True)
    except (RuntimeError, ValueError):  # rows of queries and of keys that do not match
        return False
    near = torch.finfo(model.dtype).eps ** 0.5 * expected.nan_to_num(0, 0, 0).abs().max().item()
    return torch.allclose(found, expected, rtol=0, atol=near)


@torch.inference_mode()
def _second_step(model: PreTrainedModel, *, grouped: bool) -> Tensor:
    """The logits [4, vocabulary] of the first step that two beams of two articles take apart."""
    width = model.get_encoder().config.hidden_size
    memory = torch.arange(2 * 3 * width, device=model.device).sin().view(2, 3, width).to(model.dtype)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], device=model.device)
    decoder = Decoder(model, memory, mask, grouped=grouped)
    decoder.step(torch.tensor([3, 3], device=model.device))
    decoder.spread(2)
    return decoder.step(torch.tensor([4, 5, 5, 6], device=model.device))


def _configure(decoder: torch.nn.Module, old: PretrainedConfig, new: PretrainedConfig) -> None:
    for module in decoder.modules():
        if getattr(module, "config", None) is old:
            module.config = new


def _fold(decoder: torch.nn.Module) -> list[Any]:
    """Fold the cross-attention of the decoder's layers where it has the name that BART gave it; those layers."""
    layers: list[Any] = [module for module in decoder.modules() if hasattr(module, "encoder_attn")]
    for layer in layers:
        layer.encoder_attn = FoldedCrossAttention(layer.encoder_attn)
    return layers
