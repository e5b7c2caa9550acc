"""How good a model is: pairs in, an evaluation out. The story of `headline evaluate`, top to bottom."""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.load import LoadedModel, ModelInfo
from app.training.baselines import first_sentence, lead
from app.training.errors import TrainingError
from app.training.protocols import PROTOCOLS, Protocol
from app.training.scores import Lengths, Numbers, bootstrap, histogram, invention, rouge, wording
from app.training.writing import silent, write

BASELINES = ("first_sentence", "lead")
SHARES = ("copied", "novel_bigrams")
LENGTHS = ("words", "characters")
UNSUPPORTED = "unsupported"

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """An article as the model is given it, and the headline that somebody wrote for it."""

    article: str
    headline: str
    source: str
    where: str  # file:line


@dataclass(frozen=True)
class Evaluation:
    """What a model wrote for some pairs, and every measure of it."""

    model: ModelInfo
    beams: int
    protocol: Protocol
    seed: int
    pairs: Sequence[Pair]
    texts: Mapping[str, Sequence[str]]  # by writer: "model", "reference", and the baselines
    measures: Mapping[str, Mapping[str, Numbers]]  # by writer and measure, a number a pair
    seconds: float  # that the model took, tokenising included

    @property
    def sources(self) -> dict[str, list[int]]:
        """The places of the pairs of each source, by its name."""
        places = defaultdict(list)
        for place, pair in enumerate(self.pairs):
            places[pair.source].append(place)
        return dict(sorted(places.items()))

    @property
    def measured_on(self) -> str:
        """One line that says what the numbers are of."""
        return (
            f"{len(self.pairs)} pairs of {len(self.sources)} sources, seed {self.seed}, protocol {self.protocol.name}; "
            f"ROUGE F1 with stemming, macro over sources, beam {self.beams}, {self.model.dtype}"
        )

    @property
    def speed(self) -> dict[str, float]:
        """Headline words and articles a second, and the seconds in all."""
        words = float(self.measures["model"]["words"].sum())
        return {
            "seconds": round(self.seconds, 2),
            "articles_per_second": round(len(self.pairs) / self.seconds, 2),
            "words_per_second": round(words / self.seconds, 2),
        }

    @cached_property
    def macro(self) -> dict[str, Any]:
        """The measures, the mean of the sources' means."""
        return self.summary(self.sources.values())

    @cached_property
    def overall(self) -> dict[str, Any]:
        """The measures over all pairs, wherever they are from."""
        return self.summary([range(len(self.pairs))])

    @cached_property
    def by_source(self) -> dict[str, dict[str, Any]]:
        return {source: self.summary([places]) for source, places in self.sources.items()}

    def scores(self) -> dict[str, Any]:
        """For the `scores` of a manifest: macro over sources, then each source; ROUGE is F1, 0 to 100."""
        return {
            **_rouge(self.macro["model"]),
            "measured_on": self.measured_on,
            "unsupported_per_100": {name: self.macro[name]["unsupported_per_100"] for name in ("model", "reference")},
            "baselines": {name: _rouge(self.macro[name]) for name in BASELINES},
            "by_source": {source: _rouge(summary["model"]) for source, summary in self.by_source.items()},
        }

    def summary(self, groups: Iterable[Sequence[int]]) -> dict[str, Any]:
        """By writer: its measures over the pairs at these places, the mean of the groups' means."""
        places = [np.array(group) for group in groups]
        return {writer: _summary(numbers, places, seed=self.seed) for writer, numbers in self.measures.items()}

    def histograms(self) -> dict[str, Any]:
        """By unit: the edges of 20 bins, and how many headlines of the model and of the references lie in each."""
        return {unit: histogram(self.measures["model"][unit], self.measures["reference"][unit]) for unit in LENGTHS}

    def examples(self, most: int) -> list[int]:
        """The places of so many pairs at random, the same for every model."""
        return random.Random(self.seed).sample(range(len(self.pairs)), min(most, len(self.pairs)))


def choose(
    dataset: Any, *, most: int | None = None, seed: int = 1, without: Collection[str] = (), protocol: str = "plain"
) -> list[Pair]:
    """The pairs that `read_pairs` has read to evaluate on, at most `most` of each source: the same for every model.

    without: sources to leave out. Raises TrainingError where there is none of these, or no pair is left.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for place, source in enumerate(dataset["source"]):
        by_source[source].append(place)
    if unknown := sorted(set(without) - set(by_source)):
        raise TrainingError(f"no source {unknown[0]!r}; there is {', '.join(sorted(by_source)) or 'none'}")
    samples = [_sample(by_source[source], most, f"{seed} {source}") for source in by_source if source not in without]
    if not samples:
        raise TrainingError("there is no pair to evaluate on")
    return [_pair(dataset[place], PROTOCOLS[protocol]) for place in sorted(chain(*samples))]


def evaluate(
    model: LoadedModel,
    pairs: Sequence[Pair],
    *,
    protocol: str = "plain",
    seed: int = 1,
    progress: Callable[[int], None] = silent,
) -> Evaluation:
    """Have the model write a headline for every pair, by its own decoding, and measure all that can be measured.

    The same pairs, model and device give the same evaluation, but for its seconds. Raises TrainingError.
    """
    articles = [pair.article for pair in pairs]
    began = perf_counter()
    headlines = write(model, articles, progress=progress)
    seconds = perf_counter() - began
    texts = {
        "model": headlines,
        "reference": [pair.headline for pair in pairs],
        "first_sentence": [first_sentence(article) for article in articles],
        "lead": [lead(pair.article, len(pair.headline.split())) for pair in pairs],
    }
    measures = {writer: _measure(writer, texts, articles, PROTOCOLS[protocol]) for writer in texts}
    beams = model.engine.decoding.num_beams
    return Evaluation(model.info, beams, PROTOCOLS[protocol], seed, pairs, texts, measures, seconds)


def _measure(
    writer: str, texts: Mapping[str, Sequence[str]], articles: Sequence[str], protocol: Protocol
) -> dict[str, Numbers]:
    """What can be measured of a writer's texts: no ROUGE of the references, no inventions of what is only cut out."""
    measures = wording(texts[writer], articles)
    if writer != "reference":
        ours = [protocol.headline(text) for text in texts[writer]]
        measures |= rouge(ours, [protocol.reference(text) for text in texts["reference"]], protocol.kinds)
    if writer not in BASELINES:
        measures |= invention(texts[writer], articles)
    return measures


def _pair(row: Mapping[str, str], protocol: Protocol) -> Pair:
    return Pair(protocol.article(row["article"]), row["headline"], row["source"], row["where"])


def _sample(places: list[int], most: int | None, seed: str) -> list[int]:
    return places if most is None or len(places) <= most else random.Random(seed).sample(places, most)


def _rouge(summary: Mapping[str, Any]) -> dict[str, float]:
    return {kind: round(interval["mean"], 1) for kind, interval in summary["rouge"].items()}


def _summary(measures: Mapping[str, Numbers], groups: Sequence[Places], *, seed: int) -> dict[str, Any]:
    """What is said of one writer: only ROUGE has intervals, and only lengths more than a mean."""
    rouges = {name: [numbers[places] for places in groups] for name, numbers in measures.items() if "rouge" in name}
    lengths = {unit: measures[unit][np.concatenate(groups)] for unit in LENGTHS}
    return {
        "rouge": {kind: _rounded(asdict(bootstrap(parts, seed=seed)), 2) for kind, parts in rouges.items()},
        **_invented(measures, groups),
        **{share: round(_mean(measures[share], groups), 4) for share in SHARES},
        **{unit: _rounded(asdict(Lengths.of(numbers)), 1) for unit, numbers in lengths.items()},
    }


def _invented(measures: Mapping[str, Numbers], groups: Sequence[Places]) -> dict[str, float]:
    """Unsupported names and numbers per 100 headlines, together and each; nothing where they were not looked for."""
    counts = {name: 100 * _mean(numbers, groups) for name, numbers in measures.items() if name.startswith(UNSUPPORTED)}
    each = {f"{name}_per_100": round(count, 2) for name, count in counts.items()}
    return {f"{UNSUPPORTED}_per_100": round(sum(counts.values()), 2), **each} if counts else {}


def _mean(numbers: Numbers, groups: Sequence[Places]) -> float:
    return float(np.mean([numbers[places].mean() for places in groups]))


def _rounded(numbers: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(number, digits) for name, number in numbers.items()}
