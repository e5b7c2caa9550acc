"""How a model decodes: its `generation_config.json`, with what the manifest overrides, checked and resolved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

DEFAULT_NEW_TOKENS = 20  # what generate() takes where a model says nothing

# Options of generate() that change its beams and that this engine does not have, with the value that means "off".
UNSUPPORTED: Mapping[str, Any] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "watermarking_config": None,
}


class DecodingError(ValueError):
    """A model's decoding options cannot be carried out as they stand."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Decoding options as the search needs them: token numbers, and lengths without the start token."""

    num_beams: int
    length_penalty: float
    early_stopping: bool | str
    max_new_tokens: int
    min_new_tokens: int
    no_repeat_ngram_size: int
    start_token: int
    end_tokens: tuple[int, ...]
    forced_first: int | None
    forced_last: tuple[int, ...]
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    bad_words: tuple[tuple[int, ...], ...]
    renormalised: bool  # what is left of the probabilities after all that sums to one again

    @classmethod
    def of(
        cls, config: GenerationConfig, overrides: Mapping[str, Any] | None = None, *, positions: int | None = None
    ) -> "Decoding":
        """Read `config`, `overrides` first; `positions` is how many tokens the decoder can place, if it is bounded.

        Raises DecodingError for options that are unknown, unsupported or contradict each other.
        """
        options = _merged(config, overrides or {})
        _refuse_unsupported(options)
        max_new_tokens = _max_new_tokens(options, positions)
        min_new_tokens = _min_new_tokens(options)
        if min_new_tokens > max_new_tokens:
            raise DecodingError(
                f"min_new_tokens ({min_new_tokens}) is more than max_new_tokens ({max_new_tokens}); "
                "set both under `decoding` in the manifest"
            )
        start = options.get("decoder_start_token_id")
        start = options.get("bos_token_id") if start is None else start
        end_tokens = _tokens(options.get("eos_token_id"))
        if start is None or not end_tokens:
            raise DecodingError("the model names no decoder_start_token_id or no eos_token_id")
        bad_words = tuple(tuple(word) for word in options.get("bad_words_ids") or ())
        return cls(
            num_beams=options.get("num_beams") or 1,
            length_penalty=_or(options.get("length_penalty"), 1.0),
            early_stopping=_or(options.get("early_stopping"), False),
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=options.get("no_repeat_ngram_size") or 0,
            start_token=start,
            end_tokens=end_tokens,
            forced_first=options.get("forced_bos_token_id"),
            forced_last=_tokens(options.get("forced_eos_token_id")),
            suppressed=_tokens(options.get("suppress_tokens")),
            suppressed_first=_tokens(options.get("begin_suppress_tokens")),
            bad_words=tuple(word for word in bad_words if word and word not in {(end,) for end in end_tokens}),
            renormalised=bool(options.get("renormalize_logits")),
        )


def _merged(config: GenerationConfig, overrides: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = config.to_dict()
    unknown = sorted(name for name in overrides if not hasattr(config, name))
    if unknown:
        raise DecodingError(f"unknown decoding option {', '.join(unknown)}")
    merged = known | dict(overrides)
    # A length in new tokens wins over the same in all tokens, unless only the latter is overridden.
    for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if whole in overrides and new not in overrides:
            merged[new] = None
    return merged


def _refuse_unsupported(options: Mapping[str, Any]) -> None:
    for name, off in UNSUPPORTED.items():
        if options.get(name) not in (None, off):
            raise DecodingError(
                f"decoding option {name}={options[name]!r} is not supported; "
                f"set it to {off!r} under `decoding` in the manifest to serve the model without it"
            )


def _max_new_tokens(options: Mapping[str, Any], positions: int | None) -> int:
    if options.get("max_new_tokens") is not None:
        wanted = int(options["max_new_tokens"])
    elif options.get("max_length") is not None:
        wanted = int(options["max_length"]) - 1  # the start token counts as one there
    else:
        wanted = DEFAULT_NEW_TOKENS
    if positions is not None:
        wanted = min(wanted, positions - 1)
    if wanted < 1:
        raise DecodingError(f"no room for a headline: {wanted} new tokens")
    return wanted


def _min_new_tokens(options: Mapping[str, Any]) -> int:
    if options.get("min_new_tokens") is not None:
        return int(options["min_new_tokens"])
    return max(int(options.get("min_length") or 0) - 1, 0)


def _tokens(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
