"""Each measure against what its source says it is; ROUGE against the library itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from app.training.baselines import first_sentence, lead, sentence
from app.training.protocols import PROTOCOLS, cnn_article, gigaword, gigaword_article, highlights, summary
from app.training.scores import (
    Lengths,
    bootstrap,
    copy_rate,
    histogram,
    invention,
    novel_bigrams,
    rouge,
    wording,
)

LINES = (Path(__file__).parents[1] / "data/articles.jsonl").read_text(encoding="utf-8").splitlines()
PAIRS = [json.loads(line) for line in LINES]
REFERENCES = [pair["headline"] for pair in PAIRS]
LEADS = [lead(pair["text"], 12) for pair in PAIRS]
KINDS = ("rouge1", "rouge2", "rougeL")


def test_rouge_is_what_the_library_says_to_the_last_digit() -> None:
    ours = rouge(LEADS, REFERENCES, KINDS)
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    for kind in KINDS:
        theirs = [
            scorer.score(target, text)[kind].fmeasure * 100 for target, text in zip(REFERENCES, LEADS, strict=True)
        ]
        assert ours[kind].tolist() == theirs
        assert 0 < ours[kind].mean() < 100


def test_rouge_stems_and_weighs_precision_and_recall_alike() -> None:
    assert rouge(["mayors resigned"], ["Mayor resigns!"], ["rouge1"])["rouge1"].tolist() == [100.0]
    assert rouge(["rain"], ["rain in all of Spain"], ["rouge1"])["rouge1"][0] == pytest.approx(100 / 3)
    assert rouge([""], ["rain"], ["rougeL"])["rougeL"].tolist() == [0.0]


def test_texts_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        rouge(["one", "two"], ["one"], ["rouge1"])


def test_the_share_of_words_that_an_article_has() -> None:
    assert copy_rate("Mayor quits office", "The MAYOR left her office.") == pytest.approx(2 / 3)
    assert copy_rate("...", "The mayor left.") == 0.0


def test_the_share_of_neighbours_that_an_article_lacks() -> None:
    article = "The mayor left her office on Monday."
    assert novel_bigrams("The mayor left Monday", article) == pytest.approx(1 / 3)
    assert novel_bigrams("her office, on", article) == 0.0
    assert novel_bigrams("Resigned", article) == 0.0


def test_lengths_are_in_words_and_code_points() -> None:
    measured = wording(["Zoë quits at once"], ["Zoë left."])
    assert (measured["words"].tolist(), measured["characters"].tolist()) == ([4.0], [17.0])
    lengths = Lengths.of(np.arange(101.0))
    assert (lengths.mean, lengths.p5, lengths.p50, lengths.p95) == (50.0, 5.0, 50.0, 95.0)


def test_names_and_numbers_that_an_article_lacks_are_counted_apart() -> None:
    found = invention(
        ["Mayor Brandt quits after 12 years in Oslo", "Mayor quits"], ["The mayor of Oslo quits.", "The mayor quits."]
    )
    assert found["unsupported_names"].tolist() == [1.0, 0.0]
    assert found["unsupported_numbers"].tolist() == [1.0, 0.0]


def test_an_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(40, 10, 400)
    interval = bootstrap([values], seed=1)
    assert interval.mean == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20  # of a mean of 400, by the central limit theorem
    assert interval.low == pytest.approx(values.mean() - error, abs=0.15)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.15)
    assert bootstrap([values], seed=1) == interval
    assert bootstrap([values], seed=2) != interval


def test_a_macro_mean_weighs_sources_alike_and_resamples_each_by_itself() -> None:
    many, few = np.full(300, 10.0), np.array([50.0, 50.0])
    assert bootstrap([many, few], seed=1) == bootstrap([few, many], seed=5)
    assert bootstrap([many, few], seed=1).mean == 30.0
    assert bootstrap([many, few], seed=1).low == 30.0
    assert bootstrap([np.concatenate([many, few])], seed=1).mean == pytest.approx(10.26, abs=0.01)


def test_bins_hold_every_headline_once() -> None:
    ours, theirs = np.array([3.0, 4, 5, 45]), np.array([2.0, 9])
    found = histogram(ours, theirs)
    assert [sum(counts) for counts in found["counts"]] == [4, 2]
    assert len(found["edges"]) == 21
    assert found["edges"][:3] == [2, 5, 8]
    assert found["counts"][0][:2] == [2, 1]
    assert histogram(np.array([7.0]), np.array([7.0]))["edges"][1] == 8


@pytest.mark.parametrize(
    ("article", "expected"),
    [
        ("Rain fell on Monday. It was wet.", "Rain fell on Monday."),
        ("Sen. Olympia J. Snowe spoke to Mr. Smith. He left.", "Sen. Olympia J. Snowe spoke to Mr. Smith."),
        ("The U.S. economy grew 2.5 percent! “Fine,” he said.", "The U.S. economy grew 2.5 percent!"),
        ("“It rained.” Nobody minded.", "“It rained.”"),
        (
            "stocks fell #.# percent , the u.s. government said . they rose",
            "stocks fell #.# percent , the u.s. government said .",
        ),
        ("no end in sight", "no end in sight"),
    ],
)
def test_where_the_first_sentence_ends(article: str, expected: str) -> None:
    assert sentence(article) == expected


def test_baselines_are_cut_in_words() -> None:
    assert first_sentence("One two three. Four") == "One two three."
    assert first_sentence("a b c d e f g h i j k l. M") == "a b c d e f g h i j"
    assert lead("One two. Three four", 3) == "One two. Three"
    assert lead("One two", 0) == ""


def test_gigaword_is_lower_case_tokens_with_digits_hidden_and_stays_so() -> None:
    raw = "Fed can't raise rates 2.5% (again), <unk> says"
    form = "fed ca n't raise rates #.# % ( again ) , unk says"
    assert gigaword(raw) == form
    for line in (form, "shares of `` good '' firms -lrb- in #### -rrb- fell #.# percent ."):
        assert gigaword(line) == line
    assert gigaword_article("Shares fell 12 points. They rose.") == "shares fell ## points ."


def test_rouge_of_gigaword_sees_no_digits_but_unknown_words() -> None:
    protocol = PROTOCOLS["gigaword"]
    ours, theirs = (
        protocol.headline("Stocks up 2.5 percent, [UNK] says"),
        protocol.reference("stocks up #.# percent unk says"),
    )
    assert rouge([ours], [theirs], protocol.kinds)["rougeL"][0] == 100.0


def test_a_summary_is_measured_sentence_by_sentence() -> None:
    protocol = PROTOCOLS["cnn_dailymail"]
    assert summary("Rain fell. The U.N. met!") == "rain fell .\nthe u.n. met !"
    lines = "Rain fell .\nThe council met ."
    assert highlights(lines) == highlights(lines.replace("\n", " ")) == "rain fell .\nthe council met ."
    ours, theirs = protocol.headline("The council met. Rain fell."), protocol.reference(lines)
    assert rouge([ours], [theirs], protocol.kinds)["rougeLsum"][0] == 100.0
    assert rouge([ours], [theirs], ["rougeL"])["rougeL"][0] < 100.0


def test_cnn_dailymail_cuts_articles_at_400_and_summaries_at_120_tokens() -> None:
    words = " ".join(f"w{number}" for number in range(500))
    assert cnn_article(words).split() == words.split()[:400]
    assert cnn_article("Two  words") == "Two  words"
    assert summary(words).split() == words.split()[:120]
