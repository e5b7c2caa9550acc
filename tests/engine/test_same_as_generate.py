"""The proof of the engine: the tokens that transformers' generate() finds, under the same options."""

import copy
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from app.engine import attention
from app.engine.decoding import Decoding
from app.engine.engine import Engine, Job
from tests.engine.models import FAMILIES, VOCABULARY, build

LENGTHS = (37, 5, 64, 37, 12, 1, 90)  # two alike; articles of one batch
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4},
    "wide beam": {"num_beams": 8},
    "short ones pay": {"num_beams": 4, "length_penalty": 0.6},
    "long ones pay": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    "first four": {"num_beams": 4, "early_stopping": True},
    "to the last": {"num_beams": 4, "early_stopping": "never"},
    "no repeats": {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": True},
    "greedy, no repeats": {"num_beams": 1, "no_repeat_ngram_size": 3},
    "never a token again": {"num_beams": 2, "no_repeat_ngram_size": 1},
    "lengths": {"num_beams": 4, "min_new_tokens": 6, "max_new_tokens": 9},
    "lengths in all": {"num_beams": 4, "min_length": 5, "max_length": 8},
    "forced": {"num_beams": 4, "forced_bos_token_id": 9, "forced_eos_token_id": 1, "max_new_tokens": 7},
    "forced, greedy": {"num_beams": 1, "forced_bos_token_id": 9, "forced_eos_token_id": 1, "max_new_tokens": 7},
    "suppressed": {"num_beams": 4, "suppress_tokens": list(range(60, 200)), "begin_suppress_tokens": [1, 5, 6]},
    "suppressed after forced": {"num_beams": 4, "begin_suppress_tokens": list(range(3, 300)), "forced_bos_token_id": 9},
    "bad words": {"num_beams": 4, "bad_words_ids": [[i] for i in range(3, 150)] + [[200, 201], [1]]},
    "two ends": {"num_beams": 4, "eos_token_id": [1, *range(100, 140)], "early_stopping": True},
}


def articles() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in LENGTHS]


def configured(model: PreTrainedModel, options: dict[str, Any]) -> GenerationConfig:
    config = copy.deepcopy(model.generation_config)
    default = {} if "max_length" in options else {"max_new_tokens": 16}
    config.update(**(default | options))
    return config


def references(model: PreTrainedModel, config: GenerationConfig, batch: list[list[int]]) -> list[list[tuple[int, ...]]]:
    """What generate() writes for a padded batch: all beams of each article, cut behind the end token."""
    longest = max(map(len, batch))
    tokens = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, article in enumerate(batch):
        tokens[row, : len(article)] = torch.tensor(article)
        mask[row, : len(article)] = 1
    config = copy.deepcopy(config)
    config.num_return_sequences = config.num_beams
    written = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)[:, 1:].tolist()
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [
        [_until(ends, row) for row in written[place : place + config.num_beams]]
        for place in range(0, len(written), config.num_beams)
    ]


def _until(ends: list[int], row: list[int]) -> tuple[int, ...]:
    cut = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:cut])


def fast(family: str) -> PreTrainedModel:
    attention.register()
    model = build(family)
    model.set_attn_implementation(attention.GROUPED)
    return model


def written(engine: Engine, batch: list[list[int]]) -> list[list[tuple[int, ...]]]:
    jobs = [Job(tuple(article), engine.decoding.num_beams) for article in batch]
    return [[candidate.tokens for candidate in found] for found in engine.generate(jobs).candidates]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_beam_is_the_same(family: str, options: dict[str, Any]) -> None:
    plain = build(family)
    config = configured(plain, options)
    expected = references(plain, config, articles())
    engine = Engine(fast(family), Decoding.of(config))

    assert written(engine, articles()) == expected
    assert [written(engine, [article])[0] for article in articles()] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_the_attention_interface_writes_the_same(family: str) -> None:
    plain = build(family)
    config = configured(plain, {"num_beams": 4, "early_stopping": True})
    slow = build(family)
    slow.set_attn_implementation("eager")
    assert written(Engine(slow, Decoding.of(config)), articles()) == references(plain, config, articles())


def test_jobs_of_different_beams_share_a_batch() -> None:
    model = build("bart")
    config = configured(model, {"num_beams": 4})
    engine = Engine(fast("bart"), Decoding.of(config))
    beams = [1, 4, 2, 4, 6, 1, 2]
    jobs = [Job(tuple(article), width) for article, width in zip(articles(), beams, strict=True)]
    together = engine.generate(jobs).candidates
    alone = [engine.generate([job]).candidates[0] for job in jobs]
    assert [[c.tokens for c in found] for found in together] == [[c.tokens for c in found] for found in alone]
    assert [len(found) for found in together] == beams


def test_the_score_is_the_mean_log_probability_of_the_tokens() -> None:
    model = build("t5")
    config = configured(model, {"num_beams": 4, "length_penalty": 2.0})
    article = articles()[0]
    best = Engine(fast("t5"), Decoding.of(config)).generate([Job(tuple(article), 4)]).candidates[0][0]
    labels = torch.tensor([best.tokens])
    with torch.inference_mode():
        loss = model(input_ids=torch.tensor([article]), labels=labels).loss  # mean negative log-likelihood
    assert best.score == pytest.approx(-loss.item(), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_articles_that_finish_early_leave_without_a_trace(family: str) -> None:
    """Some articles end after two tokens, others run on: whoever stays must not notice."""
    plain = build(family)
    many = [article for _ in range(3) for article in articles()]
    ends = [1, *range(10, 384, 6)]
    config = configured(plain, {"num_beams": 3, "eos_token_id": ends, "early_stopping": True, "max_new_tokens": 24})
    expected = references(plain, config, many)
    assert len({len(found[0]) for found in expected}) > 2
    assert written(Engine(fast(family), Decoding.of(config)), many) == expected
