"""transformers' Seq2SeqTrainer with what it lacks for us: complete checkpoints, a stop at NaN, FGM, moving averages."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from app.store.files import sync
from app.training.errors import TrainingError
from app.training.recipe import Recipe

COMPLETE = "complete"  # stands in a checkpoint that was written to its end
AVERAGE = "average"  # the folder of the averaged weights in a checkpoint
IGNORED = -100  # the label of padding
KEPT = 2  # checkpoints


class HeadlineTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains a model by a recipe, its examples in the order they have; checkpoints go to `folder`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Dataset[Any],
        recipe: Recipe,
        folder: Path,
        *,
        device: str,
        bfloat16: bool,
        callbacks: list[TrainerCallback],
        tensorboard: bool = False,
    ) -> None:
        self._recipe, self._folder = recipe, folder
        self._finite = torch.tensor(True)
        self._average = Average(model, recipe.average) if recipe.average else None
        self._attack = Attack(model, recipe.adversarial) if recipe.adversarial else None
        super().__init__(
            model=model,
            args=_arguments(recipe, folder, device=device, bfloat16=bfloat16, tensorboard=tensorboard),
            train_dataset=examples,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=IGNORED),
            processing_class=tokenizer,
            compute_loss_func=self._loss,
            callbacks=callbacks + ([self._average] if self._average else []),
        )
        self.remove_callback(PrinterCallback)

    def fit(self) -> PreTrainedModel:
        """Train from the last complete checkpoint, or from the start, to the end; the model to publish.

        Raises TrainingError, with the last complete checkpoint left, when the loss is no number or the disk is full.
        """
        last = last_checkpoint(self._folder)
        if self._average and last:
            self._average.restore(last)
        self.train(resume_from_checkpoint=str(last) if last else None)
        return self._average.model if self._average else self.accelerator.unwrap_model(self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; the encoder's own weights at their share of the rate, norms and biases without decay."""
        if self.optimizer is None:  # type: ignore[has-type]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = kind(self._groups(), **options)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        self.args.warmup_steps = min(self._recipe.warmup, num_training_steps // 10)
        return super().create_scheduler(num_training_steps, optimizer)

    def _groups(self) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(self.model))
        inputs = self.model.get_input_embeddings().weight
        encoder = {id(weight) for weight in self.model.get_encoder().parameters()} - {id(inputs)}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                groups.setdefault((id(weight) in encoder, name in decayed), []).append(weight)
        return [
            {
                "params": weights,
                "lr": self.args.learning_rate * (self._recipe.encoder_rate if in_encoder else 1),
                "weight_decay": self.args.weight_decay if decay else 0.0,
            }
            for (in_encoder, decay), weights in groups.items()
        ]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        loss: Tensor
        if self._attack is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            with self._attack.observed():
                loss = super().training_step(model, inputs, num_items_in_batch)
            with self._attack.made():
                super().training_step(model, inputs, num_items_in_batch)
        self._finite = self._finite.to(loss.device) & torch.isfinite(loss)
        return loss

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Mean negative log-likelihood (nats) of a token of the headlines, its target smoothed."""
        logits = outputs["logits"].flatten(0, 1).float()
        smoothing = self._recipe.label_smoothing
        total = cross_entropy(
            logits, labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )
        return total / (num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum())

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        self._check()
        super().log(logs, *args, **options)

    def _check(self) -> None:
        if not self._finite:
            raise TrainingError(
                f"the loss is not a number any more (up to step {self.state.global_step}): "
                f"try a lower rate{what_is_kept(self._folder)}"
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint, marked as complete last of all. A half-written one does not stay."""
        self._check()
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            self._finite = torch.tensor(False)
            self._check()
        folder = self._folder / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes the state of its own dice
            if self.args.should_save:
                if self._average:
                    self._average.save(folder)
                for file in folder.iterdir():
                    sync(file)
                (folder / COMPLETE).touch()
                sync(folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch wraps the system's errors in RuntimeError
            shutil.rmtree(folder, ignore_errors=True)
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise TrainingError(f"cannot write {folder}: {reason}{what_is_kept(self._folder)}") from error


def _arguments(
    recipe: Recipe, folder: Path, *, device: str, bfloat16: bool, tensorboard: bool
) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the plan has all epochs
        train_sampling_strategy="sequential",
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.rate,
        lr_scheduler_type="constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=1.0,
        bf16=bfloat16,
        use_cpu=device == "cpu",
        seed=recipe.seed,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=KEPT,
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        disable_tqdm=True,  # the callbacks show the progress
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        report_to=["tensorboard"] if tensorboard else [],
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; those that were not are removed."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    complete = (path for path in found if (path / COMPLETE).exists())
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def what_is_kept(folder: Path) -> str:
    """The end of a line that says why a training cannot go on."""
    last = last_checkpoint(folder)
    return f"; {last} is kept, the same command goes on from there" if last else ""


class Attack:
    """FGM: the embeddings of the article moved up the gradient of the loss (Miyato et al. 2017, equation 4).

    Each article's step has the length given. The encoder looks its embeddings up first in every forward pass, so only
    the first look-up of a pass is moved.
    """

    def __init__(self, model: PreTrainedModel, length: float) -> None:
        self._length = length
        self._observes = self._first = False
        self._seen: Tensor | None = None
        self._step: Tensor | None = None
        model.get_encoder().get_input_embeddings().register_forward_hook(self._hook)

    @contextmanager
    def observed(self) -> Iterator[None]:
        """The next pass forward and back shows where the loss rises."""
        self._observes = self._first = True
        yield
        self._observes = False
        assert self._seen is not None
        assert self._seen.grad is not None
        norm = self._seen.grad.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        self._step = self._length * self._seen.grad / norm[:, None, None]
        self._seen = None

    @contextmanager
    def made(self) -> Iterator[None]:
        """The next pass sees the moved embeddings."""
        self._first = True
        yield
        self._step = None

    def _hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not self._first:
            return None
        self._first = False
        if self._observes:
            output.retain_grad()
            self._seen = output
            return None
        return None if self._step is None else output + self._step


class Average(TrainerCallback):  # type: ignore[misc]
    """The exponential moving average of the weights, kept beside them and in the checkpoints."""

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    @property
    def model(self) -> PreTrainedModel:
        return self._averaged.module

    def save(self, checkpoint: Path) -> None:
        self.model.save_pretrained(checkpoint / AVERAGE)

    def restore(self, checkpoint: Path) -> None:
        saved = type(self.model).from_pretrained(checkpoint / AVERAGE, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())
        self._averaged.n_averaged.fill_(1)  # not the first update, which would take the weights as they are

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._averaged.to(args.device)

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **others: Any) -> None:
        self._averaged.update_parameters(getattr(model, "module", model))
