"""A row of the plan becomes tokens: a headline from its article, a stretch from its holes, a lead from the rest."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, groupby, pairwise
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from app.headlines.support import unsupported
from app.training.augment import split_first
from app.training.errors import TrainingError
from app.training.examples import (
    FIRST,
    HOLES,
    STRETCH,
    Tokenised,
    marks,
    mask_token,
    with_holes,
)
from app.training.plan import Plan, Task
from app.training.recipe import Recipe

ARTICLE = 'One fell, at last. Two rose. “Three stayed.” Four left (early). Five: the end of all "things" – it said.'
LONG = " ".join(f"Sentence number {number} is here." for number in range(80))
HOLE = -7

quick = settings(deadline=None, max_examples=50)


def framed() -> PreTrainedTokenizerFast:
    """Characters are tokens, between two marks."""
    letters = sorted(set(ARTICLE + LONG + "summarize: "))
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", "<mask>", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", mask_token="<mask>"
    )


TOKENIZERS: dict[str, Callable[[], Any]] = {"framed": framed, "byt5": ByT5Tokenizer}


def examples(
    tokenizer: Any, *, article: str = LONG, task: Task = Task.HEADLINE, limit: int = 512, number: int = 1, **of: Any
) -> Tokenised:
    prefix = of.pop("prefix", "")
    pair = {"article": article, "headline": of.pop("headline", "Two rose"), "source": "", "where": ""}
    others = [{**pair, "article": text} for text in of.pop("others", ())]
    pairs = Dataset.from_list([pair, *others])
    rows = [np.full(number, value, np.int32) for value in (0, task, limit)]
    return Tokenised(pairs, Plan(*rows), Recipe(**of), tokenizer, prefix)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def text_of(tokenizer: Any, tokens: list[int]) -> str:
    """The text between the marks, which must be there."""
    before, after = marks(tokenizer)
    assert tokens[: len(before)] == before
    assert tokens[len(tokens) - len(after) :] == after
    inner = tokens[len(before) : len(tokens) - len(after)]
    joint = "" if isinstance(tokenizer, PreTrainedTokenizerFast) else None
    return tokenizer.decode(inner) if joint is None else joint.join(tokenizer.convert_ids_to_tokens(inner))


# The headline


def test_the_headline_is_written_from_the_article(tokenizer: Any) -> None:
    example = examples(tokenizer, article=ARTICLE, prefix="summarize: ")[0]
    assert text_of(tokenizer, example["input_ids"]) == f"summarize: {ARTICLE}"
    assert text_of(tokenizer, example["labels"]) == "Two rose"
    assert example["attention_mask"] == [1] * len(example["input_ids"])


@pytest.mark.parametrize("limit", [8, 64, 513])
def test_a_long_article_is_cut_between_its_marks(tokenizer: Any, limit: int) -> None:
    tokens = examples(tokenizer, limit=limit)[0]["input_ids"]
    assert len(tokens) == limit
    assert LONG.startswith(text_of(tokenizer, tokens))


def test_a_long_headline_is_cut_before_its_end_mark(tokenizer: Any) -> None:
    labels = examples(tokenizer, max_target_tokens=6)[0]["labels"]
    assert len(labels) == 6
    assert "Two rose".startswith(text_of(tokenizer, labels))


def test_a_place_has_the_same_example_whenever_it_is_asked_for() -> None:
    options: dict[str, Any] = {"infill": 0.5, "noise": 0.5, "shuffle_sentences": 0.5, "drop_sentence": 0.5}
    for task in Task:
        one, other = (examples(ByT5Tokenizer(), task=task, number=12, **options) for _ in range(2))
        assert [one[place] for place in range(12)] == [other[place] for place in reversed(range(12))][::-1]
        seeded = examples(ByT5Tokenizer(), task=task, number=12, seed=2, **options)
        if task is not Task.FIRST_SENTENCE:
            assert [one[place] for place in range(12)] != [seeded[place] for place in range(12)]


# Infilling


def fill(holed: list[int], whole: list[int], hole: int) -> bool:
    """Whether tokens in place of the holes give the whole, one at least in each: a match with wildcards."""
    reached = {0}
    for token in holed:
        if token == hole:
            reached = set(range(min(reached) + 1, len(whole) + 1)) if reached else set()
        else:
            reached = {place + 1 for place in reached if place < len(whole) and whole[place] == token}
    return len(whole) in reached


@quick
@given(st.integers(0, 200), st.integers(0, 2**31))
def test_filled_holes_give_back_the_stretch(length: int, seed: int) -> None:
    tokens = list(range(1, length + 1))
    holed = with_holes(tokens, HOLE, np.random.default_rng(seed))
    kept = [token for token in holed if token != HOLE]
    assert fill(holed, tokens, HOLE)
    assert len(tokens) - len(kept) == round(HOLES * length)
    assert (HOLE, HOLE) not in pairwise(holed)


def test_three_tenths_are_in_holes_of_about_three_anywhere() -> None:
    random = np.random.default_rng(1)
    holed = [with_holes(range(STRETCH), HOLE, random) for _ in range(2000)]
    gone = [set(range(STRETCH)) - set(tokens) for tokens in holed]
    holes = sum(tokens.count(HOLE) for tokens in holed)
    assert {len(tokens) for tokens in gone} == {round(HOLES * STRETCH)}
    assert sum(map(len, gone)) / holes == pytest.approx(3, abs=0.2)
    often = Counter(chain(*gone))
    assert [often[place] / 2000 for place in range(3, STRETCH - 3)] == pytest.approx([HOLES] * (STRETCH - 6), abs=0.06)
    assert min(often[0], often[STRETCH - 1]) > 0
    lengths = Counter(len(list(run)) for tokens in holed for run in runs(set(range(STRETCH)) - set(tokens)))
    assert set(range(1, 8)) <= set(lengths)


def runs(places: set[int]) -> Iterator[list[int]]:
    """Places that are neighbours, together."""
    for _, run in groupby(enumerate(sorted(places)), lambda numbered: numbered[1] - numbered[0]):
        yield [place for _, place in run]


def test_a_stretch_with_holes_becomes_the_whole_stretch(tokenizer: Any) -> None:
    shown = examples(tokenizer, task=Task.INFILL, number=40, infill=0.5)
    before, after = marks(tokenizer)
    starts = set()
    for place in range(40):
        example = shown[place]
        text = text_of(tokenizer, example["labels"])
        assert len(example["labels"]) == STRETCH + len(before) + len(after)
        assert example["attention_mask"] == [1] * len(example["input_ids"])
        assert mask_token(tokenizer) in example["input_ids"]
        assert fill(example["input_ids"], example["labels"], mask_token(tokenizer))
        text_of(tokenizer, example["input_ids"])
        starts.add(LONG.index(text))
    assert len(starts) > 20


def test_a_short_article_is_a_stretch_as_a_whole(tokenizer: Any) -> None:
    labels = examples(tokenizer, article="Two rose. One fell.", task=Task.INFILL, infill=0.5)[0]["labels"]
    assert text_of(tokenizer, labels) == "Two rose. One fell."


def test_a_stretch_is_no_longer_than_the_model_reads(tokenizer: Any) -> None:
    example = examples(tokenizer, task=Task.INFILL, infill=0.5, max_source_tokens=16)[0]
    assert len(example["labels"]) == 16


def test_the_hole_is_the_mask_or_the_first_sentinel() -> None:
    assert mask_token(framed()) == 4
    assert ByT5Tokenizer().convert_ids_to_tokens(mask_token(ByT5Tokenizer())) == "<extra_id_0>"


def test_without_a_mask_nothing_can_be_filled_in() -> None:
    maskless = framed()
    maskless.mask_token = None
    with pytest.raises(TrainingError, match="infilling needs a tokenizer with a mask token"):
        examples(maskless, infill=0.1)
    examples(maskless)


# The first sentence


def test_the_first_sentence_is_written_from_the_rest(tokenizer: Any) -> None:
    example = examples(tokenizer, article="Mayor Mary Jones resigned at noon. She said so.", task=Task.FIRST_SENTENCE)[
        0
    ]
    if isinstance(tokenizer, ByT5Tokenizer):
        assert text_of(tokenizer, example["labels"]) == "Mayor Mary Jones resigned at noon."
        assert text_of(tokenizer, example["input_ids"]) == "She said so."
    long = examples(tokenizer, article="long " * 40 + "end. The rest.", task=Task.FIRST_SENTENCE)[0]
    assert len(long["labels"]) == FIRST


@pytest.mark.parametrize(
    ("article", "first"),
    [
        ("Sen. A. B. Crow of the U.S. won it today. Then she left.", "Sen. A. B. Crow of the U.S. won it today."),
        ('She said it here, at noon: "I go." Then she left.', 'She said it here, at noon: "I go."'),
        ("They went off to 3.5 million places. 7 stayed.", "They went off to 3.5 million places."),
        ("Was it over and done, all of it? “No,” he said.", "Was it over and done, all of it?"),
        ("One sentence that goes on and on", "One sentence"),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(article: str, first: str) -> None:
    assert split_first(article) == (first, article[len(first) + 1 :])


@quick
@given(st.text('aA0 .!?”"', min_size=2))
def test_the_first_sentence_and_the_rest_are_the_article(article: str) -> None:
    assert "".join(split_first(article)).replace(" ", "") == article.replace(" ", "")


# Changed pairs


def test_headlines_and_other_tasks_are_spared_the_noise() -> None:
    loud = {"noise": 0.99, "infill": 0.5}
    first = examples(ByT5Tokenizer(), task=Task.FIRST_SENTENCE, **loud)
    quiet = examples(ByT5Tokenizer(), task=Task.FIRST_SENTENCE)
    assert first[0] == quiet[0]
    heard = examples(ByT5Tokenizer(), number=9, **loud)
    assert {text_of(ByT5Tokenizer(), heard[place]["labels"]) for place in range(9)} == {"Two rose"}


NAMED = "It snowed. Kwame left at noon. One fell. Two rose."
LENDERS = ["Wolfeschlegelsteinhausenbergerdorff and Papadimitrakopoulos went to Kuala and Lumpur."] * 3
READ = len("It snowed. Kwame") + 1  # ByT5's tokens: bytes, and the mark at the end


def shown(article: str = NAMED, headline: str = "Kwame leaves", **of: Any) -> list[tuple[str, str]]:
    """What is seen and what is written, in two hundred examples of a pair."""
    tokenizer = ByT5Tokenizer()
    given = examples(tokenizer, article=article, headline=headline, others=LENDERS, number=200, **of)
    return [
        (text_of(tokenizer, one["input_ids"]), text_of(tokenizer, one["labels"]))
        for one in map(given.__getitem__, range(200))
    ]


def test_names_are_exchanged_in_what_is_seen_and_written() -> None:
    texts = shown(rename=0.9)
    names = [headline.removesuffix(" leaves") for _, headline in texts]
    assert len(set(names)) > 20
    assert [article for article, _ in texts] == [NAMED.replace("Kwame", name) for name in names]


@pytest.mark.parametrize("prefix", ["", "summarize: "])
def test_a_changed_pair_is_still_supported_by_what_is_seen(prefix: str) -> None:
    changes: dict[str, Any] = {"rename": 0.5, "drop_sentence": 0.3, "shuffle_sentences": 0.3, "noise": 0.3}
    texts = shown(supported_only=True, limit=READ + len(prefix) + 3, prefix=prefix, **changes)
    assert not [(article, headline) for article, headline in texts if unsupported(headline, article)]
    assert len(set(texts)) > 10


def test_what_cannot_be_changed_is_shown_as_it_is() -> None:
    texts = shown(supported_only=True, limit=READ, drop_sentence=0.5, rename=0.5)
    assert ("It snowed. Kwame", "Kwame leaves") in texts
    assert not [(article, headline) for article, headline in texts if unsupported(headline, article)]


def test_without_the_option_nobody_asks_whether_it_is_supported() -> None:
    texts = shown(limit=READ, rename=0.5)
    assert [(article, headline) for article, headline in texts if unsupported(headline, article)]
