"""Shows how a training goes: a bar for a person, JSON lines for programs."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback


class Shown(TrainerCallback):  # type: ignore[misc]
    """A bar with the loss, examples a second and the time left; where there is no terminal, a line now and then."""

    def __init__(self, console: Console, examples: int) -> None:
        self._console, self._examples = console, examples
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        done = min(self._examples, state.global_step * _batch(args))
        self._task = self._bar.add_task("", total=self._examples, completed=done, news="")
        self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._bar.update(self._task, completed=min(self._examples, state.global_step * _batch(args)))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **others: Any) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return
        news = f"loss {logs['loss']:.3f}"
        self._bar.update(self._task, news=news)
        if not self._console.is_terminal:
            self._console.print(f"step {state.global_step} of {state.max_steps}: {news}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.stop()

    def stop(self) -> None:
        self._bar.stop()


class Lines(TrainerCallback):  # type: ignore[misc]
    """One JSON object a line: step, examples, loss (nats a token), rate, gradient's length, examples a second."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            self._keep_until(state.global_step)
        self._step, self._since = state.global_step, perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        control.should_log |= control.should_save  # the means of a line start anew where a training may go on

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **others: Any) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return
        now = perf_counter()
        line = {
            "step": state.global_step,
            "examples": state.global_step * _batch(args),
            "loss": logs["loss"],
            "rate": logs["learning_rate"],
            "gradient": logs.get("grad_norm"),
            "examples_per_second": round((state.global_step - self._step) * _batch(args) / (now - self._since), 2),
        }
        self._step, self._since = state.global_step, now
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _keep_until(self, step: int) -> None:
        """Lines of steps after the checkpoint that this training goes on from will come once more."""
        if self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            aside = self._file.with_suffix(".incoming")
            aside.write_text("".join(line for line in lines if _step_of(line) <= step), encoding="utf-8")
            aside.replace(self._file)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # cut short when the training was killed
        return float("inf")


def _batch(args: Any) -> int:
    """Examples a step, over all processes."""
    return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)
