"""Pairs come out as they stand in files of every kind; bad rows are counted and named, and only too many are fatal."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, IterableDataset
from pyarrow import parquet

from app.training import pairs as module
from app.training.errors import TrainingError
from app.training.pairs import Columns, Pairs, read_pairs

ARTICLE = 'The mayor of town {} resigned on Monday, she said: "I go, at last". Her party will name another.'
Row = dict[str, Any]


def a_row(number: int, **more: Any) -> Row:
    return {"article": ARTICLE.format(number), "headline": f"Mayor {number}, “tired”, resigns", **more}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def read(cache: Path) -> Callable[..., Pairs]:
    def of(*sources: Path | str, **options: Any) -> Pairs:
        return read_pairs([str(source) for source in sources], cache=cache, **options)

    return of


def json_lines(rows: Sequence[object]) -> bytes:
    texts = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    return "".join(f"{text}\n" for text in texts).encode()


def write_json(file: Path, *rows: object) -> Path:
    file.write_bytes(json_lines(rows))
    return file


def write_csv(file: Path, *rows: Row) -> Path:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_parquet(file: Path, *rows: Row) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file


def write_packed(file: Path, *rows: Row) -> Path:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[file.suffix]
    file.write_bytes(pack(json_lines(rows)))
    return file


WRITERS: dict[str, Callable[..., Path]] = {
    "pairs.jsonl": write_json,
    "pairs.ndjson": write_json,
    "pairs.jsonl.gz": write_packed,
    "pairs.jsonl.xz": write_packed,
    "pairs.JSONL.bz2": write_packed,
    "pairs.csv": write_csv,
    "pairs.tsv": write_csv,
    "pairs.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_its_pairs(name: str, tmp_path: Path, read: Callable[..., Pairs]) -> None:
    rows = [a_row(number) for number in range(3)]
    pairs = read(WRITERS[name](tmp_path / name, *rows))
    assert [{"article": row["article"], "headline": row["headline"]} for row in pairs.dataset] == rows
    assert set(pairs.dataset["source"]) == {"pairs"}
    first = 2 if name.endswith(("csv", "tsv")) else 1
    assert pairs.dataset["where"][:2] == [f"{tmp_path / name}:{first}", f"{tmp_path / name}:{first + 1}"]
    assert (pairs.read, pairs.bad, pairs.reasons, len(pairs)) == (3, 0, [], 3)


def test_a_csv_has_quotes_and_newlines_in_its_fields(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    file = tmp_path / "quoted.csv"
    file.write_text(
        '\ufeffheadline,article\r\n"Mayor ""tired"", resigns","She said:\n""I go"", and went, at last.\n\nToday."\r\n'
        "Plain,The second article is here.\r\n",
        encoding="utf-8",
        newline="",
    )
    pairs = read(file).dataset
    assert pairs["headline"] == ['Mayor "tired", resigns', "Plain"]
    assert pairs["article"][0].split() == ["She", "said:", '"I', 'go",', "and", "went,", "at", "last.", "Today."]


def test_a_folder_stands_for_its_files_in_their_order(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    write_csv(folder / "b.csv", a_row(2))
    write_json(folder / "a.jsonl", a_row(1))
    (folder / "README.md").write_text("no pairs")
    assert read(folder, write_json(tmp_path / "c.jsonl", a_row(3))).dataset["source"] == ["a", "b", "c"]


def test_a_column_source_names_the_source(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    rows = [a_row(1, source="wire"), a_row(2, source=""), a_row(3, source=7), a_row(4)]
    assert read(write_json(tmp_path / "my.pairs.jsonl", *rows)).dataset["source"] == ["wire", "my", "7", "my"]


@pytest.mark.parametrize("article", module.ARTICLE_NAMES)
@pytest.mark.parametrize("headline", module.HEADLINE_NAMES)
def test_usual_names_of_columns_are_found(article: str, headline: str) -> None:
    row = module.Row("f.csv", 2, {"id": "1", headline: "Mayor resigns", article: ARTICLE})
    pair = module._pair(row, row.values, Columns())  # type: ignore[arg-type]
    assert pair == {"article": ARTICLE, "headline": "Mayor resigns", "source": "f", "where": "f.csv:2"}


def test_named_columns_come_before_usual_ones(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    file = write_csv(tmp_path / "odd.csv", {**a_row(1), "Long": "The long text of the piece.", "Short": "The short"})
    pairs = read(file, columns=Columns("Long", "Short")).dataset
    assert (pairs["article"], pairs["headline"]) == (["The long text of the piece."], ["The short"])


# From the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of the hub, which has one set with the columns of cnn_dailymail."""
    asked: list[tuple[Any, ...]] = []

    def load(name: str, configuration: str | None, *, split: str, streaming: bool) -> IterableDataset:
        asked.append((name, configuration, split, streaming))
        rows = [{"article": ARTICLE.format(number), "highlights": f"{number} resigns", "id": "x"} for number in (1, 2)]
        return Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(module, "load_dataset", load)
    return asked


@pytest.mark.parametrize("name", ["cnn_dailymail", "abisee/cnn_dailymail"])
def test_cnn_dailymail_is_known_by_name(name: str, hub: list[tuple[Any, ...]], read: Callable[..., Pairs]) -> None:
    pairs = read(name, split="validation").dataset
    assert hub == [("abisee/cnn_dailymail", "3.0.0", "validation", True)]
    assert pairs["headline"] == ["1 resigns", "2 resigns"]
    assert pairs["source"] == ["cnn_dailymail"] * 2
    assert pairs["where"] == [f"{name}:1", f"{name}:2"]


def test_other_sets_are_asked_for_as_they_are_named(hub: list[tuple[Any, ...]], read: Callable[..., Pairs]) -> None:
    assert read("somebody/news", columns=Columns("article", "highlights")).dataset["source"] == ["news"] * 2
    assert hub == [("somebody/news", None, "train", True)]
    with pytest.raises(TrainingError, match="somebody/news:1: no column 'title'; there is article, highlights, id"):
        read("somebody/news", columns=Columns("article", "title"))


def test_a_set_that_breaks_off_is_an_error(monkeypatch: pytest.MonkeyPatch, read: Callable[..., Pairs]) -> None:
    def rows() -> Any:
        yield {"article": ARTICLE, "title": "Mayor resigns"}
        raise ConnectionError("the line is dead\nat the other end")

    monkeypatch.setattr(module, "load_dataset", lambda *_, **__: IterableDataset.from_generator(rows))
    with pytest.raises(TrainingError, match=r"news is no file, and cannot be had .*the line is dead") as caught:
        read("somebody/news")
    assert "\n" not in str(caught.value)


# On disk


def test_the_set_is_mapped_from_the_folder(tmp_path: Path, cache: Path, read: Callable[..., Pairs]) -> None:
    pairs = read(write_json(tmp_path / "a.jsonl", *(a_row(number) for number in range(30))))
    files = [Path(file["filename"]) for file in pairs.dataset.cache_files]
    assert files
    assert all(file.is_relative_to(cache) and file.suffix == ".arrow" for file in files)
    assert pyarrow.total_allocated_bytes() < 30 * len(ARTICLE)


def test_files_that_have_changed_are_read_again(tmp_path: Path, cache: Path) -> None:
    file = write_json(tmp_path / "a.jsonl", a_row(1))
    read_pairs([str(file)], cache=cache)
    write_json(file, a_row(2))
    assert "town 2" in read_pairs([str(file)], cache=tmp_path / "again").dataset["article"][0]


# Bad rows


BAD: dict[str, object] = {
    "no article": {"article": " ", "headline": "Mayor resigns"},
    "no headline": {"article": ARTICLE, "headline": None},
    "no JSON object": [1, 2],
    "no JSON (": '{"article": "cut sho',
    "the headline is longer than its article": {"article": "Short.", "headline": "Much longer than that"},
    "no column any of headline": {"article": ARTICLE},
    "no column any of article": {"headline": "Mayor resigns", "id": 1},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_counted_and_named(reason: str, tmp_path: Path, read: Callable[..., Pairs]) -> None:
    file = write_json(tmp_path / "a.jsonl", a_row(1), "", BAD[reason], a_row(2))
    pairs = read(file, max_bad_share=0.34)
    assert (len(pairs), pairs.read, pairs.bad) == (2, 3, 1)
    [(where, said)] = pairs.reasons
    assert where == f"{file}:3"
    assert said.startswith(reason)
    assert pairs.dataset["where"] == [f"{file}:1", f"{file}:4"]


@pytest.mark.parametrize("share", [0.0, 0.32])
def test_more_bad_rows_than_the_share_are_fatal(share: float, tmp_path: Path, read: Callable[..., Pairs]) -> None:
    file = write_json(tmp_path / "a.jsonl", a_row(1), BAD["no article"], a_row(2))
    words = rf"1 of 3 rows are bad, more than {share:.0%} \({file}:2: no article\)"
    with pytest.raises(TrainingError, match=words):
        read(file, max_bad_share=share)


def test_a_bad_first_row_is_a_bad_row(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    assert read(write_json(tmp_path / "a.jsonl", {"id": 1}, a_row(2)), max_bad_share=0.5).bad == 1


def test_rows_of_a_csv_with_too_many_or_too_few_fields_are_bad(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f'article,headline\n{"long " * 9},ok\nlong enough\na,b,c\n"unclosed" x,y\n', encoding="utf-8")
    pairs = read(file, max_bad_share=0.9)
    assert (len(pairs), pairs.bad) == (1, 3)
    assert [where for where, _ in pairs.reasons] == [f"{file}:{line}" for line in (3, 4, 5)]
    assert [reason.partition(" (")[0] for _, reason in pairs.reasons] == [
        "no headline",
        "more fields than the header",
        "no CSV",
    ]


def test_all_bad_rows_are_counted_and_the_first_are_remembered(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    bad = [BAD["no article"]] * (module.REPORTED + 5)
    pairs = read(write_json(tmp_path / "a.jsonl", a_row(1), *bad), max_bad_share=1)
    assert (pairs.bad, len(pairs.reasons)) == (module.REPORTED + 5, module.REPORTED)


# What cannot be read at all


def packed_half(file: Path) -> None:
    whole = {".gz": gzip.compress, ".xz": lzma.compress}[file.suffix](
        json_lines([a_row(number) for number in range(9)])
    )
    file.write_bytes(whole[: len(whole) // 2])


def damaged_gz(file: Path) -> None:
    whole = bytearray(gzip.compress(json_lines([a_row(number) for number in range(9)])))
    whole[20:60] = b"\xff" * 40
    file.write_bytes(whole)


UNREADABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("a.jsonl", lambda file: file.touch(), "no pairs in "),
    ("a.csv", lambda file: file.touch(), "no pairs in "),
    ("a.csv", lambda file: file.write_text("article,headline\n"), "no pairs in "),
    ("a.csv", lambda file: file.write_text("body,name\nlong text,short\n"), r"a\.csv:2: no column any of headline, "),
    ("a.csv", lambda file: file.write_text("x\ny\n"), r"no column any of article, body, .*; there is x$"),
    ("a.jsonl", lambda file: write_json(file, {"x": 1}), r"no pairs in .*\(.*a\.jsonl:1: no column .*; there is x\)"),
    ("a.jsonl", lambda file: file.write_text("{}\n"), "there is nothing"),
    ("a.jsonl", lambda file: write_json(file, BAD["the headline is longer than its article"]), "longer than its art"),
    ("a.jsonl", lambda file: file.write_text(json.dumps(a_row(1)), encoding="utf-16"), "not UTF-8"),
    ("a.jsonl", lambda file: file.write_text(json.dumps(a_row(1)), encoding="utf-16-le"), r"no pairs .*no JSON"),
    ("a.csv", lambda file: file.write_text("headline,article\né,où ça", encoding="latin-1"), "not UTF-8"),
    ("a.jsonl.gz", packed_half, "cannot read .*a.jsonl.gz"),
    ("a.jsonl.xz", packed_half, "cannot read .*a.jsonl.xz"),
    ("a.jsonl.gz", damaged_gz, "cannot read .*a.jsonl.gz"),
    ("a.jsonl.xz", lambda file: file.write_text("{}"), "cannot read .*a.jsonl.xz"),
    ("a.parquet", lambda file: file.write_text("PAR"), "a.parquet: no Parquet"),
    ("a.parquet", lambda file: write_parquet(file, {"x": 1}), "a.parquet:1: no column"),
    ("a.txt", lambda file: file.touch(), "not one of .jsonl"),
    ("a", lambda file: file.mkdir(), "no file of pairs in it"),
    ("a.jsonl", lambda file: None, "no such file"),
    ("no/such/folder", lambda file: None, "no such file"),
]


@pytest.mark.parametrize(("name", "make", "words"), UNREADABLE)
def test_what_cannot_be_read_is_one_line(
    name: str, make: Callable[[Path], object], words: str, tmp_path: Path, read: Callable[..., Pairs]
) -> None:
    make(tmp_path / name)
    with pytest.raises(TrainingError, match=words) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_broken_in_the_middle_is_named(tmp_path: Path, read: Callable[..., Pairs]) -> None:
    good, broken = write_json(tmp_path / "a.jsonl", a_row(1)), tmp_path / "b.jsonl"
    broken.write_bytes(json_lines([a_row(2)]) + b"\xe9\n")
    with pytest.raises(TrainingError, match=rf"{broken}: not UTF-8"):
        read(good, broken)


def test_a_missing_file_is_found_before_the_first_is_read(
    tmp_path: Path, cache: Path, read: Callable[..., Pairs]
) -> None:
    damaged = tmp_path / "a.jsonl"
    damaged.write_bytes(b"\xff")
    with pytest.raises(TrainingError, match=r"later\.jsonl: no such file"):
        read(damaged, tmp_path / "later.jsonl")
    assert not cache.exists()


def test_no_source_at_all_is_an_error(read: Callable[..., Pairs]) -> None:
    with pytest.raises(TrainingError, match="no pairs in nothing"):
        read()


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()  # nothing can be written under a file
    with pytest.raises(OSError, match="cache"):
        read_pairs([str(write_json(tmp_path / "a.jsonl", a_row(1)))], cache=tmp_path / "cache")
