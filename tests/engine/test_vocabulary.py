"""What tokens add to a text, against what the tokenizers themselves decode."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.vocabulary import Vocabulary
from app.headlines.phrases import contains, fold
from tests.engine.tokenizers import KINDS, TEXTS, build

TIDIES_UP = {"word_piece"}  # its decoding draws punctuation to the words
HEADLINES = [sentence.strip() for text in TEXTS[:20] for sentence in text.split(". ")[:4]]
STRANGE = [
    "Zürich: Tränen für Müller",
    "ПОБЕДА в Москве",
    "東京で地震",
    "\U0001f680 lands",
    "a  b",
    "$5 & 10%",
    "e\u0301clat",
]


def vocabulary(kind: str) -> Vocabulary:
    return Vocabulary(build(kind), size=len(build(kind)) + 3)  # models often have some rows more


def decoded(kind: str, tokens: list[int]) -> str:
    text: str = build(kind).decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.lstrip()


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_the_text_that_the_tokenizer_decodes(kind: str) -> None:
    words = vocabulary(kind)
    for text in HEADLINES + STRANGE:
        tokens = build(kind).encode(text, add_special_tokens=False)
        if kind in TIDIES_UP:
            assert words.text(tokens).replace(" ", "") == decoded(kind, tokens).replace(" ", "")
            assert len(words.text(tokens)) >= len(decoded(kind, tokens))
        else:
            assert words.text(tokens) == decoded(kind, tokens)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - TIDIES_UP))
def test_characters_and_words_are_counted_as_they_will_be(kind: str) -> None:
    words = vocabulary(kind)
    table = words.on(torch.device("cpu"))
    for text in HEADLINES + STRANGE:
        tokens = build(kind).encode(text, add_special_tokens=False)
        if build(kind).unk_token_id in tokens:
            continue
        chars = int(table.chars[tokens].sum() - table.chars[tokens[0]] + table.chars_at_start[tokens[0]])
        assert chars == len(words.text(tokens))
        behind = [True, *table.ends_blank[tokens].tolist()]
        begun = sum(
            int(table.words[token]) + (bool(table.begins_solid[token]) & blank)
            for token, blank in zip(tokens, behind, strict=False)
        )
        assert begun == len(words.text(tokens).split())


@pytest.mark.parametrize("kind", ["byte_level_bpe", "bpe_with_bytes", "bytes_alone"])
def test_half_characters_are_known(kind: str) -> None:
    table = vocabulary(kind).on(torch.device("cpu"))
    for text in STRANGE:
        tokens = build(kind).encode(text, add_special_tokens=False)
        for length in range(1, len(tokens) + 1):
            head = torch.tensor(tokens[:length])
            whole = b"".join(vocabulary_pieces(kind)[token] for token in tokens[:length])
            lacking = int(table.open_bytes(head))
            assert lacking == missing_bytes(whole), (text, length)
            if length < len(tokens):
                assert bool(table.fits(torch.tensor(lacking))[tokens[length]])
                assert not lacking or not bool(table.fits(torch.tensor(lacking))[ascii_token(kind)])


def vocabulary_pieces(kind: str) -> list[bytes]:
    return vocabulary(kind).pieces


def ascii_token(kind: str) -> int:
    return next(token for token, piece in enumerate(vocabulary_pieces(kind)) if piece == b"a")


def missing_bytes(whole: bytes) -> int:
    for lacking in range(4):
        for filler in (b"\x80\x80\x80", b"\xa0\x80\x80", b"\x9f\x80\x80", b"\xbf\xbf\xbf"):
            try:
                (whole + filler[:lacking]).decode()
            except UnicodeDecodeError:
                continue
            return lacking
    raise AssertionError(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_phrase_within_a_headline_has_the_tokens_it_has_there(kind: str) -> None:
    words = vocabulary(kind)
    tokens = words.tokens("Oslo", at_start=False)
    anchor = build(kind).encode("the mayor", add_special_tokens=False)
    assert fold(words.text([*anchor, *tokens])) == "the mayor oslo"
    assert fold(words.text(words.tokens("Oslo", at_start=True))).strip() == "oslo"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_tokens_that_complete_a_phrase_are_all_known(kind: str, data: st.DataObject) -> None:
    """Whatever was written before: behind a token that is not named the phrase is not there."""
    words = vocabulary(kind)
    phrase = data.draw(st.sampled_from(["the", "a", "in", "new york", "mayor", "$5", "u.s", "s"]))
    before = data.draw(st.sampled_from(["", "the ", "x", "new", "New Y", "(", "ma", "may", "$", "U.", "it'"]))
    token = data.draw(st.integers(0, len(words.pieces) - 1))
    text = fold(before + words.pieces[token].decode(errors="ignore"))
    if contains(fold(before), phrase) or not contains(text, phrase):
        return
    named: set[int] = set()
    for begun in range(len(phrase)):
        if fold(before).endswith(phrase[:begun]):
            complete, at_end = words.completing(phrase[begun:], begun=True)
            named |= {*complete, *at_end}
    complete, at_end = words.completing(phrase, begun=False)
    assert token in named | {*complete, *at_end}
