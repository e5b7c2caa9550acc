"""What the command line says of a recipe is read as it was meant, or refused."""

from typing import Any

import pytest

from app.training.errors import TrainingError
from app.training.recipe import parse_decoding


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("length_penalty=2", {"length_penalty": 2}),
        ("early_stopping=true", {"early_stopping": True}),
        ('early_stopping="never"', {"early_stopping": "never"}),
        ("no_repeat_ngram_size=0", {"no_repeat_ngram_size": 0}),
    ],
)
def test_a_decoding_option_is_a_name_and_a_value(text: str, option: dict[str, Any]) -> None:
    assert parse_decoding([text]) == option


@pytest.mark.parametrize("text", ["length_penalty", "=2", "length_penalty=", "early_stopping=never", ""])
def test_what_is_no_decoding_option(text: str) -> None:
    with pytest.raises(TrainingError, match="NAME=VALUE"):
        parse_decoding([text])
