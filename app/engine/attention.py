"""Beams as queries: all beams of an article attend to one copy of its keys and values.

`generate()` copies an article's encoder output for every beam, and so projects, stores and reads the cross-attention's
keys and values once a beam. They are the same for all beams of an article; only the queries differ. So here the cache
keeps one row an article, and the beams become positions of that row's query.
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped_beams"


def grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention where `beams` consecutive query rows may share one key row.

    query: [articles * beams, heads, 1, width]; key, value: [articles, heads, tokens, width];
    attention_mask: [articles or 1, 1 or heads, 1, tokens] -> [articles * beams, 1, heads, width].
    """
    attend = sdpa_attention_forward if kwargs.get("softcap") is None else _capped_attention
    rows, heads, positions, width = query.shape
    articles = key.shape[0]
    if rows == articles:
        return attend(module, query, key, value, attention_mask, **kwargs)
    if positions != 1:
        raise ValueError("beams share an article's keys only one token at a time")
    query = query.view(articles, -1, heads, width).transpose(1, 2)
    kwargs["is_causal"] = False  # these positions are beams, not a sequence
    attended, _ = attend(module, query, key, value, attention_mask, **kwargs)
    return attended.reshape(rows, 1, heads, width), None


def _capped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    softcap: float,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with scores held between -softcap and softcap, as T5Gemma has them; torch's own cannot do that.

    query: [articles, heads, positions, width]; key, value: [articles, key heads, tokens, width]; attention_mask: bool.
    """
    groups: int = module.num_key_value_groups  # type: ignore[assignment]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * scaling
    scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -math.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ repeat_kv(value, groups)).transpose(1, 2).contiguous(), None


class FoldedCrossAttention(torch.nn.Module):
    """In the place of a cross-attention that computes by itself, as LED's: an article's beams are its positions."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, hidden_states: Tensor, key_value_states: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Any, ...]:
        """hidden_states: [articles * beams, positions, width]; key_value_states: [articles, tokens, width];
        attention_mask: bool [articles, 1, 1, tokens] -> first of all [articles * beams, positions, width].
        """
        folded = hidden_states.reshape(len(key_value_states), -1, hidden_states.shape[-1])
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            lowest = torch.finfo(folded.dtype).min
            added = torch.zeros_like(attention_mask, dtype=folded.dtype).masked_fill(~attention_mask, lowest)
            attention_mask = added.expand(-1, -1, folded.shape[1], -1)
        attended, *rest = self.attention(
            hidden_states=folded, key_value_states=key_value_states, attention_mask=attention_mask, **options
        )
        return attended.reshape(hidden_states.shape), *rest


def register() -> None:
    """Make `attn_implementation=GROUPED` known to transformers."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
