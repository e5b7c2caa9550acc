"""The model that comes with the project: anybody can load it, and the engine writes what generate() writes for it."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from app.engine.engine import Engine, Job
from app.engine.load import load
from app.headlines.article import clean
from tests.engine.test_same_as_generate import references

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "model_store/press-en/2"
LINES = (ROOT / "tests/data/articles.jsonl").read_text(encoding="utf-8").splitlines()
TEXTS = [clean(json.loads(line)["text"]) for line in LINES[:12]] + ["Rain.", "The mayor resigned on Monday. " * 90]


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    return AutoModelForSeq2SeqLM.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.mark.parametrize("beams", [1, 4])
def test_the_same_headlines_as_generate_alone_and_in_a_mixed_batch(plain: PreTrainedModel, beams: int) -> None:
    loaded = load(FOLDER, None, device="cpu")
    tokens = [list(loaded.tokenizer.read(text).tokens) for text in TEXTS]
    assert len({len(article) for article in tokens}) > 8
    config = copy.deepcopy(plain.generation_config)
    config.num_beams = beams
    expected = references(plain, config, tokens)
    together = _written(loaded.engine, tokens, beams)
    assert together == expected
    assert [_written(loaded.engine, [article], beams)[0] for article in tokens] == expected


def test_tokens_are_those_of_the_tokenizer_as_anybody_calls_it() -> None:
    loaded = load(FOLDER, None, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    for text in TEXTS:
        whole = tokenizer(text, truncation=False)["input_ids"]
        reading = loaded.tokenizer.read(text)
        assert reading.article_tokens == len(whole)
        assert list(reading.tokens) == (whole if len(whole) <= 512 else [*whole[:511], whole[-1]])
        assert loaded.tokenizer.write(reading.tokens) == tokenizer.decode(reading.tokens, skip_special_tokens=True)


def _written(engine: Engine, articles: list[list[int]], beams: int) -> list[list[tuple[int, ...]]]:
    found = engine.generate([Job(tuple(article), beams) for article in articles]).candidates
    return [[candidate.tokens for candidate in candidates] for candidates in found]
