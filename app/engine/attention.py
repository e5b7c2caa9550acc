"""Beams as queries: all beams of an article attend to one copy of its keys and values.

`generate()` copies an article's encoder output for every beam, and so projects, stores and reads the cross-attention's
keys and values once a beam. They are the same for all beams of an article; only the queries differ. So here the cache
keeps one row an article, and the beams become positions of that row's query.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped_beams"


def grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA where `beams` consecutive query rows may share one key row.

    query: [articles * beams, heads, 1, width]; key, value: [articles, heads, tokens, width];
    attention_mask: [articles or 1, 1 or heads, 1, tokens] -> [articles * beams, 1, heads, width].
    """
    rows, heads, positions, width = query.shape
    articles = key.shape[0]
    if rows == articles:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    if positions != 1:
        raise ValueError("beams share an article's keys only one token at a time")
    query = query.view(articles, -1, heads, width).transpose(1, 2)
    kwargs["is_causal"] = False  # these positions are beams, not a sequence
    attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attended.reshape(rows, 1, heads, width), None


def register() -> None:
    """Make `attn_implementation=GROUPED` known to transformers."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
