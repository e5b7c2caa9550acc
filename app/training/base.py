"""The model that a training starts from. Knows no pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from app.training.errors import TrainingError
from app.training.examples import mask_token
from app.training.recipe import Recipe

DROPOUTS = (
    "dropout",
    "dropout_rate",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)


@dataclass(frozen=True)
class Base:
    """A model in float32, its tokenizer, and the prefix that its articles get."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: str


def load_base(folder: Path, recipe: Recipe) -> Base:
    """The model of a transformers folder. Raises TrainingError for one that does not turn texts into texts."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not config.is_encoder_decoder:
            raise TrainingError(f"{folder} is no encoder-decoder model ({config.model_type}): give it as --warm-start")
        if recipe.dropout is not None:
            _set_dropout(config, recipe.dropout)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"cannot start from {folder}: {reason}") from error
    _check(tokenizer, config, recipe, folder)
    return Base(model, tokenizer, prefix_of(config) if recipe.prefix is None else recipe.prefix)


def _set_dropout(config: Any, dropout: float) -> None:
    for part in (config, getattr(config, "encoder", None), getattr(config, "decoder", None)):
        for name in DROPOUTS:
            if isinstance(getattr(part, name, None), int | float):
                setattr(part, name, dropout)


def _check(tokenizer: Any, config: Any, recipe: Recipe, folder: Path) -> None:
    if tokenizer.pad_token_id is None:
        raise TrainingError(f"{folder}: its vocabulary has no pad token, and batches cannot be filled up without one")
    if recipe.infill:
        mask_token(tokenizer)
    positions = getattr(config, "max_position_embeddings", None)
    if positions and recipe.max_source_tokens > positions:
        raise TrainingError(f"{folder} takes at most {positions} tokens, not {recipe.max_source_tokens}")


def prefix_of(config: Any) -> str:
    """What the base was taught to find before an article to be summarised: T5's "summarize: "."""
    tasks = getattr(config, "task_specific_params", None) or {}
    return str(tasks.get("summarization", {}).get("prefix", ""))


@torch.no_grad()
def mix(model: PreTrainedModel, base: PreTrainedModel, share: float) -> None:
    """Move the weights of `model` that share of the way back to those of its base (Wortsman et al. 2022,
    https://arxiv.org/abs/2109.01903)."""
    before = base.state_dict()
    for name, weight in model.state_dict().items():
        if weight.is_floating_point():
            weight.lerp_(before[name].to(weight), share)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
    """Write the model as a transformers folder, its weights as `dtype`, its way of writing as it was."""
    written = GenerationConfig.from_dict(model.generation_config.to_dict())
    model = model.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder)
    written.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
