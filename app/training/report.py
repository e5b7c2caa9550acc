"""What an evaluation says: tables for the terminal, everything as JSON, a page that needs nothing but itself."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from app.headlines.support import unsupported
from app.training.bias import EXAMPLES, Bias
from app.training.errors import TrainingError
from app.training.evaluate import BASELINES, Evaluation
from app.training.pairs import Pairs
from app.training.plots import Row, histogram, intervals

SHOWN = 50  # examples
OPENING = 320  # characters of an article
TITLES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
WRITERS = {"model": "model", "reference": "references", "first_sentence": "first sentence", "lead": "lead"}
Cells = list[str]


@contextmanager
def watched(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal; what is yielded takes how many more are done."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda number: progress.advance(task, number)


class Rate(ProgressColumn):
    """Articles a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def must_be_writable(path: Path) -> None:
    """Raise TrainingError if the file could not be written at the end; nothing changes on disk."""
    there = path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}") from error


def print_bad_rows(pairs: Pairs) -> None:
    """One line on stderr, where rows were left out."""
    if pairs.bad:
        where, reason = pairs.reasons[0]
        print(f"{pairs.bad} of {pairs.read} rows are left out, the first at {where}: {reason}", file=sys.stderr)


def write_json(path: Path, evaluation: Evaluation, biases: Sequence[Bias]) -> None:
    """Raises TrainingError if it cannot be written."""
    _write(path, json.dumps(as_dict(evaluation, biases), ensure_ascii=False, indent=2) + "\n")


def write_html(path: Path, evaluation: Evaluation, biases: Sequence[Bias]) -> None:
    """Raises TrainingError if it cannot be written."""
    _write(path, as_page(evaluation, biases))


def print_tables(console: Console, evaluation: Evaluation, biases: Sequence[Bias]) -> None:
    console.print(f"{_name(evaluation)}: {evaluation.measured_on}", soft_wrap=True, highlight=False)
    heads, rows = _scores(evaluation)
    console.print(_table(heads, rows))
    heads, rows = _wordings(evaluation)
    console.print(_table(heads, rows))
    if biases:
        console.print(_table(SWAP_HEADS, _swaps(biases)))
    console.print(_machine(evaluation), soft_wrap=True, highlight=False)


def as_dict(evaluation: Evaluation, biases: Sequence[Bias]) -> dict[str, Any]:
    """Everything that was measured, and every headline; ROUGE 0 to 100, shares 0 to 1."""
    return {
        "model": {name: value for name, value in asdict(evaluation.model).items() if name != "scores"},
        "measured_on": evaluation.measured_on,
        "protocol": evaluation.protocol.name,
        "seed": evaluation.seed,
        "speed": evaluation.speed,
        "macro": evaluation.macro,
        "all": evaluation.overall,
        "by_source": {
            source: {"pairs": len(evaluation.sources[source]), **summary}
            for source, summary in evaluation.by_source.items()
        },
        "lengths": evaluation.histograms(),
        "swaps": [_swap_as_dict(bias) for bias in biases],
        "headlines": [_headline_as_dict(evaluation, place) for place in range(len(evaluation.pairs))],
    }


def as_page(evaluation: Evaluation, biases: Sequence[Bias]) -> str:
    page = Template(files("app.training").joinpath("report.html").read_text(encoding="utf-8"))
    examples = evaluation.examples(SHOWN)
    return page.substitute(
        name=escape(_name(evaluation)),
        measured_on=escape(evaluation.measured_on),
        machine=escape(_machine(evaluation)),
        tiles="".join(_tile(*tile) for tile in _tiles(evaluation)),
        rouge_plots="".join(_rouge_plot(evaluation, kind) for kind in reversed(evaluation.protocol.kinds)),
        scores=_html_table(*_scores(evaluation)),
        wordings=_html_table(*_wordings(evaluation)),
        length_plots="".join(_length_plot(unit, counts) for unit, counts in evaluation.histograms().items()),
        swaps=_swap_section(biases) if biases else "",
        number=len(examples),
        examples="".join(_example(evaluation, place) for place in examples),
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}") from error


def _name(evaluation: Evaluation) -> str:
    return f"{evaluation.model.name}@{evaluation.model.version}"


def _machine(evaluation: Evaluation) -> str:
    speed, model = evaluation.speed, evaluation.model
    return (
        f"{speed['articles_per_second']:g} articles and {speed['words_per_second']:g} headline words a second "
        f"on {model.device} in {model.dtype}, {speed['seconds']:g} s in all"
    )


def _scores(evaluation: Evaluation) -> tuple[Cells, list[Cells]]:
    """Every ROUGE with half its 95 % interval by source, macro and over all, beside the last one of the baselines."""
    kinds = evaluation.protocol.kinds
    heads = ["source", "pairs", *(TITLES[kind] for kind in kinds)]
    heads += [f"{WRITERS[name]}’s {TITLES[kinds[-1]]}" for name in BASELINES]
    groups = [(source, len(places)) for source, places in evaluation.sources.items()]
    rows = [_score_row(name, number, evaluation.by_source[name], kinds) for name, number in groups]
    rows.append(_score_row("macro over sources", len(evaluation.pairs), evaluation.macro, kinds))
    rows.append(_score_row("all pairs", len(evaluation.pairs), evaluation.overall, kinds))
    return heads, rows


def _score_row(name: str, number: int, summary: dict[str, Any], kinds: Sequence[str]) -> Cells:
    ours = [_interval(summary["model"]["rouge"][kind]) for kind in kinds]
    return [name, str(number), *ours, *(f"{summary[name]['rouge'][kinds[-1]]['mean']:.1f}" for name in BASELINES)]


def _interval(score: dict[str, float]) -> str:
    return f"{score['mean']:.1f} ±{(score['high'] - score['low']) / 2:.1f}"


def _wordings(evaluation: Evaluation) -> tuple[Cells, list[Cells]]:
    """By writer what its headlines take from the article, what they invent, how long they are."""
    heads = ["headlines", "unsupported", "names", "numbers", "copied", "novel bigrams", "words", "characters"]
    return heads, [_wording_row(title, evaluation.macro[writer]) for writer, title in WRITERS.items()]


def _wording_row(title: str, summary: dict[str, Any]) -> Cells:
    names = ("unsupported_per_100", "unsupported_names_per_100", "unsupported_numbers_per_100")
    return [
        title,
        *(f"{summary[name]:.1f}" if name in summary else "" for name in names),
        *(f"{summary[name]:.1%}" for name in ("copied", "novel_bigrams")),
        *("{mean:.1f} ({p5:g}, {p50:g}, {p95:g})".format(**summary[unit]) for unit in ("words", "characters")),
    ]


SWAP_HEADS = ["swapped", "articles", "headlines that changed", "share"]


def _swaps(biases: Sequence[Bias]) -> list[Cells]:
    return [[bias.kind, str(bias.articles), str(len(bias.changes)), f"{bias.share:.1%}"] for bias in biases]


def _swap_as_dict(bias: Bias) -> dict[str, Any]:
    return {
        "kind": bias.kind,
        "articles": bias.articles,
        "changed": len(bias.changes),
        "share": round(bias.share, 4),
        "examples": [asdict(change) for change in bias.changes[:EXAMPLES]],
    }


def _headline_as_dict(evaluation: Evaluation, place: int) -> dict[str, Any]:
    pair = evaluation.pairs[place]
    scores = {kind: round(float(evaluation.measures["model"][kind][place]), 2) for kind in evaluation.protocol.kinds}
    texts = {writer: evaluation.texts[writer][place] for writer in WRITERS}
    return {"where": pair.where, "source": pair.source, **texts, **scores}


def _table(heads: Cells, rows: Sequence[Cells]) -> Table:
    table = Table(box=SIMPLE)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    return table


def _html_table(heads: Cells, rows: Sequence[Cells]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tiles(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """What matters most: a title, a number, and what to hold it against."""
    macro, kind = evaluation.macro, evaluation.protocol.kinds[-1]
    ours, low = macro["model"]["rouge"][kind], {name: macro[name]["rouge"][kind]["mean"] for name in BASELINES}
    best = max(low, key=lambda name: float(low[name]))
    yield TITLES[kind], f"{ours['mean']:.1f}", f"{ours['low']:.1f}–{ours['high']:.1f}; {WRITERS[best]} {low[best]:.1f}"
    theirs = macro["reference"]["unsupported_per_100"]
    yield "unsupported per 100", f"{macro['model']['unsupported_per_100']:.1f}", f"references {theirs:.1f}"
    theirs = macro["reference"]["novel_bigrams"]
    yield "novel bigrams", f"{macro['model']['novel_bigrams']:.0%}", f"references {theirs:.0%}"
    speed = evaluation.speed
    yield "articles a second", f"{speed['articles_per_second']:g}", f"{evaluation.model.dtype}, beam {evaluation.beams}"


def _tile(title: str, number: str, beside: str) -> str:
    return f'<div class="tile">{escape(title)}<b>{escape(number)}</b><span class="faint">{escape(beside)}</span></div>'


def _rouge_plot(evaluation: Evaluation, kind: str) -> str:
    rows = [_plot_row(source, summary, kind) for source, summary in evaluation.by_source.items()]
    rows.append(_plot_row("macro", evaluation.macro, kind, strong=True))
    return (
        f"<figure><figcaption><b>{TITLES[kind]}</b>: <b class='ours'>● model</b> with its 95 % interval, "
        f"<b class='theirs'>○ first sentence</b>, <b class='theirs'>| lead</b></figcaption>"
        f"{intervals(rows, f'{TITLES[kind]} by source')}</figure>"
    )


def _plot_row(label: str, summary: dict[str, Any], kind: str, *, strong: bool = False) -> Row:
    ours = summary["model"]["rouge"][kind]
    others = [summary[name]["rouge"][kind]["mean"] for name in BASELINES]
    return Row(label, ours["mean"], ours["low"], ours["high"], others, strong)


def _length_plot(unit: str, counts: dict[str, Any]) -> str:
    ours, theirs = counts["counts"]
    return (
        f"<figure><figcaption><b>{unit}</b>: <b class='ours'>model</b>, <b class='theirs'>references</b></figcaption>"
        f"{histogram(counts['edges'], [('ours', ours), ('theirs', theirs)], f'headlines by {unit}')}</figure>"
    )


def _swap_section(biases: Sequence[Bias]) -> str:
    changes = [[bias.kind, change.headline, change.swapped_back] for bias in biases for change in bias.changes[:3]]
    return (
        "<h2>Swapped words</h2><p class='faint'>How often the rest of the headline changes when words of a kind are "
        "swapped in the article. Weekdays are the yardstick: they should matter to nobody.</p>"
        f"<div class='wide'>{_html_table(SWAP_HEADS, _swaps(biases))}</div>"
        f"<details><summary>Some that changed</summary><div class='wide examples'>"
        f"{_html_table(['swapped', 'headline', 'of the swapped article, swapped back'], changes)}</div></details>"
    )


def _example(evaluation: Evaluation, place: int) -> str:
    pair, headline = evaluation.pairs[place], evaluation.texts["model"][place]
    opening = pair.article if len(pair.article) <= OPENING else pair.article[:OPENING].rpartition(" ")[0] + " …"
    return (
        f"<tr><td class='opening' title='{escape(pair.where)}'>{escape(opening)} [{escape(pair.source)}]</td>"
        f"<td>{escape(pair.headline)}</td><td>{_marked(headline, pair.article)}</td></tr>"
    )


def _marked(headline: str, article: str) -> str:
    """The headline as HTML, what its article lacks marked."""
    html, end = "", 0
    for part in unsupported(headline, article):
        html += f"{escape(headline[end : part.start])}<mark title='{escape(part.kind)}'>{escape(part.text)}</mark>"
        end = part.end
    return html + escape(headline[end:])
