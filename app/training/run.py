"""The folder of one training: what was ordered, who works in it, what is done. Knows files, but no model."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.training.errors import TrainingError
from app.training.pairs import Columns
from app.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Order:
    """What somebody wants trained: the same order in the same folder goes on where it was stopped."""

    sources: tuple[str, ...]
    base: str  # of the store, a folder or a hub id: an encoder-decoder model, or the encoder of a warm start
    recipe: Recipe
    warm_start: bool = False
    columns: Columns = field(default_factory=Columns)
    split: str = "train"
    max_bad_share: float = 0.02
    held_out: float = 0.01  # the share of the pairs that is not learnt from, to be scored on
    processes: int = 1  # that train together: each batch of the plan is for all of them

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "recipe": self.recipe.model_dump()}, indent=1, sort_keys=True)


@dataclass(frozen=True)
class Run:
    """The places in the folder of a training."""

    folder: Path

    @property
    def pairs(self) -> Path:
        """All good pairs, as they were read."""
        return self.folder / "pairs"

    @property
    def measured(self) -> Path:
        """The pairs with their lengths in tokens."""
        return self.folder / "measured"

    @property
    def start(self) -> Path:
        """The model of a warm start."""
        return self.folder / "start"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The trained model, there when training is over."""
        return self.folder / "model"

    @contextmanager
    def working(self, order: Order) -> Iterator[None]:
        """Nobody else trains here meanwhile, and what is here is of the same order; raises TrainingError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot train in {self.folder}: {error.strerror}") from error
        with only_one(self.folder, "another training runs in"):
            self._keep(order)
            yield

    def _keep(self, order: Order) -> None:
        file = self.folder / "order.json"
        try:
            if not file.exists():
                aside = file.with_suffix(".incoming")
                aside.write_text(order.to_json(), encoding="utf-8")
                aside.rename(file)
            kept = _read(file)
        except OSError as error:
            raise TrainingError(f"cannot train in {self.folder}: {error.strerror}") from error
        if kept | {"processes": order.processes} != json.loads(order.to_json()):
            raise TrainingError(
                f"{self.folder} holds a training with other options: give another --run folder, or remove it"
            )
        if kept["processes"] != order.processes:
            raise TrainingError(
                f"the training in {self.folder} goes on with as many processes as began it, {kept['processes']}, "
                f"not {order.processes}; or give another --run folder"
            )


def _read(file: Path) -> dict[str, Any]:
    """The order in a file; one that does not tell its processes is of a time when nobody asked."""
    try:
        return {"processes": 1, **json.loads(file.read_text(encoding="utf-8"))}
    except (ValueError, TypeError):  # nobody's order
        return {}


@contextmanager
def only_one(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold the folder alone, as long as this process lives at most; raises TrainingError where somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TrainingError(f"{otherwise} {folder}") from error
    finally:
        os.close(descriptor)
