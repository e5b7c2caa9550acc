"""What each training option does to headlines: the same short training with one option at a time, beside none.

    python -m bench.options PAIRS... --base FOLDER --evaluation FILE --most 20 -- --batch 32 --rate 2e-4 --warmup 10

What stands behind "--" goes to every `headline train`. Headlines are the likeliest ones, with no say of the article's
names in the search, so that what the option does is seen. Needs the extra `train`.
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from app.engine.engine import Job
from app.engine.load import LoadedModel, load
from app.headlines.headline import tidy
from app.training.augment import noisy
from app.training.evaluate import Pair, choose
from app.training.pairs import read_pairs
from app.training.scores import Numbers, bootstrap, invention, rouge
from app.training.writing import search

OPTIONS = {
    "none of these": (),
    "--infill 0.3": ("--infill", "0.3"),
    "--first-sentence 0.2": ("--first-sentence", "0.2"),
    "--supported-only": ("--supported-only",),
    "--drop-sentence 0.3": ("--drop-sentence", "0.3"),
    "--shuffle-sentences 0.3": ("--shuffle-sentences", "0.3"),
    "--noise 0.3": ("--noise", "0.3"),
    "--rename 0.35": ("--rename", "0.35"),
    "--adversarial 1": ("--adversarial", "1"),
    "--label-smoothing 0.1": ("--label-smoothing", "0.1"),
    "--average 0.95": ("--average", "0.95"),
}
SEED = 1


@dataclass(frozen=True)
class Outcome:
    """What a model wrote, a number a pair."""

    rouge: Numbers
    noisy_rouge: Numbers  # of articles in lower case, in capitals, or without punctuation
    invented: Numbers  # names and numbers that the article lacks


def train(option: Sequence[str], pairs: Sequence[str], base: Path, common: Sequence[str], folder: Path) -> LoadedModel:
    """The base, trained on the pairs with the option."""
    command = [sys.executable, "-m", "app", "train", *pairs, "--base", str(base), "--name", "tried", *common, *option]
    folders = ["--model-store", str(folder / "store"), "--run-folder", str(folder / "run")]
    (folder / "store").mkdir()
    subprocess.run([*command, *folders], check=True, stdout=subprocess.DEVNULL)
    return load(folder / "store/tried/1", None)


def outcome(model: LoadedModel, pairs: Sequence[Pair]) -> Outcome:
    draws = np.random.default_rng(SEED)
    articles = [pair.article for pair in pairs]
    references = [pair.headline for pair in pairs]
    clean, rough = (_likeliest(model, texts) for texts in (articles, [noisy(text, draws) for text in articles]))
    return Outcome(
        rouge(clean, references, ["rougeL"])["rougeL"],
        rouge(rough, references, ["rougeL"])["rougeL"],
        sum(invention(clean, articles).values()),  # type: ignore[arg-type]
    )


def _likeliest(model: LoadedModel, articles: Sequence[str]) -> list[str]:
    jobs = [Job(model.tokenizer.read(article).tokens, model.engine.decoding.num_beams) for article in articles]
    return [tidy(model.tokenizer.write(found[0].tokens)) if found else "" for found in search(model, jobs)]


def report(outcomes: dict[str, Outcome], sources: Sequence[Sequence[int]], console: Console) -> None:
    """A table of macro means over sources; differences to the first one have their paired 95 % interval."""
    plain = next(iter(outcomes.values()))
    table = Table(
        "option", "ROUGE-L", "difference", "of noisy articles", "difference", "unsupported per 100", "difference"
    )
    for option, found in outcomes.items():
        cells = []
        for kind, factor in (("rouge", 1), ("noisy_rouge", 1), ("invented", 100)):
            numbers, beside = factor * getattr(found, kind), factor * getattr(plain, kind)
            mean = bootstrap([numbers[places] for places in sources], seed=SEED).mean
            change = bootstrap([(numbers - beside)[places] for places in sources], seed=SEED)
            cells += [f"{mean:.1f}", f"{change.mean:+.1f} ({change.low:+.1f} to {change.high:+.1f})"]
        table.add_row(option, *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--most", type=int, default=20, help="pairs of each source to score on")
    parser.add_argument("--without", action="append", default=[], help="a source not to score on")
    own, common = _split(sys.argv[1:])
    given = parser.parse_args(own)
    console = Console(width=140)
    with TemporaryDirectory() as temporary:
        read = read_pairs([str(given.evaluation)], cache=Path(temporary) / "evaluation")
        pairs = choose(read.dataset, most=given.most, without=given.without)
        sources = defaultdict(list)
        for place, pair in enumerate(pairs):
            sources[pair.source].append(place)
        outcomes = {}
        for option, flags in OPTIONS.items():
            with TemporaryDirectory() as folder:
                model = train(flags, list(map(str, given.pairs)), given.base, common, Path(folder))
                outcomes[option] = outcome(model, pairs)
            console.print(f"{option}: done", highlight=False)
            report(outcomes, list(sources.values()), console)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


if __name__ == "__main__":
    main()
