"""Tiny real models of every family, random but fixed: 200 KB, no downloads."""

from collections.abc import Callable

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 384  # ByT5's


def t5() -> PreTrainedModel:
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        initializer_factor=2.0,
    )
    return T5ForConditionalGeneration(config)


def _bart_shape() -> dict[str, object]:
    return {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "init_std": 0.2,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def bart() -> PreTrainedModel:
    return BartForConditionalGeneration(
        BartConfig(**_bart_shape(), bos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None)
    )


def pegasus() -> PreTrainedModel:
    return PegasusForConditionalGeneration(
        PegasusConfig(**_bart_shape(), decoder_start_token_id=0, forced_eos_token_id=None)
    )


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {"t5": t5, "bart": bart, "pegasus": pegasus}


def build(family: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return FAMILIES[family]().eval()
