"""The proof of the engine: the tokens that transformers' generate() finds, under the same options."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from app.engine.decoder import group_beams, is_grouped
from app.engine.decoding import Decoding
from app.engine.engine import Engine, Job
from tests.engine.models import FAMILIES, SPECIAL, VOCABULARY, build

LENGTHS = (37, 5, 64, 37, 12, 1, 90)  # two alike; articles of one batch
FEW_LENGTHS = (37, 90, 5, 37)

# For every family.
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4},
    "wide beam, three wanted": {"num_beams": 8, "num_return_sequences": 3},
    "short ones pay": {"num_beams": 4, "length_penalty": 0.6},
    "long ones pay": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    "to the last": {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0},
    "no pair twice": {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": True},
    "greedy, no triple twice": {"num_beams": 1, "no_repeat_ngram_size": 3},
    "lengths": {"num_beams": 4, "min_new_tokens": 6, "max_new_tokens": 9},
    "forced": {"num_beams": 4, "forced_bos_token_id": 9, "forced_eos_token_id": 1, "max_new_tokens": 7},
    "suppressed": {"num_beams": 4, "suppress_tokens": list(range(60, 200)), "begin_suppress_tokens": [1, 5, 6]},
}
# What these do has nothing to do with a family.
MORE_OPTIONS: dict[str, dict[str, Any]] = {
    "wide beam": {"num_beams": 8},
    "short ones pay, first four": {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True},
    "long ones pay, all": {"num_beams": 4, "length_penalty": 2.0},
    "first four": {"num_beams": 4, "early_stopping": True},
    "to the last, short ones pay": {"num_beams": 4, "early_stopping": "never", "length_penalty": 0.6},
    "no triple twice": {"num_beams": 4, "no_repeat_ngram_size": 3},
    "never a token again": {"num_beams": 2, "no_repeat_ngram_size": 1},
    "lengths in all": {"num_beams": 4, "min_length": 5, "max_length": 8},
    "forced, greedy": {"num_beams": 1, "forced_bos_token_id": 9, "forced_eos_token_id": 1, "max_new_tokens": 7},
    "suppressed after forced": {"num_beams": 4, "begin_suppress_tokens": list(range(3, 300)), "forced_bos_token_id": 9},
    "bad words": {"num_beams": 4, "bad_words_ids": [[i] for i in range(3, 150)] + [[200, 201], [1]]},
    "renormalised": {"num_beams": 4, "bad_words_ids": [[i] for i in range(3, 200)], "renormalize_logits": True},
    "renormalised, forced": {"num_beams": 4, "renormalize_logits": True, "forced_bos_token_id": 9, "min_length": 6},
    "two ends": {"num_beams": 4, "eos_token_id": [1, *range(100, 140)], "early_stopping": True},
}


def articles(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(SPECIAL, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def configured(model: PreTrainedModel, options: dict[str, Any], *, tokens: int = 16) -> GenerationConfig:
    config = copy.deepcopy(model.generation_config)
    default = {} if "max_length" in options else {"max_new_tokens": tokens}
    config.update(**(default | options))
    return config


def references(model: PreTrainedModel, config: GenerationConfig, batch: list[list[int]]) -> list[list[tuple[int, ...]]]:
    """What generate() writes for a padded batch: all beams of each article (or as many as wanted), cut behind the end.

    LED gets its first token's global attention from the caller, as its documentation has it.
    """
    longest = max(map(len, batch))
    tokens = torch.full((len(batch), longest), model.config.pad_token_id)
    mask = torch.zeros_like(tokens)
    for row, article in enumerate(batch):
        tokens[row, : len(article)] = torch.tensor(article)
        mask[row, : len(article)] = 1
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if model.config.model_type == "led":
        inputs["global_attention_mask"] = torch.zeros_like(tokens)
        inputs["global_attention_mask"][:, 0] = 1
    config = copy.deepcopy(config)
    wanted = config.num_return_sequences or config.num_beams or 1
    config.num_return_sequences = wanted
    written = model.generate(**inputs, generation_config=config)[:, 1:].tolist()
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [[_until(ends, row) for row in written[place : place + wanted]] for place in range(0, len(written), wanted)]


def one_by_one(family: str, config: GenerationConfig, batch: list[list[int]]) -> list[list[tuple[int, ...]]]:
    """What generate() writes for each article alone; its BigBird remembers what it read before."""
    return [references(build(family), config, [article])[0] for article in batch]


def _until(ends: list[int], row: list[int]) -> tuple[int, ...]:
    cut = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:cut])


def fast(family: str) -> PreTrainedModel:
    model = build(family)
    group_beams(model)
    return model


_plain = cache(build)
_fast = cache(fast)


def written(engine: Engine, batch: list[list[int]]) -> list[list[tuple[int, ...]]]:
    jobs = [Job(tuple(article), engine.decoding.num_beams) for article in batch]
    return [[candidate.tokens for candidate in found] for found in engine.generate(jobs).candidates]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_beam_is_the_same(family: str, options: dict[str, Any]) -> None:
    config = configured(_plain(family), options, tokens=8)
    batch = articles(FEW_LENGTHS)
    engine = Engine(_fast(family), Decoding.of(config))
    if family == "bigbird-pegasus":  # for generate() the padding counts
        expected = one_by_one(family, config, batch)
    else:
        expected = references(_plain(family), config, batch)
    wanted = len(expected[0])
    assert [found[:wanted] for found in written(engine, batch)] == expected
    assert written(engine, batch[:1])[0][:wanted] == expected[0]


@pytest.mark.parametrize("options", MORE_OPTIONS.values(), ids=MORE_OPTIONS)
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_every_beam_is_the_same_under_more_options(family: str, options: dict[str, Any]) -> None:
    config = configured(_plain(family), options)
    expected = references(_plain(family), config, articles())
    assert written(Engine(_fast(family), Decoding.of(config)), articles()) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_jobs_of_different_beams_share_a_batch(family: str) -> None:
    batch, beams = articles(FEW_LENGTHS), [3, 1, 2, 3]
    plain = {width: configured(_plain(family), {"num_beams": width}, tokens=8) for width in set(beams)}
    jobs = [Job(tuple(article), width) for article, width in zip(batch, beams, strict=True)]
    found = Engine(_fast(family), Decoding.of(plain[1])).generate(jobs).candidates
    expected = [one_by_one(family, plain[width], [article])[0] for article, width in zip(batch, beams, strict=True)]
    assert [[candidate.tokens for candidate in candidates] for candidates in found] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_with_repeated_rows_the_tokens_are_the_same(family: str) -> None:
    """As for a family whose attention does not go through transformers' interface."""
    slow = build(family)
    assert not is_grouped(slow)
    decoding = Decoding.of(configured(slow, {"num_beams": 4, "early_stopping": True}, tokens=8))
    batch = articles(FEW_LENGTHS)
    assert written(Engine(slow, decoding), batch) == written(Engine(_fast(family), decoding), batch)


@pytest.mark.parametrize("family", ["t5", "bart", "led", "prophetnet", "t5gemma"])
def test_articles_that_finish_early_leave_without_a_trace(family: str) -> None:
    """Some articles end after two tokens, others run on: whoever stays must not notice."""
    many = [article for _ in range(2) for article in articles()]
    ends = [1, *range(10, 384, 6)]
    config = configured(_plain(family), {"num_beams": 3, "eos_token_id": ends, "early_stopping": True}, tokens=24)
    expected = references(_plain(family), config, many)
    assert len({len(found[0]) for found in expected}) > 2
    assert written(Engine(_fast(family), Decoding.of(config)), many) == expected


def test_the_score_is_the_mean_log_probability_of_the_tokens() -> None:
    model = _plain("t5")
    config = configured(model, {"num_beams": 4, "length_penalty": 2.0})
    article = articles()[0]
    best = Engine(_fast("t5"), Decoding.of(config)).generate([Job(tuple(article), 4)]).candidates[0][0]
    labels = torch.tensor([best.tokens])
    with torch.inference_mode():
        loss = model(input_ids=torch.tensor([article]), labels=labels).loss  # mean negative log-likelihood
    assert best.score == pytest.approx(-loss.item(), rel=1e-4)


@pytest.mark.parametrize("look_every", [2, 4, 7, 100])
def test_who_is_done_waits_unchanged_until_somebody_looks(look_every: int) -> None:
    many = [article for _ in range(3) for article in articles()]
    ends = [1, *range(10, 384, 6)]
    options = {"num_beams": 3, "eos_token_id": ends, "early_stopping": True, "max_new_tokens": 24}
    engine = Engine(fast("bart"), Decoding.of(configured(build("bart"), options)))
    expected = written(engine, many)
    engine._look_every = look_every
    assert written(engine, many) == expected
