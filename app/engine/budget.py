"""How many tokens a batch may have on a card: known at the start, from the memory that is free then."""

from dataclasses import dataclass

import torch
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
        config = model.config.get_text_config(decoder=True)
        inner = next((size for name in INNER if (size := getattr(config, name, None))), 4 * config.hidden_size)
        layers = next(size for name in LAYERS if (size := getattr(config, name, None)))
        return cls(
            config.hidden_size, inner, layers, config.vocab_size, max_new_tokens, torch.finfo(model.dtype).bits // 8
        )


INNER = ("decoder_ffn_dim", "d_ff", "intermediate_size")
LAYERS = ("decoder_layers", "num_decoder_layers", "num_layers", "num_hidden_layers")


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
