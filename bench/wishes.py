"""What wishes cost: how often limits hold, and how headlines score with and without them, on pairs with references.

    python -m bench.wishes PAIRS.jsonl.xz --most 500

PAIRS: JSONL, plain, .gz or .xz, an object with `body` and `headline` a line. Needs the extra `bench`.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import lzma
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rouge_score.rouge_scorer import RougeScorer

from app.engine.load import load
from app.headlines.article import clean
from app.headlines.headline import Headline, Impossible, Limits, Sampling, Wishes
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService
from app.store.store import Store, verify

NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")
CLIENTS = 32


@dataclass(frozen=True)
class Pair:
    article: str
    headline: str

    @property
    def name(self) -> str | None:
        """A name that the article has in the middle of a sentence."""
        found = NAME.search(self.article)
        return found[0] if found else None


def read_pairs(path: Path, most: int) -> list[Pair]:
    """At most `most` pairs, drawn the same way each time."""
    opened = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
        pairs = [Pair(clean(pair["body"]), pair["headline"]) for pair in map(json.loads, lines)]
    random.Random(1).shuffle(pairs)
    return pairs[:most]


async def write_all(
    service: HeadlineService, pairs: Sequence[Pair], wishes: Callable[[int], Wishes]
) -> list[list[Headline]]:
    """The headlines of every pair's article; none where the wishes could not be met."""
    places = iter(range(len(pairs)))
    written: list[list[Headline]] = [[] for _ in pairs]

    async def client() -> None:
        for place in places:
            try:
                written[place] = (await service.write(pairs[place].article, wishes(place))).headlines
            except Impossible as error:
                print(f"article {place}: {error.field} {error}", file=sys.stderr)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return written


class Report:
    """A table in Markdown: a wish, how often it was met, ROUGE-L of what came first, and beside what."""

    def __init__(self, pairs: Sequence[Pair], plain: Sequence[Headline]) -> None:
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)
        self._pairs = pairs
        self.plain = [headline.text for headline in plain]
        print("| wish | met | ROUGE-L | beside | ROUGE-L of that | mean characters |", flush=True)
        print("|---|---|---|---|---|---|")
        self.add("none", self.plain, lambda place, text: True, "-", [])

    def add(
        self,
        wish: str,
        places_texts: Sequence[str] | dict[int, str],
        met: Callable[[int, str], bool],
        beside: str,
        others: Sequence[str] | dict[int, str],
    ) -> None:
        texts = dict(enumerate(places_texts)) if not isinstance(places_texts, dict) else places_texts
        share = mean(bool(text) and met(place, text) for place, text in texts.items())
        score = self.rouge(texts)
        other = f"{self.rouge({place: others[place] for place in texts}):.1f}" if others else "-"
        length = mean(map(len, texts.values()))
        print(f"| {wish} | {share:.1%} of {len(texts)} | {score:.1f} | {beside} | {other} | {length:.0f} |", flush=True)

    def rouge(self, texts: dict[int, str]) -> float:
        return mean(self.similarity(self._pairs[place].headline, text) for place, text in texts.items())

    def similarity(self, one: str, other: str) -> float:
        return 100 * float(self._scorer.score(one, other)["rougeL"].fmeasure)


def cut(text: str, length: int) -> str:
    """As many whole words of the text as have room."""
    while len(text) > length:
        text = text.rpartition(" ")[0]
    return text


async def measure(service: HeadlineService, pairs: Sequence[Pair]) -> None:
    plain = [found[0] for found in await write_all(service, pairs, lambda place: Wishes())]
    report = Report(pairs, plain)

    async def first(wishes: Callable[[int], Wishes], among: Sequence[Pair] = pairs) -> list[str]:
        return [found[0].text if found else "" for found in await write_all(service, among, wishes)]

    for length in (40, 60, 80):
        texts = await first(lambda place, length=length: Wishes(limits=Limits(max_chars=length)))  # type: ignore[misc]
        cuts = [cut(text, length) for text in report.plain]
        met = lambda place, text, length=length: len(text) <= length  # noqa: E731
        report.add(f"`max_chars` {length}", texts, met, "the unlimited one, cut", cuts)
    texts = await first(lambda place: Wishes(limits=Limits(max_words=7)))
    cuts = [" ".join(text.split()[:7]) for text in report.plain]
    report.add("`max_words` 7", texts, lambda place, text: len(text.split()) <= 7, "the unlimited one, cut", cuts)

    named = [place for place, pair in enumerate(pairs) if pair.name]
    names = [str(pairs[place].name) for place in named]
    limits = [Limits(include=(name,)) for name in names]
    found = await write_all(service, [pairs[place] for place in named], lambda place: Wishes(limits=limits[place]))
    lacking = {
        place: not headlines or bool(headlines[0].missing) for place, headlines in zip(named, found, strict=True)
    }
    included = {place: headlines[0].text if headlines else "" for place, headlines in zip(named, found, strict=True)}
    report.add("`include` a name", included, lambda place, text: not lacking[place], "the unlimited one", report.plain)

    longest = [max(re.findall(r"\w+", text), key=len) for text in report.plain]
    avoided = [Limits(avoid=(word,)) for word in longest]
    texts = await first(lambda place: Wishes(limits=avoided[place]))
    report.add(
        "`avoid` its longest word",
        texts,
        lambda place, text: avoided[place].obeyed_by(text),
        "the unlimited one",
        report.plain,
    )
    texts = await first(lambda place: Wishes(sampling=Sampling(1.0, 0.9, place)))
    report.add("`sample`, 1.0, 0.9", texts, lambda place, text: True, "the unlimited one", report.plain)

    five = await write_all(service, pairs, lambda place: Wishes(num_headlines=5))
    firsts = [headlines[0].text for headlines in five]
    report.add("`num_headlines` 5, the first", firsts, lambda place, text: True, "the unlimited one", report.plain)
    best = [
        max((headline.text for headline in headlines), key=lambda text: report.similarity(pair.headline, text))
        for pair, headlines in zip(pairs, five, strict=True)
    ]
    report.add("`num_headlines` 5, the best", best, lambda place, text: True, "the unlimited one", report.plain)
    alike = mean(
        report.similarity(one.text, other.text)
        for headlines in five
        for one, other in itertools.combinations(headlines, 2)
    )
    print(
        f"\nOf 5 headlines wanted {mean(map(len, five)):.2f} came, all different; "
        f"ROUGE-L of one to another {alike:.1f}."
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--model", default="press-en")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    given = parser.parse_args()
    folder = Store(given.model_store).resolve(given.model)
    model = load(folder, verify(folder))
    service = HeadlineService(model, Metrics(), max_batch_tokens=8192, max_waiting=2 * CLIENTS)
    pairs = read_pairs(given.pairs, given.most)
    async with service.running():
        print(f"{model.info.name}@{model.info.version}, {model.info.dtype}, {len(pairs)} articles\n")
        await measure(service, pairs)


if __name__ == "__main__":
    asyncio.run(main())
