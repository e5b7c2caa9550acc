"""`headline train` as a process: killed and gone on, interrupted, out of disk, in two processes; one line on errors."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import ByT5Tokenizer

from app.store.store import Store, verify
from app.training.run import only_one
from app.training.trainer import COMPLETE
from tests.engine.models import build

ROOT = Path(__file__).parents[2]
# A process that has imported everything once is copied for each command: the same process, seconds earlier.
forked = get_context("forkserver")
forked.set_forkserver_preload(["app.training.train", "app.cli", __name__])


def _command(arguments: list[str], output: str, most_bytes: int | None) -> None:
    """What `python -m app train` does, its output in files."""
    for descriptor, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    sys.argv = ["headline", "train", *arguments]
    from app.cli import main

    main()


@dataclass
class Command:
    process: BaseProcess
    output: str

    def ended(self) -> int:
        self.process.join(200)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode

    def failed(self, code: int = 1) -> str:
        """The one line that it says."""
        assert self.ended() == code, self.errors
        [line] = [line for line in self.errors.splitlines() if line.startswith("headline: ")]
        assert self.errors.splitlines()[-1] == line
        assert "Traceback" not in self.errors
        return line

    @property
    def errors(self) -> str:
        return Path(f"{self.output}.err").read_text()

    @property
    def printed(self) -> str:
        return Path(f"{self.output}.out").read_text()

    def until(self, there: Callable[[], bool]) -> None:
        """Let it go on until this holds: files have no event that one could wait for."""
        last = monotonic() + 200
        while not there():
            assert self.process.is_alive(), self.errors
            assert monotonic() < last
            sleep(0.002)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


class Place:
    """A folder with pairs and a base, where commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = base = folder / "base"
        build("t5").save_pretrained(base)
        ByT5Tokenizer().save_pretrained(base)
        self.pairs = folder / "wire.jsonl"
        self.write(self.pairs, 40)

    def write(self, file: Path, number: int) -> Path:
        with file.open("w") as opened:
            for town in range(number):
                article = f"The mayor of town {town} resigned. She said so on Monday. Her party will name another. Who?"
                opened.write(json.dumps({"article": article, "headline": f"Mayor of town {town} resigns"}) + "\n")
        return file

    def arguments(self, run: str, *more: str, pairs: tuple[Path, ...] = (), name: str = "tiny") -> list[str]:
        return [
            *map(str, pairs or (self.pairs,)),
            *("--base", str(self.base), "--name", name, "--run-folder", str(self.folder / run)),
            *("--model-store", str(self.folder / "store"), "--device", "cpu", "--precision", "float32"),
            *("--max-source-tokens", "64", "--batch", "4", "--epochs", "1", "--save-every", "2", "--log-every", "2"),
            *("--warmup", "0", "--rate", "1e-3", "--held-out", "0.05", *more),
        ]

    def start(self, run: str, *more: str, most_bytes: int | None = None, **options: Any) -> Command:
        output = str(self.folder / f"{run}-{len(list(self.folder.glob('*.err')))}")
        process = forked.Process(target=_command, args=(self.arguments(run, *more, **options), output, most_bytes))
        process.start()
        return Command(process, output)

    def weights(self, version: int, name: str = "tiny") -> bytes:
        folder = self.folder / "store" / name / str(version)
        assert verify(folder) is not None
        return (folder / "model.safetensors").read_bytes()

    def lines(self, run: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in lines]

    def complete(self, run: str) -> list[str]:
        return sorted(path.parent.name for path in (self.folder / run).glob(f"checkpoint-*/{COMPLETE}"))

    @property
    def published(self) -> list[Path]:
        return sorted((self.folder / "store").glob("*/*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def running(command: Command) -> Iterator[Command]:
    try:
        yield command
    finally:
        command.process.kill()
        command.process.join()


EVERYTHING = ("--dropout", "0.2", "--infill", "0.4", "--noise", "0.4", "--average", "0.8", "--first-sentence", "0.2")


def test_a_killed_training_goes_on_to_the_same_weights(place: Place) -> None:
    whole = place.start("whole", *EVERYTHING)
    assert whole.ended() == 0, whole.errors
    assert whole.printed.splitlines()[-1] == f"{place.folder}/store/tiny/1: headline serve --model tiny"

    for kill in range(4):
        with running(place.start("broken", *EVERYTHING)) as command:
            if kill == 0:  # while it reads or tokenises
                command.until(lambda: (place.folder / "broken" / "pairs").exists())
            else:  # after a checkpoint that was not there before, or in the middle of the next one
                before = set(place.complete("broken"))
                command.until(lambda before=before: bool(set(place.complete("broken")) - before))
            command.send(signal.SIGKILL)
            assert command.ended() == -signal.SIGKILL
    assert len(place.published) == 1
    (place.folder / "broken" / "checkpoint-9999").mkdir()  # half written: it has no mark
    last = place.start("broken", *EVERYTHING)
    assert last.ended() == 0, last.errors

    assert place.weights(1) == place.weights(2)
    assert place.lines("broken") == place.lines("whole")
    steps = [line["step"] for line in place.lines("whole")]
    assert steps == sorted(set(steps))
    assert not (place.folder / "broken" / "checkpoint-9999").exists()


def test_killed_while_reading_it_reads_again(place: Place) -> None:
    big = place.write(place.folder / "big.jsonl", 60_000)
    with running(place.start("run", pairs=(big, place.pairs))) as command:
        command.until(lambda: any((place.folder / "run" / "reading").rglob("*")))
        command.send(signal.SIGKILL)
        assert command.ended() == -signal.SIGKILL
    assert not (place.folder / "run" / "pairs").exists()
    other = place.start("run")
    assert "other options" in other.failed()
    place.write(big, 3)
    again = place.start("run", pairs=(big, place.pairs))
    assert again.ended() == 0, again.errors
    assert "43 pairs read" in again.printed
    assert not list((place.folder / "run").glob("reading*"))


# Interrupted


def test_an_interrupt_says_how_it_goes_on(place: Place) -> None:
    big = place.write(place.folder / "big.jsonl", 60_000)
    with running(place.start("long", pairs=(big,))) as command:  # while it reads
        command.until(lambda: any((place.folder / "long" / "reading").rglob("*")))
        command.send(signal.SIGINT)
        assert command.failed(130) == "headline: interrupted; the same command goes on from the start"
    with running(place.start("run", "--save-every", "3")) as command:  # while it trains
        command.until(lambda: bool(place.complete("run")))
        command.send(signal.SIGINT)
        line = command.failed(130)
    [*_, last] = sorted(place.complete("run"), key=lambda name: int(name.rpartition("-")[2]))
    assert line == f"headline: interrupted; the same command goes on from {place.folder}/run/{last}"
    assert not place.published
    with running(place.start("run", "--save-every", "3")) as command:  # while it is scored
        command.until((place.folder / "run" / "model").exists)
        command.send(signal.SIGINT)
        line = command.failed(130)
    assert line == "headline: interrupted; the training is done, the same command goes on with scoring"
    steps = place.lines("run")
    command = place.start("run", "--save-every", "3")
    assert command.ended() == 0, command.errors
    assert [path.name for path in place.published] == ["1"]
    assert place.lines("run") == steps


# A full disk


@pytest.mark.parametrize("most", [100_000, 300_000])  # not even the weights; the weights, but not the optimizer
def test_a_full_disk_leaves_the_last_checkpoint_from_which_it_goes_on(most: int, place: Place) -> None:
    with running(place.start("run")) as command:
        command.until(lambda: bool(place.complete("run")))
        command.send(signal.SIGKILL)
        command.ended()
    before = place.complete("run")
    line = place.start("run", most_bytes=most).failed()
    assert "cannot write" in line
    assert f"{before[-1]} is kept, the same command goes on from there" in line
    assert place.complete("run") == before
    assert not place.published
    after, whole = place.start("run"), place.start("whole", name="whole")
    assert (after.ended(), whole.ended()) == (0, 0)
    assert place.weights(1) == place.weights(1, "whole")


@pytest.mark.parametrize("most", [300, 3000])
def test_a_disk_too_small_for_the_pairs_is_one_line(most: int, place: Place) -> None:
    assert "cannot train in" in place.start("run", most_bytes=most).failed()
    assert not place.published


# Two processes


def test_two_processes_train_as_one_with_twice_the_batch(place: Place) -> None:
    more = ("--weight", "wire=1", "--held-out", "0", "--schedule", "constant", "--dropout", "0")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    both = subprocess.run(
        [*launcher, "-m", "app", "train", *place.arguments("both", *more)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=900,  # on a busy machine
    )
    assert both.returncode == 0, both.stderr
    assert "Traceback" not in both.stderr
    assert [path.name for path in place.published] == ["1"]
    assert both.stdout.count("step 2 of 5") == 1
    assert both.stdout.count("headline serve --model tiny") == 1
    line = place.start("both", *more).failed()
    assert "goes on with as many processes as began it, 2, not 1; or give another --run folder" in line
    one = place.start("one", *more, "--batch", "8", name="one")
    assert one.ended() == 0, one.errors
    start = load_file(place.base / "model.safetensors")
    ours, theirs = (
        torch.cat([(found[name] - start[name]).flatten() for name in sorted(start)])
        for found in (load_file(place.folder / "store" / name / "1" / "model.safetensors") for name in ("tiny", "one"))
    )
    # Adam makes a step of any gradient, also of one that is but rounding; what counts is where all of them went.
    assert (ours - theirs).norm() < 0.05 * ours.norm()
    told = [[(line["step"], line["examples"]) for line in place.lines(run)] for run in ("both", "one")]
    assert told[0] == told[1] == [(2, 16), (4, 32), (5, 40)]
    losses = [[line["loss"] for line in place.lines(run)] for run in ("both", "one")]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


# One line, and nothing half made


def poisoned(place: Place) -> None:
    model = build("t5")
    model.shared.weight.data[5:] = float("nan")
    model.save_pretrained(place.base)


WRONG: list[tuple[Callable[[Place], object], tuple[str, ...], str]] = [
    (lambda place: place.pairs.write_text(""), (), "no pairs in"),
    (lambda place: place.pairs.unlink(), (), "wire.jsonl: no such file"),
    (lambda place: None, ("--headline-column", "name"), "no column 'name'; there is article, headline"),
    (lambda place: place.pairs.write_bytes("é".encode("latin-1")), (), "not UTF-8"),
    (lambda place: None, ("--weight", "wire"), "a weight is SOURCE=FACTOR, such as wikinews=2, not 'wire'"),
    (lambda place: None, ("--weight", "wire=-1"), "a weight is SOURCE=FACTOR"),
    (
        lambda place: None,
        ("--weight", "w*=1", "--weight", "wier*=2"),
        "no source fits the weight 'wier*'; there is wire",
    ),
    (lambda place: None, ("--rate", "7"), "rate"),
    (lambda place: None, ("--batch", "many"), "batch"),
    (lambda place: None, ("--base", "no/such/base/at/all"), "no/such/base/at/all"),
    (lambda place: None, ("--warm-start", "x"), "either --base or --warm-start"),
    (lambda place: None, ("--notes", "no.md"), "cannot read no.md"),
    (lambda place: None, ("--device", "tpu"), "device 'tpu'"),
    (poisoned, (), "the loss is not a number any more"),
]


@pytest.mark.parametrize(("spoil", "more", "words"), WRONG)
def test_what_is_wrong_is_one_line(
    spoil: Callable[[Place], object], more: tuple[str, ...], words: str, place: Place
) -> None:
    spoil(place)
    assert words in place.start("run", *more).failed()
    assert not list((place.folder / "store").rglob("*"))


def test_an_option_that_is_none_is_a_wrong_use(place: Place) -> None:
    assert "--epoch" in place.start("run", "--epochz", "2").failed(2)


def test_a_name_or_folder_in_use_is_refused(place: Place) -> None:
    home = Store(place.folder / "store").make_home("tiny")
    with only_one(home, ""):
        assert "tiny is being trained already: another training holds" in place.start("run").failed()
    (place.folder / "run").mkdir()
    with only_one(place.folder / "run", ""):
        assert "another training runs in" in place.start("run", name="other").failed()


def test_an_interrupt_while_an_object_is_taken_down_is_not_lost() -> None:
    program = """
import time
from app.cli import _keep_interrupts
class Falling:
    def __del__(self):
        raise KeyboardInterrupt
_keep_interrupts()
Falling()
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("here")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert ended.stdout == "here\n"
