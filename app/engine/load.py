"""A model folder becomes an Engine on a device: checked, in the right precision, ready to be warmed up."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from app.engine.budget import ON_CPU, Shape, max_batch_tokens
from app.engine.cores import Cores
from app.engine.decoder import group_beams
from app.engine.decoding import Decoding
from app.engine.engine import Engine
from app.engine.linears import LAYOUTS, can_lay_out, lay_out, multiplies_bfloat16
from app.engine.memory import share_arena
from app.engine.names import Names
from app.engine.tokens import ArticleTokenizer
from app.engine.vocabulary import Vocabulary
from app.headlines.support import knows_names
from app.store.manifest import Manifest

log = logging.getLogger(__name__)
DEFAULT_SOURCE_TOKENS = 512
# Positions that no token has, besides those up to the padding's number; ProphetNet also looks one ahead.
RESERVED_POSITIONS = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "prophetnet": 2}
UNBOUNDED = 10**9  # a tokenizer without a length of its own says about 10**30


class LoadError(Exception):
    """A folder is not a model that can be served here; the message is one line for a person."""


@dataclass(frozen=True)
class ModelInfo:
    """What a client may know of a loaded model."""

    name: str
    version: str
    language: str
    licence: str
    parameters: int
    max_source_tokens: int
    device: str
    dtype: str
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedModel:
    info: ModelInfo
    engine: Engine
    tokenizer: ArticleTokenizer
    workers: int  # how many batches it runs at a time
    max_batch_tokens: int = ON_CPU  # what its device has memory for

    def names(self, tokens: Sequence[int]) -> Names | None:
        """The names in an article's tokens, to be written as they are; None where it is not known what is a name."""
        vocabulary = self.engine.vocabulary
        return Names(tokens, vocabulary) if vocabulary and knows_names(self.info.language) else None


def load(
    folder: Path, manifest: Manifest | None, *, device: str = "auto", dtype: str = "auto", quantize: str = "none"
) -> LoadedModel:
    """Load `folder`, which `manifest` describes if it has one. Raises LoadError."""
    target = _device(device)
    precision = _precision(dtype, quantize, target)
    workers = _workers(target)
    share_arena()
    if workers > 1:
        torch.set_num_threads(1)
    model = _model(folder, _dtype_of_weights(precision, target), target)
    prefix = manifest.task_prefix if manifest else ""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        max_tokens = (manifest.max_source_tokens if manifest else None) or _source_tokens(model.config, tokenizer)
        reader = ArticleTokenizer(tokenizer, prefix=prefix, max_tokens=max_tokens)
        overrides = manifest.decoding if manifest else {}
        decoding = Decoding.of(model.generation_config, overrides, positions=_positions(model.config, "decoder"))
        vocabulary = Vocabulary(tokenizer, size=model.config.get_text_config(decoder=True).vocab_size)
    except (OSError, ValueError, ImportError) as error:
        raise LoadError(f"{folder}: {_first_line(error)}") from error
    info = ModelInfo(
        name=manifest.name if manifest else folder.resolve().name,
        version=str(manifest.version) if manifest else "0",
        language=manifest.language if manifest else "unknown",
        licence=manifest.licence if manifest else "unknown",
        parameters=model.num_parameters(),
        max_source_tokens=max_tokens,
        device=str(target),
        dtype=precision,
        scores=dict(manifest.scores) if manifest else {},
    )
    if _laid_out(precision, target):
        lay_out(model, precision)
    engine = Engine(model, decoding, vocabulary, Cores(workers))
    return LoadedModel(info, engine, reader, workers, _max_batch_tokens(model, decoding))


def _model(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    if not any(folder.glob("*.safetensors")):
        raise LoadError(f"{folder}: no *.safetensors in it (pickled weights such as pytorch_model.bin are never read)")
    transformers_logging.disable_progress_bar()
    try:
        if (folder / "generation_config.json").exists():
            GenerationConfig.from_pretrained(folder)  # the model's own loading passes over a damaged one
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds; all mean that this folder is no model for us
        raise LoadError(f"{folder}: not an encoder-decoder model that can be loaded: {_first_line(error)}") from error
    if absent := sorted(report["missing_keys"]):
        raise LoadError(f"{folder}: the weights lack {len(absent)} tensors of its architecture, {absent[0]} among them")
    model.to(device)
    try:
        group_beams(model)
    except Exception as error:  # as many kinds as above
        raise LoadError(f"{folder}: its decoder cannot be run: {_first_line(error)}") from error
    return model


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise LoadError(f"device {name!r} cannot be used: {_first_line(error)}") from error
    return device


def _precision(dtype: str, quantize: str, device: torch.device) -> str:
    """What the model multiplies in: float32, bfloat16, float16 or int8."""
    if quantize == "int8":
        if device.type != "cpu" or not can_lay_out():
            raise LoadError(f"quantize=int8 needs an x86 processor as the device, not {device}")
        if dtype not in ("auto", "float32"):
            raise LoadError(f"quantize=int8 and dtype={dtype} exclude each other")
        return "int8"
    if dtype != "auto":
        return dtype
    return "bfloat16" if device.type == "cuda" or (device.type == "cpu" and multiplies_bfloat16()) else "float32"


def _dtype_of_weights(precision: str, device: torch.device) -> torch.dtype:
    """In float32 is what `lay_out` starts from, and all but the products then."""
    dtype: torch.dtype = torch.float32 if _laid_out(precision, device) else getattr(torch, precision)
    return dtype


def _laid_out(precision: str, device: torch.device) -> bool:
    return device.type == "cpu" and precision in LAYOUTS and can_lay_out()


def _max_batch_tokens(model: PreTrainedModel, decoding: Decoding) -> int:
    if model.device.type != "cuda":
        return ON_CPU
    free, _ = torch.cuda.mem_get_info(model.device)
    tokens = max_batch_tokens(Shape.of(model, max_new_tokens=decoding.max_new_tokens), free)
    log.info("%.1f GB of %s are free: at most %d tokens in a batch", free / 1e9, model.device, tokens)
    return tokens


def _source_tokens(config: PretrainedConfig, tokenizer: Any) -> int:
    lengths = [tokenizer.model_max_length, _positions(config, "encoder"), getattr(config, "n_positions", None)]
    return min((length for length in lengths if length and length < UNBOUNDED), default=DEFAULT_SOURCE_TOKENS)


def _positions(config: PretrainedConfig, part: str) -> int | None:
    """How many tokens the part, "encoder" or "decoder", can place, if that is bounded."""
    config = getattr(config, part, config)  # some families have a config for each part
    positions: int | None = getattr(config, f"max_{part}_position_embeddings", None)  # LED
    if positions is None:
        positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in RESERVED_POSITIONS:
        positions -= config.pad_token_id + RESERVED_POSITIONS[config.model_type]
    return positions


def _workers(device: torch.device) -> int:
    """On a CPU one batch a core, each on one thread: measured faster than one batch on all cores."""
    return cores() if device.type == "cpu" else 1


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
