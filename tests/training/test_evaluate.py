"""Pairs in, an evaluation out, with a tiny real model; what is swapped is swapped back."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from transformers import ByT5Tokenizer

from app.engine.engine import Batch, Job
from app.engine.load import LoadedModel, load
from app.engine.search import Candidate
from app.headlines.headline import Wishes
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService, NoHeadline
from app.training.bias import KINDS, Bias, Swap, biases, swapped_articles
from app.training.errors import TrainingError
from app.training.evaluate import Evaluation, Pair, choose, evaluate
from app.training.writing import write
from tests.engine.models import build

ARTICLES = [
    "The mayor of Oslo resigned on Monday. Her party, which governs the city with the Greens, will name another.",
    "Rain flooded forty streets in the old town. Firemen pumped water from the cellars until Tuesday night.",
    "Republican John Smith won the vote in Texas. He thanked his wife on Monday.",
]
HEADLINES = ["Oslo mayor resigns", "Rain floods old town of Bergen", "Smith wins 3 votes in Texas"]
SOURCES = ["city", "city", "state"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build("t5").save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return load(folder, None, device="cpu")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    rows = zip(ARTICLES, HEADLINES, SOURCES, strict=True)
    return [Pair(article, headline, source, f"f:{n}") for n, (article, headline, source) in enumerate(rows)]


@pytest.fixture(scope="module")
def evaluation(model: LoadedModel, pairs: list[Pair]) -> Evaluation:
    return evaluate(model, pairs)


class Parrot:
    """An engine that writes the first words of what it reads as its headline."""

    def __init__(self, model: LoadedModel) -> None:
        self.decoding, self._tokenizer = model.engine.decoding, model.tokenizer
        self.vocabulary = model.engine.vocabulary
        self.batches: list[list[Job]] = []
        self.error: Exception | None = None

    def generate(self, jobs: Sequence[Job]) -> Batch:
        self.batches.append(list(jobs))
        if self.error is not None:
            raise self.error
        texts = [self.headline(self._tokenizer.write(job.tokens)) for job in jobs]
        return Batch([[Candidate(self._tokens(text), -1.0)] for text in texts], 0.0, 0.0, 0, 0)

    def _tokens(self, text: str) -> tuple[int, ...]:
        return self._tokenizer.read(text).tokens

    def headline(self, article: str) -> str:
        return " ".join(article.split()[:8])


def parroting(model: LoadedModel, parrot: Parrot, **changed: Any) -> LoadedModel:
    return replace(model, engine=parrot, workers=1, **changed)  # type: ignore[arg-type]


def dataset(numbers: dict[str, int]) -> Dataset:
    rows = [
        {
            "article": f"Article &amp; {source} {number}",  # as it was read: no entity any more
            "headline": "Headline",
            "source": source,
            "where": f"f:{number}",
        }
        for source, many in numbers.items()
        for number in range(many)
    ]
    return Dataset.from_list(rows)


def test_a_sample_is_the_same_each_time_and_has_no_more_of_a_source() -> None:
    found = dataset({"many": 50, "few": 2})
    chosen = choose(found, most=5, seed=1)
    assert [pair.source for pair in chosen] == ["many"] * 5 + ["few"] * 2
    assert choose(found, most=5, seed=1) == chosen
    assert choose(found, most=5, seed=2) != chosen
    assert [pair.article for pair in choose(found)][:2] == ["Article &amp; many 0", "Article &amp; many 1"]
    assert {pair.source for pair in choose(found, without=["many"])} == {"few"}


def test_where_there_is_no_pair_that_is_said() -> None:
    with pytest.raises(TrainingError, match="there is no pair"):
        choose(dataset({"few": 1}), without=["few"])
    with pytest.raises(TrainingError, match="no source 'fwe'; there is few"):
        choose(dataset({"few": 1}), without=["fwe"])


def test_the_model_writes_what_the_service_would(model: LoadedModel, evaluation: Evaluation) -> None:
    async def served(service: HeadlineService, article: str) -> str:
        try:
            return (await service.write(article, Wishes())).headlines[0].text
        except NoHeadline:
            return ""

    async def all_served() -> list[str]:
        service = HeadlineService(model, Metrics(), max_batch_tokens=8192, max_waiting=8)
        async with service.running():
            return [await served(service, article) for article in ARTICLES]

    assert asyncio.run(all_served()) == evaluation.texts["model"]
    assert any(evaluation.texts["model"])


def test_all_articles_are_written_in_batches_that_fit_the_longest_first(model: LoadedModel) -> None:
    parrot = Parrot(model)
    done: list[int] = []
    each = model.engine.decoding.max_new_tokens * model.engine.decoding.num_beams
    most = sum(map(len, ARTICLES[:2])) + 2 * each + 10  # bytes are tokens
    headlines = write(parroting(model, parrot, max_batch_tokens=most), [*ARTICLES, "Short."], progress=done.append)
    assert headlines == [*(" ".join(article.split()[:8]) for article in ARTICLES), "Short."]
    lengths = [[len(job.tokens) for job in batch] for batch in parrot.batches]
    assert [len(batch) for batch in lengths] == [2, 2]
    assert list(chain(*lengths)) == sorted(chain(*lengths), reverse=True)
    assert done == [2, 2]


def test_an_article_without_words_gets_no_headline(model: LoadedModel) -> None:
    assert write(model, [""]) == [""]


def test_bytes_that_are_no_text_and_headlines_of_marks_only_come_last(model: LoadedModel) -> None:
    class Stammering(Parrot):
        def generate(self, jobs: Sequence[Job]) -> Batch:
            texts = ["...", "Ma\ufffdyor", "A mayor resigns"]
            return Batch([[Candidate(self._tokens(text), -1.0) for text in texts] for _ in jobs], 0.0, 0.0, 0, 0)

    assert write(parroting(model, Stammering(model)), ["The mayor resigned."]) == ["A mayor resigns"]


def test_a_device_that_fails_is_one_line(model: LoadedModel) -> None:
    parrot = Parrot(model)
    parrot.error = torch.OutOfMemoryError("of 3 GB")
    with pytest.raises(TrainingError, match="cannot write on cpu: of 3 GB"):
        write(parroting(model, parrot), ARTICLES)


def test_who_interrupts_does_not_wait_for_the_batches_to_come(model: LoadedModel) -> None:
    class Slow(Parrot):
        def generate(self, jobs: Sequence[Job]) -> Batch:
            Event().wait(0.02)
            return super().generate(jobs)

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    slow = Slow(model)
    with pytest.raises(KeyboardInterrupt):
        write(parroting(model, slow, max_batch_tokens=1), ARTICLES * 30, progress=interrupt)
    assert len(slow.batches) < 45


def test_scores_are_means_of_the_library_s_over_sources(evaluation: Evaluation) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    lead = ["The mayor of", "Rain flooded forty streets in the", "Republican John Smith won the vote"]
    each = [scorer.score(a, b)["rougeL"].fmeasure * 100 for a, b in zip(HEADLINES, lead, strict=True)]
    expected = ((each[0] + each[1]) / 2 + each[2]) / 2
    assert evaluation.macro["lead"]["rouge"]["rougeL"]["mean"] == pytest.approx(expected, abs=0.006)
    assert evaluation.overall["lead"]["rouge"]["rougeL"]["mean"] == pytest.approx(sum(each) / 3, abs=0.006)
    assert evaluation.scores()["baselines"]["lead"]["rougeL"] == round(expected, 1)


def test_scores_fit_a_manifest(evaluation: Evaluation) -> None:
    scores = evaluation.scores()
    assert set(scores) == {
        *("rouge1", "rouge2", "rougeL", "measured_on", "by_source", "unsupported_per_100", "baselines")
    }
    assert set(scores["by_source"]) == {"city", "state"}
    assert set(scores["by_source"]["city"]) == {"rouge1", "rouge2", "rougeL"}
    assert "3 pairs of 2 sources" in scores["measured_on"]


def test_inventions_are_counted_per_100_headlines_and_sources_weigh_alike(evaluation: Evaluation) -> None:
    references = evaluation.macro["reference"]  # Bergen in one of two; "3" in one of one
    assert references["unsupported_names_per_100"] == 25.0
    assert references["unsupported_numbers_per_100"] == 50.0
    assert references["unsupported_per_100"] == evaluation.scores()["unsupported_per_100"]["reference"] == 75.0
    assert "rouge1" not in references["rouge"]


def test_the_pace_is_in_headline_words_and_articles(evaluation: Evaluation) -> None:
    slow = replace(evaluation, seconds=2.0, measures={"model": {"words": np.array([3.0, 4, 5])}})
    assert slow.speed == {"seconds": 2.0, "articles_per_second": 1.5, "words_per_second": 6.0}


def test_a_swap_goes_both_ways_and_takes_whole_words_only() -> None:
    swap = Swap(KINDS["genders"] + KINDS["parties"])
    assert swap("He told John that HIS chairman, a Republican (R-TX), hides") == (
        "She told Mary that HER chairwoman, a Democratic (D-TX), hides"
    )
    assert Swap(KINDS["places"])("Iraq, then Vietnam") == "Vietnam, then Iraq"


@pytest.mark.parametrize(
    ("headline", "of_swapped", "alike"),
    [
        ("He wins Texas", "She wins Texas", True),
        ("Mayor praises him", "Mayor praises her", True),
        ("Mayor praises her", "Mayor praises him", True),
        ("Democrat wins", "Republican wins", True),
        ("Republican wins", "Democrat wins", True),
        ("He wins Texas", "She wins, again", False),
        ("He wins Texas", "He wins Texas", False),
    ],
)
def test_headlines_are_alike_but_for_the_swap(headline: str, of_swapped: str, alike: bool) -> None:
    assert Swap(KINDS["genders"] + KINDS["parties"]).alike(headline, of_swapped) is alike


def swapped(model: LoadedModel, pairs: Sequence[Pair]) -> dict[str, Bias]:
    evaluation = evaluate(model, pairs)
    return {bias.kind: bias for bias in biases(model, evaluation, swapped_articles(model, evaluation))}


def test_a_model_that_treats_both_alike_has_no_bias(model: LoadedModel, pairs: list[Pair]) -> None:
    found = swapped(parroting(model, Parrot(model)), pairs)
    assert {kind: bias.articles for kind, bias in found.items()} == {
        **{"names": 1, "genders": 2, "parties": 1, "places": 1, "weekdays": 3}
    }
    assert not any(bias.changes for bias in found.values())


def test_a_model_that_writes_otherwise_of_one_party_is_found_out(model: LoadedModel, pairs: list[Pair]) -> None:
    class Partisan(Parrot):
        def headline(self, article: str) -> str:
            return "Nobody wins" if "Democrat" in article else super().headline(article)

    found = swapped(parroting(model, Partisan(model)), pairs)
    assert found["parties"].share == 1.0
    [change] = found["parties"].changes
    assert (change.where, change.swapped_back) == ("f:2", "Nobody wins")
    assert found["names"].share == found["genders"].share == 0.0


def test_what_the_model_does_not_read_is_not_swapped(model: LoadedModel, pairs: list[Pair]) -> None:
    far = replace(pairs[1], article="Rain. " * 400 + "He left on Monday.")
    assert not any(bias.articles for bias in swapped(parroting(model, Parrot(model)), [far]).values())


def test_the_same_evaluation_each_time(model: LoadedModel, pairs: list[Pair], evaluation: Evaluation) -> None:
    again = evaluate(model, pairs)
    assert again.texts == evaluation.texts
    assert (again.macro, again.by_source, again.examples(2)) == (
        *(evaluation.macro, evaluation.by_source, evaluation.examples(2)),
    )
