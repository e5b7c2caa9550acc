"""The report in its three forms, and the command around it: bad input is one line before the work begins."""

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from transformers import ByT5Tokenizer

from app import cli
from app.engine.load import LoadedModel
from app.training import evaluate as evaluation_module
from app.training.bias import Bias, Change
from app.training.errors import TrainingError
from app.training.evaluate import Evaluation, Pair, evaluate
from app.training.plots import Row, Scale, histogram, intervals
from app.training.protocols import PROTOCOLS
from app.training.report import as_page, must_be_writable, print_bad_rows, print_tables, write_html, write_json
from tests.engine.models import build
from tests.fakes import INFO

PAIRS = [
    Pair("Rain fell on <b>Oslo</b> & Bergen. It was wet.", 'Rain "falls" <i>', "city", "f:1"),
    Pair("The mayor of Turku left on Monday. She was tired.", "Turku mayor leaves", "<state>", "f:2"),
]
HEADLINES = ["Rain in <script>alert(1)</script> Paris", "Mayor of Turku leaves after 30 <i>years</i>"]
SWAPS = [Bias("names", 4, [Change("f:1", "<u>He</u>", "She", "He")]), Bias("weekdays", 0, [])]


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    monkeypatch.setattr(evaluation_module, "write", lambda *_, **__: HEADLINES)
    model = SimpleNamespace(info=INFO, engine=SimpleNamespace(decoding=SimpleNamespace(num_beams=4)))
    return evaluate(model, PAIRS)  # type: ignore[arg-type]


class Page(HTMLParser):
    """The tags of a page, and what it names from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.marked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags[-1:] == ["mark"]:
            self.marked.append(data)
            self.tags.append("")


def test_the_page_needs_nothing_and_runs_nothing(evaluation: Evaluation) -> None:
    page = as_page(evaluation, SWAPS)
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "i", "u"} & set(found.tags)
    assert not found.outside
    assert not re.search(r"url\(|@import|https?://", page)
    assert "$" not in page


def test_the_page_shows_every_text_as_it_stands(evaluation: Evaluation) -> None:
    found = Page(as_page(evaluation, SWAPS))
    for text in (
        *HEADLINES,
        *(pair.headline for pair in PAIRS),
        *(pair.article for pair in PAIRS),
        "<u>He</u>",
        "<state>",
    ):
        assert text in found.text
    assert {"Paris", "30"} < set(found.marked)
    assert "Turku" not in found.marked


def test_the_page_has_a_plot_for_each_rouge_and_each_unit(evaluation: Evaluation) -> None:
    found = Page(as_page(evaluation, []))
    assert found.tags.count("svg") == 5
    assert found.tags.count("circle") == 3 * 3 * 2  # ROUGE, two sources and their macro, model and first sentence
    assert "Swapped words" not in found.text


def test_the_json_holds_every_measure_and_headline(evaluation: Evaluation, tmp_path: Path) -> None:
    write_json(tmp_path / "all.json", evaluation, SWAPS)
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert found["macro"]["model"]["rouge"] == evaluation.macro["model"]["rouge"]
    assert [headline["model"] for headline in found["headlines"]] == HEADLINES
    assert found["by_source"]["city"]["pairs"] == 1
    assert [len(one) for one in found["lengths"]["words"]["counts"]] == [20, 20]
    assert found["swaps"][0] == {
        **{"kind": "names", "articles": 4, "changed": 1, "share": 0.25},
        "examples": [{"where": "f:1", "headline": "<u>He</u>", "of_swapped": "She", "swapped_back": "He"}],
    }


def test_the_table_stands_beside_the_baselines(evaluation: Evaluation) -> None:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        print_tables(console, evaluation, SWAPS)
    text = console.export_text()
    for source in ("city", "<state>", "macro over sources", "all pairs", "references", "weekdays"):
        assert source in text
    assert f"{evaluation.macro['lead']['rouge']['rougeL']['mean']:.1f}" in text
    assert "25.0%" in text


def test_a_protocol_names_its_own_rouge(evaluation: Evaluation) -> None:
    model = SimpleNamespace(info=INFO, engine=SimpleNamespace(decoding=SimpleNamespace(num_beams=4)))
    found = evaluate(model, PAIRS, protocol="cnn_dailymail")  # type: ignore[arg-type]
    assert set(found.scores()["by_source"]["city"]) == {"rouge1", "rouge2", "rougeLsum"}
    assert "ROUGE-Lsum" in as_page(found, [])


def test_values_stand_where_the_axis_says() -> None:
    scale = Scale(0, 50, 100, 200)
    assert (scale(0), scale(25), scale(50), scale.ticks) == ("100.0", "150.0", "200.0", [0, 10, 20, 30, 40, 50])
    drawn = intervals([Row("a<b", 40.0, 30.0, 50.0, [20.0, 10.0])], "t")
    places = [float(found) for found in re.findall(r'c?x1?="([\d.]+)"', drawn.partition('<g class="row')[2])]
    _label, other, lead, low, model = places
    assert lead < other < low < model
    assert model - low == pytest.approx(low - other, abs=0.2)
    assert drawn.count("a&lt;b") == 2
    assert "a<b" not in drawn
    assert histogram([0, 1, 2], [("ours", [0, 0]), ("theirs", [1, 3])], "t").count("<path") == 2


def test_a_file_that_cannot_be_written_is_known_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot write .*: Is a directory"):
        must_be_writable(tmp_path)
    with pytest.raises(TrainingError, match="No such file or directory"):
        must_be_writable(tmp_path / "none/report.html")
    must_be_writable(tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "old.html").write_text("old", encoding="utf-8")
    must_be_writable(tmp_path / "old.html")
    assert (tmp_path / "old.html").read_text(encoding="utf-8") == "old"


def test_a_disk_that_is_full_at_the_end_is_one_line(evaluation: Evaluation) -> None:
    with pytest.raises(TrainingError, match="cannot write /dev/full: No space left"):
        write_html(Path("/dev/full"), evaluation, [])


def test_rows_that_are_left_out_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = SimpleNamespace(bad=2, read=90, reasons=[("f:7", "no headline")])
    print_bad_rows(pairs)  # type: ignore[arg-type]
    assert capsys.readouterr().err == "2 of 90 rows are left out, the first at f:7: no headline\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build("t5").save_pretrained(tmp_path / "tiny")
    ByT5Tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [{"text": pair.article, "title": pair.headline, "source": pair.source} for pair in PAIRS] * 3
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path / "pairs.jsonl"


def command(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    monkeypatch.setattr(sys, "argv", ["headline", "evaluate", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_from_a_folder_and_a_file_to_the_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, file: Path, tmp_path: Path
) -> None:
    reports = (tmp_path / "all.json", tmp_path / "all.html")
    options = ["--most", 2, "--swaps", "--device", "cpu", "--json", reports[0], "--html", reports[1]]
    assert command(monkeypatch, folder, file, *options) == 0
    assert "macro over sources" in capsys.readouterr().out
    found = json.loads(reports[0].read_text(encoding="utf-8"))
    assert {source: summary["pairs"] for source, summary in found["by_source"].items()} == {"<state>": 2, "city": 2}
    assert [swap["kind"] for swap in found["swaps"]] == ["names", "genders", "parties", "places", "weekdays"]
    assert reports[1].read_text(encoding="utf-8").startswith("<!doctype html>")


def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").touch()
    for given, said in (
        (("no/such model", file), "is no model"),
        ((folder, tmp_path / "empty.jsonl"), "no pairs in"),
        ((folder, tmp_path / "missing.jsonl"), "missing.jsonl"),
        ((folder, file, "--without", "village"), "no source 'village'"),
        ((folder, file, "--json", tmp_path), "cannot write"),
        ((folder, file, "--article-column", "body"), "no column 'body'"),
    ):
        assert command(monkeypatch, *given, "--device", "cpu") == 1
        lines = capsys.readouterr().err.splitlines()
        assert said in lines[-1]
        assert lines[-1].startswith("headline: ")
    assert command(monkeypatch, folder, file, "--protocol", "xsum") == 2


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, file: Path
) -> None:
    def interrupted(model: LoadedModel, *_: object, **__: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation_module, "write", interrupted)
    assert command(monkeypatch, folder, file, "--device", "cpu") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "headline: interrupted"


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, file: Path
) -> None:
    monkeypatch.setitem(sys.modules, "app.training.report", None)
    monkeypatch.delattr("app.training.report")
    assert command(monkeypatch, folder, file) == 1
    assert "pip install 'headline-service[train]'" in capsys.readouterr().err


def test_the_command_offers_every_protocol() -> None:
    offered = cli.evaluate.__annotations__["protocol"].__origin__.__args__
    assert set(offered) == set(PROTOCOLS)
    assert np.all([PROTOCOLS[name].name == name for name in offered])
