"""Reads pairs of an article and its headline from files or a published data set. Knows no tokens and no model.

Everything becomes one `datasets.Dataset` that lies on disk and is mapped into memory, so a set may be larger than that.
"""

import bz2
import csv
import gzip
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from datasets import Dataset, Features, Value, disable_progress_bars, load_dataset
from datasets.exceptions import DatasetGenerationError

from app.headlines.article import clean
from app.training.errors import TrainingError

FEATURES = Features({name: Value("string") for name in ("article", "headline", "source", "where")})
ARTICLE_NAMES = ("article", "body", "text", "document", "story")
HEADLINE_NAMES = ("headline", "title", "highlights", "summary")
PUBLISHED = {"cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0")}  # known by name: the hub's id and the configuration
OPENERS: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
LINES = (".jsonl", ".ndjson", ".json")  # a JSON object a line, each with columns of its own
FORMATS = (*LINES, ".csv", ".tsv", ".parquet")
HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
REPORTED = 20  # bad rows that are remembered with their reason; all are counted


class Columns(NamedTuple):
    """Which columns hold the article and its headline; None: the usual names are tried."""

    article: str | None = None
    headline: str | None = None


class Row(NamedTuple):
    """One row as it stands in a file or a data set, or the reason why it cannot be read."""

    origin: str  # the file or the data set
    number: int
    values: dict[str, Any] | str

    @property
    def where(self) -> str:
        return f"{self.origin}:{self.number}"


class NoColumn(TrainingError):
    """A row lacks what should be the article or the headline."""


@dataclass
class Pairs:
    """The good pairs, and what was wrong with the others."""

    dataset: Dataset
    read: int
    bad: int
    reasons: list[tuple[str, str]] = field(default_factory=list)  # (file:line, reason), the first ones

    def __len__(self) -> int:
        return len(self.dataset)


def read_pairs(
    sources: Sequence[str],
    *,
    columns: Columns = Columns(),  # noqa: B008 - a tuple
    cache: Path,
    max_bad_share: float = 0.02,
    split: str = "train",
) -> Pairs:
    """All pairs of files (JSONL, CSV, TSV, Parquet; .gz, .xz, .bz2) and of data sets of the hub.

    They are written to the folder `cache` and mapped from there. A row without a text or a headline is left out and
    counted. Raises TrainingError for what cannot be read at all, and if more than `max_bad_share` of the rows are bad.
    """
    tally = _Tally()
    rows = _good(_rows_of_all(sources, split), columns, tally)
    first = next(rows, None)
    if first is None:
        raise TrainingError(f"no pairs in {', '.join(sources) or 'nothing'}{tally.example()}")
    dataset = _on_disk(first, rows, cache)
    if tally.bad > max_bad_share * tally.read:
        raise TrainingError(f"{tally.bad} of {tally.read} rows are bad, more than {max_bad_share:.0%}{tally.example()}")
    return Pairs(dataset, tally.read, tally.bad, tally.reasons)


@dataclass
class _Tally:
    read: int = 0
    bad: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def reject(self, where: str, reason: str) -> None:
        self.bad += 1
        if len(self.reasons) < REPORTED:
            self.reasons.append((where, reason))

    def example(self) -> str:
        return f" ({self.reasons[0][0]}: {self.reasons[0][1]})" if self.reasons else ""


def _on_disk(first: dict[str, str], rest: Iterator[dict[str, str]], cache: Path) -> Dataset:
    def every() -> Iterator[dict[str, str]]:
        yield first
        yield from rest

    disable_progress_bars()
    try:
        # The fingerprint names the folder in `cache`, which has to be empty: what is there under it is taken as it is.
        return Dataset.from_generator(every, features=FEATURES, cache_dir=str(cache), fingerprint="pairs")
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, TrainingError | OSError) else error) from error


def _good(rows: Iterator[Row], columns: Columns, tally: _Tally) -> Iterator[dict[str, str]]:
    for row in rows:
        tally.read += 1
        pair = row.values if isinstance(row.values, str) else _pair(row, row.values, columns)
        if isinstance(pair, str):
            tally.reject(row.where, pair)
        else:
            yield pair


def _pair(row: Row, values: dict[str, Any], columns: Columns) -> dict[str, str] | str:
    """The pair in a row, or what is wrong with it. Raises TrainingError where all rows would lack a column."""
    try:
        article = _text(values, columns.article, ARTICLE_NAMES)
        headline = _text(values, columns.headline, HEADLINE_NAMES)
    except NoColumn as error:
        if _format(Path(row.origin)) in LINES:
            return str(error)
        raise TrainingError(f"{row.where}: {error}") from error
    if not article or not headline:
        return "no article" if not article else "no headline"
    if len(headline) >= len(article):
        return "the headline is longer than its article"
    source = values.get("source") or Path(row.origin).name.partition(".")[0]
    return {"article": article, "headline": headline, "source": str(source), "where": row.where}


def _text(values: dict[str, Any], name: str | None, usual: Sequence[str]) -> str:
    column = name or next((candidate for candidate in usual if candidate in values), None)
    if column is None or column not in values:
        wanted = repr(name) if name else "any of " + ", ".join(usual)
        raise NoColumn(f"no column {wanted}; there is {', '.join(map(str, values)) or 'nothing'}")
    value = values[column]
    return clean(value) if isinstance(value, str) else ""


def _rows_of_all(sources: Sequence[str], split: str) -> Iterator[Row]:
    found = [_files(source) for source in sources]  # what is missing is found before the first is read
    for source, files in zip(sources, found, strict=True):
        for file in files:
            yield from _rows_of_file(file)
        if not files:
            yield from _rows_of_hub(source, split)


def _files(source: str) -> list[Path]:
    """The files that are meant, which are there; none for a data set of the hub."""
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _format(file) in FORMATS)
        if not files:
            raise TrainingError(f"{path}: no file of pairs in it ({', '.join(FORMATS)})")
        return files
    if path.exists() and _format(path) not in FORMATS:
        raise TrainingError(f"{path}: not one of {', '.join(FORMATS)}")
    if path.exists():
        return [path]
    if _format(path) in FORMATS or not HUB_NAME.fullmatch(source):
        raise TrainingError(f"{source}: no such file")
    return []


def _format(path: Path) -> str:
    name = path.with_suffix("") if path.suffix in OPENERS else path
    return name.suffix.lower()


def _rows_of_file(path: Path) -> Iterator[Row]:
    readers = {".csv": _rows_of_csv, ".tsv": _rows_of_csv, ".parquet": _rows_of_parquet}
    try:
        yield from readers.get(_format(path), _rows_of_jsonl)(path)
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path}: not UTF-8 ({error.reason} at byte {error.start} of a piece)") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise TrainingError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _open(path: Path) -> IO[str]:
    opened: IO[str] = OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="")
    return opened


def _rows_of_jsonl(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(str(path), number, _object(line))


def _object(line: str) -> dict[str, Any] | str:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    return values if isinstance(values, dict) else "no JSON object"


def _rows_of_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with _open(path) as file:
        reader = csv.DictReader(file, delimiter="\t" if _format(path) == ".tsv" else ",", strict=True)
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(str(path), reader.reader.line_num, f"no CSV ({error})")
                continue
            extra = None in values
            yield Row(str(path), reader.line_num, "more fields than the header" if extra else values)


def _rows_of_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1000) for row in batch.to_pylist())
            for number, values in enumerate(rows, start=1):
                yield Row(str(path), number, values)
    except pyarrow.ArrowException as error:
        raise TrainingError(f"{path}: no Parquet ({str(error).splitlines()[0]})") from error


def _rows_of_hub(name: str, split: str) -> Iterator[Row]:
    identity, configuration = PUBLISHED.get(name.rpartition("/")[2], (name, None))
    try:
        for number, values in enumerate(load_dataset(identity, configuration, split=split, streaming=True), start=1):
            yield Row(name, number, dict(values))
    except Exception as error:  # network, name, format: whatever it is, the set is not to be had
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{name} is no file, and cannot be had from the Hugging Face hub ({reason})") from error
