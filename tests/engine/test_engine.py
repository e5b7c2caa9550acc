"""The engine where memory and devices fail, and on an NVIDIA card."""

from collections.abc import Sequence

import pytest
import torch

from app.engine import attention
from app.engine.decoder import group_beams
from app.engine.decoding import Decoding
from app.engine.engine import Engine, EngineLost, Job
from tests.engine.models import FAMILIES, build
from tests.engine.test_same_as_generate import articles, configured, fast, written


def engine(family: str = "t5", **options: object) -> Engine:
    model = fast(family)
    return Engine(model, Decoding.of(configured(model, {"num_beams": 4, **options})))


def test_a_batch_that_does_not_fit_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = engine(), []
    expected = written(whole, articles())
    encode = whole._encoder.encode

    def small_memory(batch: Sequence[Sequence[int]]):  # type: ignore[no-untyped-def]
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory")
        return encode(batch)

    monkeypatch.setattr(whole._encoder, "encode", small_memory)
    assert written(whole, articles()) == expected
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_an_article_that_does_not_fit_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine()
    monkeypatch.setattr(whole._encoder, "encode", _raise(torch.OutOfMemoryError("no memory")))
    with pytest.raises(torch.OutOfMemoryError):
        whole.generate([Job((5, 6, 1), 4)])


def test_a_device_that_failed_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine()
    monkeypatch.setattr(whole._encoder, "encode", _raise(torch.AcceleratorError("illegal memory access", 700)))
    with pytest.raises(EngineLost):
        whole.generate([Job((5, 6, 1), 4)])


def test_what_a_batch_cost() -> None:
    batch = engine().generate([Job(tuple(article), 4) for article in articles()])
    assert batch.padding_tokens == 7 * 90 - sum(map(len, articles()))
    assert batch.generated_tokens == sum(len(found[0].tokens) for found in batch.candidates)
    assert batch.encode_seconds > 0
    assert batch.decode_seconds > 0


def test_grouped_attention_refuses_longer_queries() -> None:
    keys = torch.zeros(2, 1, 5, 4)
    with pytest.raises(ValueError, match="one token at a time"):
        attention.grouped_attention(torch.nn.Module(), torch.zeros(4, 1, 3, 4), keys, keys, None)


def _raise(error: Exception):  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.cuda
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_card_in_float32_the_tokens_are_those_of_the_cpu(family: str) -> None:
    model = fast(family)
    decoding = Decoding.of(configured(model, {"num_beams": 4, "early_stopping": True}))
    on_cpu = written(Engine(model, decoding), articles())
    assert written(Engine(build_on_card(family), decoding), articles()) == on_cpu


@pytest.mark.cuda
def test_on_a_card_out_of_memory_is_survived() -> None:
    model = build_on_card("t5")
    decoding = Decoding.of(configured(model, {"num_beams": 4}))
    free = torch.cuda.mem_get_info()[0]
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        many = Engine(model, decoding).generate([Job(tuple(range(3, 380)), 4)] * (free // 2**22))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert all(many.candidates)


def build_on_card(family: str):  # type: ignore[no-untyped-def]
    model = build(family).to("cuda")
    group_beams(model)
    return model
