"""The token budget of a card, from numbers alone."""

import pytest

from app.engine.budget import LEAST, MOST, Shape, bytes_per_token, max_batch_tokens
from tests.engine.models import FAMILIES, build

T5_BASE = Shape(width=768, inner=3072, decoder_layers=12, vocabulary=32128, max_new_tokens=32, bytes_per_number=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_shape(family: str) -> None:
    model = build(family)
    shape = Shape.of(model, max_new_tokens=16)
    assert shape.width == model.get_encoder().config.hidden_size
    assert shape.inner in (64, 128)  # ProphetNet has one wider for its n-grams
    assert shape.bytes_per_number == 4
    assert shape.vocabulary >= 384
    assert shape.decoder_layers in (1, 2, 3)
    assert shape.inner >= 32


def test_keys_and_values_of_an_article_are_counted() -> None:
    assert bytes_per_token(T5_BASE) >= 2 * 12 * 768 * 2


def test_a_large_vocabulary_costs_more_than_an_article() -> None:
    many = Shape(768, 3072, 12, 250_000, 32, 2)
    assert bytes_per_token(many) > bytes_per_token(T5_BASE) * 2


def test_a_card_of_16_gb_takes_a_hundred_articles_and_more_memory_takes_more() -> None:
    small, large = (max_batch_tokens(T5_BASE, free) for free in (12 * 10**9, 24 * 10**9))
    article = 512 + 4 * 32
    assert 100 * article < small < 1000 * article
    assert large == pytest.approx(2 * small, rel=0.01) or large == MOST


def test_it_is_bounded() -> None:
    assert max_batch_tokens(T5_BASE, 0) == LEAST
    assert max_batch_tokens(T5_BASE, 10**15) == MOST
