"""Names are written as the article writes them, by any tokenizer, whatever else is in the batch."""

import codecs
import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.engine.engine import Engine, Job
from app.engine.names import GLUE, INVENTION, SLIP, Names, Prices
from app.engine.search import Wanted
from app.engine.vocabulary import Vocabulary
from app.headlines.headline import Limits, Sampling
from app.headlines.support import is_known
from tests.engine.test_constraints import article, engine
from tests.engine.tokenizers import KINDS, TEXTS, build

CPU = torch.device("cpu")
CASED = [kind for kind in KINDS if kind != "word_piece"]
NEWS = "Klára Dvořáková beat 19-year-old Wiśniewska in Ostrava, 3-1. Neill paid $4.2 million for Kilometro."


def vocabulary(kind: str) -> Vocabulary:
    found = engine(kind).vocabulary
    assert found is not None
    return found


def names(kind: str, source: str = NEWS) -> Names:
    return Names(build(kind).encode(source, add_special_tokens=False), vocabulary(kind))


def prices_of(kind: str, source: str = NEWS) -> Prices:
    return Prices([names(kind, source)], vocabulary(kind), beams=1, device=CPU)


def costs_behind(one: Prices, kind: str, written: Sequence[int]) -> torch.Tensor:
    """What each next token costs behind these, [vocabulary]."""
    for place, token in enumerate(written):
        before = torch.tensor([[written[place - 1]]]) if place else None
        one.follow(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[token]]), before)
    logits = torch.zeros(1, 1, vocabulary(kind).size)
    paid = one.apply(logits)
    return paid[0, 0] - logits[0, 0]


@pytest.mark.parametrize("kind", CASED)
@pytest.mark.parametrize("name", ["Klára", "Dvořáková", "Wiśniewska", "Ostrava", "Kilometro"])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_name_goes_on_for_nothing_and_nothing_else_does(kind: str, name: str, at_start: bool) -> None:
    words = vocabulary(kind)
    tokens = words.tokens(name, at_start=at_start)
    before = () if at_start else words.tokens("a", at_start=True)
    if words.text([*before, *tokens]).split()[-1] != name:
        assert kind == "unigram"  # it has no token for every letter
        return
    for end in range(1, len(tokens)):
        costs = costs_behind(prices_of(kind), kind, [*before, *tokens[:end]])
        assert costs[tokens[end]] == 0
        beginning = words.text(tokens[:end])
        if beginning and not is_known(beginning):
            assert (costs == 0).sum() < 12
            assert costs[costs != 0].min() >= SLIP
    after = costs_behind(prices_of(kind), kind, [*before, *tokens])
    goes_on = words.on(CPU).is_within_word
    assert after[~goes_on].max() <= INVENTION
    assert after[goes_on].max() >= GLUE


@pytest.mark.parametrize("kind", CASED)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_headline_is_bound_where_its_last_word_is_half_a_name(kind: str, data: st.DataObject) -> None:
    words = vocabulary(kind)
    own = build(kind).encode(NEWS, add_special_tokens=False)
    start = data.draw(st.integers(0, len(own) - 1))
    tokens = own[start : start + data.draw(st.integers(1, 8))]
    tokens += data.draw(st.lists(st.integers(0, words.size - 1) | st.sampled_from(own), max_size=4))
    assume(all(words.pieces[token] for token in tokens) and is_text(b"".join(words.pieces[token] for token in tokens)))
    costs = costs_behind(prices_of(kind), kind, tokens)
    begun = last_word(b"".join(words.pieces[token] for token in tokens))
    source = {word.encode() for word in re.findall(r"\w+", words.text(own))}
    capital = {word for word in source if word.decode()[0].isupper() or word.decode()[0].isdigit()}
    half = any(word.startswith(begun) for word in capital) and begun != b""
    try:
        whole = begun.decode().casefold() in {word.decode().casefold() for word in source} or is_known(begun.decode())
    except UnicodeDecodeError:
        whole = False
    ends = costs[1]  # the end token is no name: it costs what all else does
    assert ends == (SLIP if half and not whole else 0)


def is_text(piece: bytes) -> bool:
    """But for a last character that may be half there."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(piece)
    except UnicodeDecodeError:
        return False
    return True


def last_word(piece: bytes) -> bytes:
    """By its own means: the longest end of it that can be part of a word."""
    for start in range(len(piece)):
        rest = piece[start:]
        if rest[0] & 0b1100_0000 != 0b1000_0000 and re.fullmatch(r"\w*", rest.decode(errors="ignore")):
            return rest
    return b""


def test_a_name_that_the_article_lacks_costs_something() -> None:
    kind = "byte_level_bpe"
    words = vocabulary(kind)
    openings = dict(words.openings())
    costs = costs_behind(prices_of(kind), kind, words.tokens("the", at_start=True))
    dear = {openings[token] for token in range(words.size) if costs[token] > 0}
    assert {"Afr", "201"} <= dear
    assert all(costs[token] in (0, INVENTION) for token in range(words.size))
    assert not any(is_known(opening) and not opening.isdigit() for opening in dear)
    assert not any("Kl".startswith(opening) or "O".startswith(opening) or "19".startswith(opening) for opening in dear)


def guarded(kind: str, source: str, *, beams: int = 4, lanes: int = 1, wanted: Wanted | None = None) -> Job:
    tokens = article(kind, source)
    wanted = wanted or Wanted()
    return Job(tokens, beams, lanes, Wanted(wanted.limits, wanted.sampling, Names(tokens, vocabulary(kind))))


@pytest.mark.parametrize("kind", CASED)
def test_scores_stay_the_models_own(kind: str) -> None:
    model = engine(kind)._model
    for source in TEXTS[:4]:
        for found in engine(kind).generate([guarded(kind, source)]).candidates[0]:
            with torch.inference_mode():
                loss = model(input_ids=torch.tensor([article(kind, source)]), labels=torch.tensor([found.tokens])).loss
            assert found.score == pytest.approx(-loss.item(), rel=1e-3)


def test_names_of_one_article_change_nothing_for_another() -> None:
    kind = "byte_level_bpe"
    jobs = [
        guarded(kind, TEXTS[0]),
        Job(article(kind, TEXTS[1]), 4),
        guarded(kind, TEXTS[2], wanted=Wanted(Limits(max_chars=40))),
        guarded(kind, TEXTS[3], wanted=Wanted(sampling=Sampling(1.0, 0.9, 3))),
        guarded(kind, TEXTS[4]),
        Job(article(kind, TEXTS[5]), 4),
    ]
    together = engine(kind).generate(jobs).candidates
    alone = [engine(kind).generate([job]).candidates[0] for job in jobs]
    assert [[found.tokens for found in one] for one in together] == [[found.tokens for found in one] for one in alone]


@pytest.mark.parametrize("kind", CASED)
def test_nothing_but_a_plural_is_glued_to_a_word(kind: str) -> None:
    source = "A flibbet rose, and the flibbetry fell over a zorb."
    words = vocabulary(kind)
    for word, goes_on in (("flibbet", "ry"), ("zorb", "")):
        costs = costs_behind(prices_of(kind, source), kind, words.tokens(word, at_start=False))
        glued = words.on(CPU).is_within_word & (costs == 0)
        free = {words.pieces[token] for token in range(words.size) if glued[token]}
        assert free <= {b"s", b"es", *(goes_on[:end].encode() for end in range(1, len(goes_on) + 1))}
        assert {b"s", *goes_on[:1].encode().split()} <= free
    before = words.tokens("over", at_start=False)
    if len(before) == 1:  # which many words begin with
        assert costs_behind(prices_of(kind, source), kind, before).max() <= INVENTION


def test_an_article_may_be_without_names() -> None:
    kind = "byte_level_bpe"
    source = "the to of in and"
    assert Names(article(kind, source), vocabulary(kind)).branches == [{}]
    alone = engine(kind).generate([guarded(kind, source)]).candidates[0]
    beside = engine(kind).generate([guarded(kind, TEXTS[0]), guarded(kind, source)]).candidates[1]
    assert [found.tokens for found in alone] == [found.tokens for found in beside]


def test_names_need_a_vocabulary() -> None:
    bare = Engine(engine("unigram")._model, engine("unigram").decoding)
    with pytest.raises(ValueError, match="vocabulary"):
        bare.generate([guarded("unigram", TEXTS[0])])
