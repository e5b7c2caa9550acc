"""Limits while headlines are written: always held, by any tokenizer, whatever else is in the batch."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from app.engine.decoder import group_beams
from app.engine.decoding import Decoding
from app.engine.engine import Engine, Job
from app.engine.load import LoadedModel, load
from app.engine.search import Candidate, Wanted
from app.engine.vocabulary import Vocabulary
from app.headlines.headline import NO_LIMITS, Limits, Sampling, tidy
from app.headlines.phrases import missing
from tests.engine.tokenizers import KINDS, TEXTS, build

SHIPPED = Path(__file__).parents[2] / "model_store/press-en/2"
WORDS = sorted({word.strip(".,\"'()") for text in TEXTS for word in text.split() if word.isascii() and word.isalpha()})


@cache
def engine(kind: str) -> Engine:
    """A tiny random BART behind a real vocabulary: it writes nonsense, of many words and no few half characters."""
    tokenizer = build(kind)
    size = len(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = BartForConditionalGeneration(
            BartConfig(
                vocab_size=size,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=128,
                init_std=0.3,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=2,
                decoder_start_token_id=1,
                forced_eos_token_id=None,
            )
        ).eval()
    group_beams(model)
    config = GenerationConfig(
        num_beams=4, max_new_tokens=16, early_stopping=True, eos_token_id=1, pad_token_id=0, decoder_start_token_id=1
    )
    return Engine(model, Decoding.of(config), Vocabulary(tokenizer, size=size))


def article(kind: str, text: str) -> tuple[int, ...]:
    return tuple(build(kind).encode(text[:200], add_special_tokens=False)[:60])


def text(kind: str, candidate: Candidate) -> str:
    return tidy(build(kind).decode(candidate.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def write(kind: str, *jobs: Job) -> list[list[str]]:
    return [[text(kind, found) for found in all_found] for all_found in engine(kind).generate(jobs).candidates]


def job(kind: str, limits: Limits, *, beams: int = 4, lanes: int = 1, source: str = TEXTS[0]) -> Job:
    return Job(article(kind, source), beams, lanes, Wanted(limits))


limits_of_any_kind = st.builds(
    Limits,
    max_chars=st.none() | st.integers(20, 90),
    max_words=st.none() | st.integers(3, 12),
    avoid=st.lists(st.sampled_from([*WORDS, "a", "the", "s", "of the", "?", "-"]), max_size=8).map(tuple),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(limits=limits_of_any_kind, source=st.sampled_from(TEXTS), lanes=st.integers(1, 3), beams=st.integers(1, 4))
def test_limits_always_hold(kind: str, limits: Limits, source: str, lanes: int, beams: int) -> None:
    one = job(kind, limits, beams=beams, lanes=lanes, source=source)
    for found in engine(kind).generate([one]).candidates[0]:
        headline, held = text(kind, found), held_by(limits, found, lanes)
        assert held.obeyed_by(headline), (headline, held)
        assert not held or "\ufffd" not in headline


def held_by(limits: Limits, found: Candidate, lanes: int) -> Limits:
    """The first of several lanes writes at any length."""
    return replace(limits, max_chars=None, max_words=None) if lanes > 1 and found.lane == 0 else limits


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_that_a_model_writes_can_be_forbidden_one_after_the_other(kind: str) -> None:
    """Each time the likeliest headline's words are avoided, and it finds others or none."""
    avoid: list[str] = []
    for _ in range(6):
        found = write(kind, job(kind, Limits(avoid=tuple(avoid))))[0]
        if not found:
            return
        assert missing(found[0], avoid) == avoid
        avoid += [word for word in found[0].split() if word][:3]
    assert avoid


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return load(SHIPPED, None, device="cpu")


@settings(max_examples=20, deadline=None)
@given(
    phrases=st.lists(st.sampled_from(WORDS), min_size=1, max_size=2, unique_by=str.casefold),
    source=st.sampled_from(TEXTS),
)
def test_phrases_are_included_however_unlikely(shipped: LoadedModel, phrases: list[str], source: str) -> None:
    """Words of other articles; by the model that ships, since tiny random ones never see a word end."""
    jobs = [Job(shipped.tokenizer.read(source[:400]).tokens, 8, 1, Wanted(Limits(include=tuple(phrases))))]
    best = shipped.engine.generate(jobs).candidates[0][0]
    assert missing(shipped.tokenizer.write(best.tokens), phrases) == []


def test_an_included_phrase_leaves_room_for_itself(shipped: LoadedModel) -> None:
    tokens = shipped.tokenizer.read(TEXTS[0]).tokens
    for room in range(24, 60, 6):
        limits = Limits(max_chars=room, include=("president Obama",))
        best = shipped.engine.generate([Job(tokens, 8, 1, Wanted(limits))]).candidates[0][0]
        headline = tidy(shipped.tokenizer.write(best.tokens))
        assert missing(headline, ["president Obama"]) == []
        assert len(headline) <= room


@pytest.mark.parametrize("kind", ["byte_level_bpe", "unigram"])
def test_limits_of_one_article_change_nothing_for_another(kind: str) -> None:
    every = [
        NO_LIMITS,
        Limits(max_chars=30),
        Limits(max_words=4, avoid=("the",)),
        Limits(include=("Oslo",)),
        NO_LIMITS,
        Limits(max_chars=25),
    ]
    jobs = [job(kind, limits, source=source) for limits, source in zip(every, TEXTS, strict=False)]
    assert write(kind, *jobs) == [write(kind, one)[0] for one in jobs]


def test_limits_that_do_not_bind_change_nothing() -> None:
    kind = "byte_level_bpe"
    for source in TEXTS[:5]:
        free = write(kind, job(kind, NO_LIMITS, source=source))[0]
        wide = Limits(max_chars=300, max_words=40, avoid=("zyzzyva",))
        whole = [headline for headline in free if "\ufffd" not in headline]
        assert [headline for headline in write(kind, job(kind, wide, source=source))[0] if headline in whole][
            :1
        ] == whole[:1]


def test_a_headline_within_a_limit_does_not_end_within_a_word_it_had_begun() -> None:
    """Where the likeliest token goes on with a word that has no room, the row is given up."""
    kind = "byte_level_bpe"
    words = engine(kind).vocabulary
    assert words is not None
    for source in TEXTS[:6]:
        for found in engine(kind).generate([job(kind, Limits(max_chars=24), source=source)]).candidates[0]:
            *written, end = found.tokens
            assert end == 1
            likeliest = next_token(kind, source, written)
            whole = tidy(words.text([*written, likeliest]))
            assert not (words.on(torch.device("cpu")).continues[likeliest] and len(whole) > 24)


def next_token(kind: str, source: str, written: Sequence[int]) -> int:
    model = engine(kind)._model
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([article(kind, source)]), decoder_input_ids=torch.tensor([[1, *written]])
        ).logits
    return int(logits[0, -1].argmax())


def test_lanes_write_headlines_that_differ() -> None:
    kind = "unigram"
    one = engine(kind).generate([Job(article(kind, TEXTS[1]), 10)]).candidates[0]
    lanes = engine(kind).generate([Job(article(kind, TEXTS[1]), 2, 5)]).candidates[0]
    assert sorted({found.lane for found in lanes}) == [0, 1, 2, 3, 4]
    best = [next(found for found in lanes if found.lane == lane) for lane in range(5)]
    assert _shared_tokens(best) < _shared_tokens(one[:5])


def _shared_tokens(candidates: Sequence[Candidate]) -> float:
    pairs = [(set(a.tokens), set(b.tokens)) for i, a in enumerate(candidates) for b in candidates[i + 1 :]]
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)


def test_the_first_of_several_lanes_is_what_one_alone_would_be() -> None:
    kind = "unigram"
    alone = engine(kind).generate([Job(article(kind, TEXTS[2]), 3)]).candidates[0]
    lanes = engine(kind).generate([Job(article(kind, TEXTS[2]), 3, 4)]).candidates[0]
    assert [found.tokens for found in lanes if found.lane == 0] == [found.tokens for found in alone]


def drawn(source: str, sampling: Sampling, *others: Job, limits: Limits = NO_LIMITS, beams: int = 1) -> list[Candidate]:
    one = Job(article("unigram", source), beams, 3, Wanted(limits, sampling))
    return engine("unigram").generate([*others, one]).candidates[-1]


def test_the_same_seed_draws_the_same_whatever_is_in_the_batch() -> None:
    sampling = Sampling(1.0, 0.95, 11)
    alone = drawn(TEXTS[0], sampling)
    others = [
        Job(article("unigram", TEXTS[1]), 1, 3, Wanted(sampling=Sampling(1.5, 1.0, 12))),
        Job(article("unigram", TEXTS[2]), 4),
        Job(article("unigram", TEXTS[3]), 1, 3),
    ]
    together = drawn(TEXTS[0], sampling, *others)
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert [found.tokens for found in drawn(TEXTS[0], Sampling(1.0, 0.95, 12))] != [found.tokens for found in alone]
    assert len({found.tokens for found in alone}) == 3


def test_draws_follow_the_probabilities() -> None:
    """The first token of many draws against the softmax at that temperature, cut to its nucleus."""
    source, temperature, top_p = article("unigram", TEXTS[0]), 0.7, 0.6
    with torch.inference_mode():
        model = engine("unigram")._model
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[1]])).logits[0, -1]
    probabilities = (logits / temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    kept = int((ordered.cumsum(-1) < top_p).sum()) + 1
    expected = dict(zip(tokens[:kept].tolist(), (ordered[:kept] / ordered[:kept].sum()).tolist(), strict=True))
    jobs = [Job(source, 1, 100, Wanted(sampling=Sampling(temperature, top_p, seed))) for seed in range(10)]
    firsts = [found.tokens[0] for many in engine("unigram").generate(jobs).candidates for found in many]
    assert set(firsts) <= set(expected)
    for token, probability in expected.items():
        sigma = (probability * (1 - probability) / len(firsts)) ** 0.5
        assert abs(firsts.count(token) / len(firsts) - probability) < 5 * sigma + 1e-9


def test_the_score_of_a_draw_is_the_models_own() -> None:
    for found in drawn(TEXTS[0], Sampling(1.7, 1.0, 3)):
        labels = torch.tensor([found.tokens])
        with torch.inference_mode():
            model = engine("unigram")._model
            loss = model(input_ids=torch.tensor([article("unigram", TEXTS[0])]), labels=labels).loss
        assert found.score == pytest.approx(-loss.item(), rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(limits=limits_of_any_kind, seed=st.integers(0, 2**32))
def test_limits_hold_for_draws_too(limits: Limits, seed: int) -> None:
    for found in drawn(TEXTS[0], Sampling(1.5, 0.9, seed), limits=limits, beams=4):
        assert held_by(limits, found, 3).obeyed_by(text("unigram", found))


def test_draws_within_limits_differ_by_their_seed() -> None:
    for limits in (
        Limits(max_chars=40),
        Limits(max_words=6),
        Limits(avoid=("the",)),
        Limits(max_chars=60, avoid=("a",)),
    ):
        every = [tuple(drawn(TEXTS[1], Sampling(1.0, 0.9, seed), limits=limits, beams=4)) for seed in range(6)]
        assert all(every)
        assert len({one[0].tokens for one in every}) > 3


def test_the_smallest_nucleus_is_the_likeliest_token() -> None:
    greedy = engine("unigram").generate([Job(article("unigram", TEXTS[0]), 1)]).candidates[0]
    for top_p in (1e-46, 1e-300):
        found = drawn(TEXTS[0], Sampling(1.0, top_p, 5))
        assert {one.tokens for one in found} == {greedy[0].tokens}


def test_a_row_that_may_end_in_an_avoided_word_does_not_go_on_with_a_wanted_one() -> None:
    kind = "byte_level_bpe"
    for source in TEXTS[:8]:
        free = write(kind, job(kind, NO_LIMITS, source=source))[0]
        words = [word for word in free[0].split() if word.isalpha()][:2]
        limits = Limits(include=("president",), avoid=tuple(words))
        found = write(kind, job(kind, limits, beams=8, source=source))[0]
        assert found
        assert all(limits.obeyed_by(headline) for headline in found)


def test_limits_need_a_vocabulary() -> None:
    bare = Engine(engine("unigram")._model, engine("unigram").decoding)
    with pytest.raises(ValueError, match="vocabulary"):
        bare.generate([job("unigram", Limits(max_chars=30))])
