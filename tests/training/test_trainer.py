"""What the trainer does to weights: an adversary's gradient, moving averages, shares of the rate, whole checkpoints."""

import json
import math
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import ByT5Tokenizer, PreTrainedModel, TrainerCallback

from app.training import trainer as trainer_module
from app.training.base import _set_dropout
from app.training.errors import TrainingError
from app.training.progress import Lines, Shown
from app.training.recipe import Recipe
from app.training.trainer import COMPLETE, IGNORED, Attack, Average, HeadlineTrainer, last_checkpoint
from tests.engine.models import FAMILIES, build, of

Example = dict[str, list[int]]
STEPS = 6


def an_example(number: int, *, length: int = 12) -> Example:
    tokens = [3 + (number * 7 + place * 5) % 250 for place in range(length + number % 3)]
    return {"input_ids": [*tokens, 1], "attention_mask": [1] * (len(tokens) + 1), "labels": [*tokens[2:7], 1]}


class Given(torch.utils.data.Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, place: int) -> Example:
        return self._examples[place]


class Weights(TrainerCallback):  # type: ignore[misc]
    """The weights after every step."""

    def __init__(self) -> None:
        self.after: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **others: Any) -> None:
        self.after.append(copied(model))


def copied(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def trainer(
    folder: Path, *, family: str = "t5", examples: Sequence[Example] = (), callbacks: Sequence[Any] = (), **options: Any
) -> HeadlineTrainer:
    given = examples or [an_example(number) for number in range(2 * STEPS)]
    recipe = Recipe(**{"batch": 2, "warmup": 0, "rate": 1e-3, "schedule": "constant", "dropout": 0, **options})
    config = FAMILIES[family]()
    _set_dropout(config, recipe.dropout or 0)
    return HeadlineTrainer(
        of(config),
        ByT5Tokenizer(),
        Given(given),
        recipe,
        folder,
        device="cpu",
        bfloat16=False,
        callbacks=[Lines(folder / "metrics.jsonl"), *callbacks],
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# The loss


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_the_loss_is_the_mean_of_the_headlines_tokens(smoothing: float, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 384, generator=random)
    labels = torch.tensor([[5, 6, 7, 8, 1], [9, 1, IGNORED, IGNORED, IGNORED]])
    loss = trainer(tmp_path, label_smoothing=smoothing)._loss({"logits": logits}, labels)
    ours = labels != IGNORED
    torch.testing.assert_close(loss, cross_entropy(logits[ours], labels[ours], label_smoothing=smoothing))


def test_the_loss_of_a_step_is_the_mean_over_all_its_batches(tmp_path: Path) -> None:
    one = trainer(tmp_path / "one", batch=4, log_every=1)
    many = trainer(tmp_path / "many", batch=1, accumulate=4, log_every=1)
    for each in (one, many):
        each.fit()
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in ("one", "many")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(copied(one.model), copied(many.model), atol=2e-5, rtol=1e-3)


# The adversary


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_adversary_adds_the_gradient_at_moved_embeddings(family: str, tmp_path: Path) -> None:
    length = 0.5
    attacked = trainer(tmp_path / "attacked", family=family, adversarial=length)
    plain = trainer(tmp_path / "plain", family=family)
    batch = attacked.data_collator([an_example(0), an_example(1)])
    before = copied(attacked.model)
    attacked.training_step(attacked.model, dict(batch))
    torch.testing.assert_close(copied(attacked.model), before, rtol=0, atol=0)

    model = plain.model
    embed = model.get_encoder().get_input_embeddings()
    seen: list[Tensor] = []
    moved: list[Tensor] = []
    firsts = {"left": 1}

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if not firsts["left"]:
            return None
        firsts["left"] = 0
        output.retain_grad()
        seen.append(output)
        return output + moved[0] if moved else None

    handle = embed.register_forward_hook(hook)
    plain.training_step(model, dict(batch))
    gradient = seen[0].grad
    assert gradient is not None
    moved.append(torch.stack([length * one / one.norm() for one in gradient]))
    firsts["left"] = 1
    plain.training_step(model, dict(batch))
    handle.remove()
    expected = gradients(model)
    assert expected.keys() == gradients(attacked.model).keys()
    torch.testing.assert_close(gradients(attacked.model), expected)


def test_the_adversary_changes_what_is_learnt_and_leaves_no_trace(tmp_path: Path) -> None:
    after = {length: trainer(tmp_path / str(length), adversarial=length).fit() for length in (0.0, 0.5)}
    assert not torch.equal(after[0.0].shared.weight, after[0.5].shared.weight)
    model = build("t5").train(False)
    attack = Attack(model, 0.5)
    tokens = torch.tensor([[5, 6, 7, 1]])
    asked = {"input_ids": tokens, "decoder_input_ids": tokens}
    with attack.observed():
        model(**asked).logits.sum().backward()
    with torch.no_grad():
        plain = model(**asked).logits
        with attack.made():
            assert not torch.equal(model(**asked).logits, plain)
        assert torch.equal(model(**asked).logits, plain)


def test_only_the_first_look_up_is_moved_by_the_length_given() -> None:
    model = build("t5").train(False)
    embed, tokens = model.get_encoder().get_input_embeddings(), torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]])
    attack = Attack(model, 0.25)
    with attack.observed():
        (embed(tokens) ** 2).sum().backward()
    with torch.no_grad(), attack.made():
        first, second = embed(tokens), embed(tokens)
    assert torch.equal(second, embed(tokens))
    assert (first - second).flatten(1).norm(dim=1).tolist() == pytest.approx([0.25, 0.25], rel=1e-4)


# Averages and rates


def test_the_average_is_that_of_the_formula(tmp_path: Path) -> None:
    seen = Weights()
    averaged = trainer(tmp_path, average=0.8, callbacks=[seen]).fit()
    expected = seen.after[0]
    for after in seen.after[1:]:
        expected = {name: 0.8 * expected[name] + 0.2 * after[name] for name in after}
    torch.testing.assert_close(copied(averaged), expected)
    assert not torch.allclose(expected["shared.weight"], seen.after[-1]["shared.weight"])


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_without_a_rate_stays_as_it_is(family: str, tmp_path: Path) -> None:
    model = trainer(tmp_path, family=family, encoder_rate=0).fit()
    before = copied(build(family))
    inputs = model.get_input_embeddings().weight
    encoder = {id(weight) for weight in model.get_encoder().parameters()} - {id(inputs)}
    moved = {name: not torch.equal(before[name], weight) for name, weight in model.named_parameters()}
    names = {name: id(weight) in encoder for name, weight in model.named_parameters()}
    assert any(names.values())
    assert not [name for name, own in names.items() if own and moved[name]]
    assert [name for name, own in names.items() if not own and moved[name]]


def test_the_encoder_has_its_share_of_the_rate_and_norms_do_not_decay(tmp_path: Path) -> None:
    groups = trainer(tmp_path, family="bart", encoder_rate=0.25, weight_decay=0.1).create_optimizer().param_groups
    rates = {(group["lr"], group["weight_decay"]) for group in groups}
    assert rates == {(1e-3, 0.1), (1e-3, 0.0), (2.5e-4, 0.1), (2.5e-4, 0.0)}
    assert sum(len(group["params"]) for group in groups) == len(list(build("bart").parameters()))
    undecayed = [weight for group in groups if not group["weight_decay"] for weight in group["params"]]
    assert all(weight.ndim == 1 for weight in undecayed)


def test_the_rate_rises_over_a_tenth_of_the_steps_at_most(tmp_path: Path) -> None:
    examples = [an_example(number) for number in range(20)]
    rates = {}
    for warmup in (1, 500):
        trainer(tmp_path / str(warmup), examples=examples, batch=1, warmup=warmup, log_every=1).fit()
        rates[warmup] = [line["rate"] for line in lines(tmp_path / str(warmup))]
    assert rates[1][1:] == [1e-3] * 19
    assert rates[500] == pytest.approx([0, 5e-4] + [1e-3] * 18) or rates[500] == pytest.approx([5e-4] + [1e-3] * 19)


@pytest.mark.parametrize(
    ("schedule", "left"),
    [
        ("constant", lambda done: 1),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
    ],
)
def test_the_rate_falls_as_the_schedule_says(schedule: str, left: Any, tmp_path: Path) -> None:
    trainer(tmp_path, schedule=schedule, log_every=1).fit()
    rates = [1e-3 * left(step / STEPS) for step in range(STEPS + 1)]
    told = [line["rate"] for line in lines(tmp_path)]
    assert told in (pytest.approx(rates[1:]), pytest.approx(rates[:-1]))  # that of the next step, or of this one


def test_gradients_are_cut_to_length_one(tmp_path: Path) -> None:
    class Lengths(TrainerCallback):  # type: ignore[misc]
        """Of the gradients that are stepped along."""

        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **others: Any) -> None:
            self.seen.append(float(torch.cat([gradient.flatten() for gradient in gradients(model).values()]).norm()))

    lengths = Lengths()
    trainer(tmp_path, log_every=1, callbacks=[lengths]).fit()
    before = [line["gradient"] for line in lines(tmp_path)]
    assert max(before) > 1
    assert lengths.seen == pytest.approx([min(1, length) for length in before], rel=1e-3)


def test_the_seed_decides_what_is_left_out(tmp_path: Path) -> None:
    seeds = enumerate((1, 1, 2))
    one, same, other = (trainer(tmp_path / str(run), dropout=0.3, seed=seed).fit() for run, seed in seeds)
    torch.testing.assert_close(copied(one), copied(same), rtol=0, atol=0)
    assert not torch.equal(one.shared.weight, other.shared.weight)


# Checkpoints


def test_a_loss_that_is_no_number_ends_it_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    examples = [an_example(number) for number in range(2 * STEPS)]
    for place in (6, 7):  # of the fourth step
        examples[place] = {**examples[place], "labels": [IGNORED]}  # a mean over nothing
    poisoned = trainer(tmp_path, examples=examples, save_every=2, log_every=1)
    with pytest.raises(TrainingError, match=rf"not a number .*lower rate; {tmp_path}/checkpoint-2 is kept, the same"):
        poisoned.fit()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in lines(tmp_path))


def test_between_log_lines_no_bad_checkpoint_is_written_either(tmp_path: Path) -> None:
    examples = [an_example(number) for number in range(2 * STEPS)]
    examples[-1] = examples[-2] = {**examples[0], "labels": [IGNORED]}
    with pytest.raises(TrainingError, match="not a number"):
        trainer(tmp_path, examples=examples, save_every=100, log_every=100).fit()
    assert last_checkpoint(tmp_path) is None


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    wild = trainer(tmp_path, save_every=1, log_every=100)
    wild.args.learning_rate = float("inf")
    with pytest.raises(TrainingError, match="not a number"):
        wild.fit()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_it_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stopper(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == 5:
                raise Stop

    options: dict[str, Any] = {"average": 0.8, "dropout": 0.3, "save_every": 2, "log_every": 3, "schedule": "cosine"}
    whole = trainer(tmp_path / "whole", **options).fit()
    with pytest.raises(Stop):
        trainer(tmp_path / "broken", callbacks=[Stopper()], **options).fit()
    (tmp_path / "broken" / "checkpoint-5").mkdir()  # half written
    mended = trainer(tmp_path / "broken", **options).fit()
    torch.testing.assert_close(copied(mended), copied(whole), rtol=0, atol=0)
    both = [lines(tmp_path / name) for name in ("whole", "broken")]
    assert [line["step"] for line in both[0]] == [2, 3, 4, 6]
    for line in [*both[0], *both[1]]:
        del line["examples_per_second"]
    assert both[0] == both[1]


def test_the_last_checkpoint_is_the_newest_complete_one_and_others_go(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-final").mkdir()
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-9", "checkpoint-10", "checkpoint-final"}
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_is_complete_when_all_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    for last in ((trainer_module, "sync"), (Average, "save")):
        monkeypatch.setattr(*last, killed)
        with pytest.raises(Killed):
            trainer(tmp_path, average=0.8, save_every=2).fit()
        assert (tmp_path / "checkpoint-2" / "model.safetensors").exists()
        assert last_checkpoint(tmp_path) is None


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, save_every=1).fit()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"}
    assert all((path / COMPLETE).exists() for path in tmp_path.glob("checkpoint-*"))


# What is shown


def test_lines_say_how_it_goes(tmp_path: Path) -> None:
    trainer(tmp_path, log_every=2, batch=1, accumulate=2, encoder_rate=0.5).fit()
    told = lines(tmp_path)
    assert [(line["step"], line["examples"]) for line in told] == [(2, 4), (4, 8), (6, 12)]
    assert set(told[0]) == {"step", "examples", "loss", "rate", "gradient", "examples_per_second"}
    assert all(line["examples_per_second"] > 0 and line["gradient"] > 0 for line in told)


def test_a_line_cut_short_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 9}\n{"step": 2, "loss": 9}\n{"step": 1, "lo')
    trainer(tmp_path, log_every=6).fit()
    assert [line["step"] for line in lines(tmp_path)] == [0, 6]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_sees_loss_and_examples(terminal: bool, tmp_path: Path) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    shown = Shown(console, 2 * STEPS)
    trainer(tmp_path, log_every=3, callbacks=[shown]).fit()
    shown.stop()
    loss = f"loss {lines(tmp_path)[-1]['loss']:.3f}"
    assert f"{2 * STEPS}/{2 * STEPS}" in screen.getvalue() if terminal else f"step 6 of 6: {loss}" in screen.getvalue()
    assert loss in screen.getvalue()
