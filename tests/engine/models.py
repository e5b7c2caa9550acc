"""Tiny real models of every family, random but fixed: 200 KB, no downloads."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BigBirdPegasusConfig,
    EncoderDecoderConfig,
    LEDConfig,
    LongT5Config,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    PegasusXConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProphetNetConfig,
    RobertaConfig,
    T5Config,
    T5GemmaConfig,
    T5GemmaModuleConfig,
    UMT5Config,
)

VOCABULARY = 384  # ByT5's
SPECIAL = 3  # how many of the first tokens are no text

Build = Callable[[], PreTrainedConfig]

UNTIED = {"tie_word_embeddings": False}  # random weights that are tied write the same token again and again

T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "initializer_factor": 2.0,
}
_GATED = {"feed_forward_proj": "gated-gelu", **UNTIED}
_BART: dict[str, Any] = {
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
    "forced_eos_token_id": None,
    **UNTIED,
}
_LONG = {"max_position_embeddings": 8192}
_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
_T5GEMMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "intermediate_size": 64,
    "sliding_window": 8,  # shorter than articles and headlines, as 4096 seldom is
    "attn_logit_softcapping": 2.0,  # low enough to be felt
    "initializer_range": 0.3,
}


def _tokens(*, pad: int, eos: int, start: int) -> dict[str, int]:
    return {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": start}


def of_two_parts(
    encoder: type[PreTrainedConfig], decoder: type[PreTrainedConfig], *, start: int, pad: int, eos: int
) -> EncoderDecoderConfig:
    """An encoder and a decoder of another width, each of a family that usually is one alone."""
    special = {"pad_token_id": pad, "eos_token_id": eos, "bos_token_id": start}
    narrow = _BERT | {"hidden_size": 16, "num_attention_heads": 2, "is_decoder": True, "add_cross_attention": True}
    parts = {
        "encoder": encoder(**_BERT, **special).to_dict(),
        "decoder": decoder(**narrow, **special).to_dict() | UNTIED,
    }
    return EncoderDecoderConfig(**parts, **_tokens(pad=pad, eos=eos, start=start), vocab_size=VOCABULARY)


FAMILIES: dict[str, Build] = {
    "t5": lambda: T5Config(**T5),
    "flan-t5": lambda: T5Config(**T5, **_GATED),
    "mt5": lambda: MT5Config(**T5, **_GATED),
    "umt5": lambda: UMT5Config(**T5, **_GATED),
    "bart": lambda: BartConfig(**_BART, **_tokens(pad=0, eos=1, start=1), bos_token_id=2),
    "mbart": lambda: MBartConfig(**_BART, **_tokens(pad=1, eos=2, start=2)),
    "pegasus": lambda: PegasusConfig(**_BART, **_tokens(pad=0, eos=1, start=0), scale_embedding=True),
    "marian": lambda: MarianConfig(**_BART, **_tokens(pad=2, eos=0, start=2), scale_embedding=True),
    "m2m-100": lambda: M2M100Config(**_BART, **_tokens(pad=1, eos=2, start=2)),
    "pegasus-x": lambda: PegasusXConfig(
        **_BART | _LONG, **_tokens(pad=0, eos=1, start=0), block_size=16, num_global_tokens=4
    ),
    "led": lambda: LEDConfig(
        **{name: value for name, value in _BART.items() if name != "max_position_embeddings"},
        **_tokens(pad=1, eos=2, start=2),
        max_encoder_position_embeddings=8192,
        max_decoder_position_embeddings=128,
        attention_window=[8, 16],
    ),
    "longt5, local": lambda: LongT5Config(**T5, **_GATED, encoder_attention_type="local", local_radius=7),
    "longt5, global": lambda: LongT5Config(
        **T5, **_GATED, encoder_attention_type="transient-global", local_radius=7, global_block_size=8
    ),
    "bigbird-pegasus": lambda: BigBirdPegasusConfig(
        **_BART | _LONG, **_tokens(pad=0, eos=1, start=2), block_size=4, num_random_blocks=2
    ),
    "prophetnet": lambda: ProphetNetConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.2,
        **_tokens(pad=0, eos=2, start=2),
        **UNTIED,
    ),
    "bert2bert": lambda: of_two_parts(BertConfig, BertConfig, start=2, pad=0, eos=1),
    "roberta2roberta": lambda: of_two_parts(RobertaConfig, RobertaConfig, start=0, pad=1, eos=2),
    "t5gemma": lambda: T5GemmaConfig(
        encoder=T5GemmaModuleConfig(**_T5GEMMA),
        decoder=T5GemmaModuleConfig(**_T5GEMMA),
        decoder_start_token_id=2,
        vocab_size=VOCABULARY,
        **UNTIED,
    ),
}


def build(family: str) -> PreTrainedModel:
    return of(FAMILIES[family]())


def of(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return AutoModelForSeq2SeqLM.from_config(config).eval()
