"""How many tokens a batch may have on a card: known at the start, from the memory that is free then."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

ON_CPU = 8192
SHARE = 0.6  # of the free memory; the rest is for the allocator's gaps and for what kernels need in passing
LEAST, MOST = 1024, 2**18


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much memory a token takes."""

    width: int
    inner: int  # of the feed-forward layers
    decoder_layers: int
    vocabulary: int
    max_new_tokens: int
    bytes_per_number: int

    @classmethod
    def of(cls, model: PreTrainedModel, *, max_new_tokens: int) -> "Shape":
        """Read off the modules: the families name these sizes in many ways."""
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        parts = (model.get_encoder(), model.get_decoder())
        linears = [module for part in parts for module in part.modules() if isinstance(module, nn.Linear)]
        lists = [module for module in parts[1].modules() if isinstance(module, nn.ModuleList)]
        return cls(
            width=max(part.config.hidden_size for part in parts),
            inner=max(linear.out_features for linear in linears if linear.out_features != vocabulary),
            decoder_layers=max(map(len, lists)),
            vocabulary=vocabulary,
            max_new_tokens=max_new_tokens,
            bytes_per_number=torch.finfo(model.dtype).bits // 8,
        )


def max_batch_tokens(shape: Shape, free: int) -> int:
    """The tokens of a batch that fit `free` bytes, as the batcher counts: an article's own, and those of all its beams
    at full length."""
    return max(LEAST, min(MOST, int(SHARE * free / bytes_per_token(shape))))


def bytes_per_token(shape: Shape) -> float:
    """The dearer of an article's token and a headline's."""
    # An article's: keys and values for every decoder layer, and in passing one encoder layer's activations (the inner
    # ones twice, for gated layers, and six of the model's width: input, query, key, value, attended, residual).
    of_article = 2 * shape.decoder_layers * shape.width + 2 * shape.inner + 6 * shape.width
    # A headline's: its own keys and values, twice while beams are reordered; and its row's logits, in float32 and four
    # times over (raw, forbidden, drawn, penalised), shared by as many tokens as the row may have.
    of_headline = 2 * 2 * shape.decoder_layers * shape.width
    logits = 4 * 4 * shape.vocabulary / shape.max_new_tokens
    return max(of_article * shape.bytes_per_number, of_headline * shape.bytes_per_number + logits)
