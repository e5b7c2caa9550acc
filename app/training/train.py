"""The way of a model: pairs are read, a base is made ready and learns from them, the result is scored and published."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from rich.console import Console
from safetensors import SafetensorError
from transformers import AutoConfig, GenerationConfig

from app.engine.decoding import Decoding, DecodingError
from app.engine.linears import multiplies_bfloat16
from app.engine.load import load
from app.engine.memory import keep
from app.headlines.support import support_ends
from app.store.files import CARD, appearing, gone_if_empty
from app.store.manifest import Manifest
from app.store.store import Store
from app.training import card
from app.training.base import Base, load_base, mix, prefix_of, save_model
from app.training.errors import TrainingError
from app.training.evaluate import Evaluation, Pair, choose, evaluate
from app.training.examples import CHARS_PER_TOKEN, Tokenised
from app.training.pairs import Pairs, read_pairs
from app.training.plan import Measured, check_weights, make_plan
from app.training.progress import Lines, Shown
from app.training.recipe import Recipe
from app.training.report import print_bad_rows, watched
from app.training.run import Order, Run, only_one
from app.training.trainer import HeadlineTrainer, last_checkpoint
from app.training.warm_start import read_encoder, warm_start

MOST_SCORED = 400  # pairs of each source
PATIENCE = timedelta(days=1)  # of the other processes, while the first one makes everything ready


@dataclass(frozen=True, kw_only=True)
class Publication:
    """How the trained model is published."""

    name: str
    language: str
    licence: str
    notes: str = ""  # the end of the model card: what only a person can say
    command: str = ""  # that trained it
    decoding: Mapping[str, Any] = field(default_factory=dict)  # overrides of the base's


def train(
    order: Order,
    publication: Publication,
    *,
    store: Store,
    run: Run,
    console: Console,
    evaluation: Sequence[str] = (),
    without: Sequence[str] = (),
    device: str = "auto",
    tensorboard: bool = False,
) -> Path | None:
    """Train what is ordered, in the folder of `run`, where it goes on if it was stopped; the published version.

    It is scored on the files `evaluation`, but for the sources `without`, or else on the pairs that were held out. In a
    training of many processes the first one publishes; the others get None. Raises TrainingError, StoreError and
    LoadError.
    """
    _check_decoding(publication.decoding)
    process = PartialState(cpu=_device(device) == "cpu", timeout=PATIENCE)
    order = replace(order, processes=process.num_processes)
    if not process.is_main_process:
        process.wait_for_everyone()  # until the first one has made everything ready
        if not run.model.exists():
            _fit(order, run, store, console, device, tensorboard)
        return None
    home = store.make_home(publication.name)
    with (
        only_one(home, f"{publication.name} is being trained already: another training holds"),
        gone_if_empty(home),
        run.working(order),
        _in_one_line(run),
    ):
        given = _read_evaluation(order, run, evaluation, without) if evaluation else None
        _make_ready(order, run, store, console)
        process.wait_for_everyone()
        if not run.model.exists():
            _fit(order, run, store, console, device, tensorboard)
        counts = _counts(run)
        draft = _draft(order, run, publication, counts)
        scored = _score(_held_out(order, run) if given is None else given, run, draft, device)
        text = card.write(draft, order, publication.command, counts, scored, publication.notes)
        return _publish(run, draft, text, scored, store)


def _check_decoding(options: Mapping[str, Any]) -> None:
    """What no model's search can carry out must not be found when training is over."""
    try:
        Decoding.of(GenerationConfig(decoder_start_token_id=0, eos_token_id=1), options)
    except (DecodingError, TypeError, ValueError) as error:
        raise TrainingError(f"decoding: {error}") from error


def goes_on(run: Run) -> str:
    """What a training that was stopped does when the same command is given again."""
    if run.model.exists():
        return "the training is done, the same command goes on with scoring"
    return f"the same command goes on from {last_checkpoint(run.folder) or 'the start'}"


@contextmanager
def _in_one_line(run: Run) -> Iterator[None]:
    """What the disk refuses is a TrainingError that says what is kept."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"cannot train in {run.folder}: {reason}; {goes_on(run)}") from error


def _read_evaluation(order: Order, run: Run, files: Sequence[str], without: Sequence[str]) -> list[Pair]:
    """The pairs to score on, read first of all: what is wrong with them must not be found when training is over."""
    cache = run.folder / "evaluation"
    shutil.rmtree(cache, ignore_errors=True)
    read = read_pairs(files, columns=order.columns, cache=cache, max_bad_share=order.max_bad_share, split="test")
    return choose(read.dataset, most=MOST_SCORED, seed=order.recipe.seed, without=without)


def _make_ready(order: Order, run: Run, store: Store, console: Console) -> None:
    """The pairs, the base and the pairs' lengths, each made once; a base that will not do is found out first."""
    if not console.is_terminal:
        datasets.disable_progress_bars()
    to_be_made = order.warm_start and not run.start.exists()
    if to_be_made:
        read_encoder(store.resolve(order.base))
    base = None if to_be_made else _base(order, run, store)
    if not run.pairs.exists():
        with _scratch(run.folder / "reading") as cache, appearing(run.pairs) as folder:
            _read(order, cache, console).dataset.save_to_disk(folder)
    check_weights(order.recipe.weights, _load(run.pairs).unique("source"))
    if to_be_made:
        warm_start(store.resolve(order.base), _texts(_load(run.pairs)), run.start)
    if not run.measured.exists():
        measure = partial(_measure, base=base or _base(order, run, store), recipe=order.recipe)
        with _scratch(run.folder / "tokenising") as cache, appearing(run.measured) as folder:
            measured = _load(run.pairs).map(
                measure,
                batched=True,
                batch_size=500,
                cache_file_name=str(cache / "measured.arrow"),
                new_fingerprint="measured",
                desc="tokenising",
            )
            measured.save_to_disk(folder)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder, whatever a training that was killed has left there, which goes in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(order: Order, cache: Path, console: Console) -> Pairs:
    pairs = read_pairs(
        order.sources, columns=order.columns, cache=cache, max_bad_share=order.max_bad_share, split=order.split
    )
    console.print(f"{len(pairs)} pairs read", highlight=False)
    print_bad_rows(pairs)
    return pairs


def _load(folder: Path) -> Dataset:
    """What was saved there, mapped; not by `load_from_disk`, whose file system swallows an interrupt."""
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])


def _texts(pairs: Dataset) -> Iterator[str]:
    """What the vocabulary of a warm start is learnt from."""
    for batch in pairs.iter(batch_size=1000):
        yield from batch["article"]
        yield from batch["headline"]


def _base(order: Order, run: Run, store: Store) -> Base:
    return load_base(run.start if order.warm_start else store.resolve(order.base), order.recipe)


def _measure(batch: dict[str, list[str]], *, base: Base, recipe: Recipe) -> dict[str, list[int]]:
    """Of each pair the tokens of its article, and how many of them must be seen for all that its headline names.

    Both with the task prefix and the marks of the tokenizer. -1: the article lacks a name or number of the headline.
    """
    articles, headlines = batch["article"], batch["headline"]
    lengths = _lengths((article[: recipe.max_source_tokens * CHARS_PER_TOKEN] for article in articles), base)
    if not recipe.supported_only:
        return {"tokens": lengths, "needed": [0] * len(articles)}
    ends = [support_ends(headline, article) for headline, article in zip(headlines, articles, strict=True)]
    openings = _lengths((article[: end or 0] for article, end in zip(articles, ends, strict=True)), base)
    return {
        "tokens": lengths,
        "needed": [-1 if end is None else needed for end, needed in zip(ends, openings, strict=True)],
    }


def _lengths(articles: Iterable[str], base: Base) -> list[int]:
    texts = [base.prefix + article for article in articles]
    return [len(tokens) for tokens in base.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]]


def _fit(order: Order, run: Run, store: Store, console: Console, device: str, tensorboard: bool) -> None:
    base, recipe, on = _base(order, run, store), order.recipe, _device(device)
    taught = _split(_load(run.measured), order.held_out)[0]
    if not len(taught):
        raise TrainingError("no pair is left to learn from")
    if on == "cpu":
        keep()
    lengths = (np.array(taught[name], dtype=np.int32) for name in ("tokens", "needed"))
    plan = make_plan(Measured(taught["source"], *lengths), recipe, batch=recipe.batch * order.processes)
    shown = Shown(console, len(plan))
    trainer = HeadlineTrainer(
        base.model,
        base.tokenizer,
        Tokenised(taught, plan, recipe, base.tokenizer, base.prefix),
        recipe,
        run.folder,
        device=on,
        bfloat16=_in_bfloat16(recipe, on),
        callbacks=[shown, Lines(run.metrics)],
        tensorboard=tensorboard,
    )
    try:
        model = trainer.fit()
    finally:
        shown.stop()
    if trainer.is_world_process_zero():
        if recipe.base_share:
            mix(model, _base(order, run, store).model, recipe.base_share)
        with appearing(run.model) as folder:
            save_model(model, base.tokenizer, folder, getattr(torch, recipe.save_as))


def _split(pairs: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """The pairs to learn from, and the share to be scored on: always the same of the same articles."""
    if not share:
        return pairs, pairs.select([])
    held = np.fromiter((_is_held_out(article, share) for article in _articles(pairs)), dtype=bool, count=len(pairs))
    if held.all():  # a single pair is there to be learnt
        held[:] = False
    return pairs.select(np.flatnonzero(~held)), pairs.select(np.flatnonzero(held))


def _articles(pairs: Dataset) -> Iterator[str]:
    for batch in pairs.iter(batch_size=1000):
        yield from batch["article"]


def _is_held_out(article: str, share: float) -> bool:
    return int.from_bytes(sha256(article.encode()).digest()[:8], "big") < share * 2**64


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"device {name!r} is neither auto nor cpu nor cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("there is no CUDA device that could be used")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _in_bfloat16(recipe: Recipe, device: str) -> bool:
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    return torch.cuda.is_bf16_supported() if device == "cuda" else multiplies_bfloat16()


def _held_out(order: Order, run: Run) -> list[Pair]:
    pairs = _split(_load(run.measured), order.held_out)[1]
    return choose(pairs, most=MOST_SCORED, seed=order.recipe.seed) if len(pairs) else []


def _score(pairs: Sequence[Pair], run: Run, draft: Manifest, device: str) -> Evaluation | None:
    """What the trained model writes for pairs that it has not seen; None where there are none."""
    if not pairs:
        return None
    model = load(run.model, draft, device=device)
    with watched("scoring", len(pairs)) as progress:
        return evaluate(model, pairs, progress=progress)


def _publish(run: Run, draft: Manifest, text: str, scored: Evaluation | None, store: Store) -> Path:
    (run.model / CARD).write_text(text, encoding="utf-8")
    return store.publish(
        run.model,
        name=draft.name,
        language=draft.language,
        licence=draft.licence,
        base=draft.base,
        training_data=draft.training_data,
        created=date.today(),
        task_prefix=draft.task_prefix,
        max_source_tokens=draft.max_source_tokens,
        decoding=draft.decoding,
        scores=scored.scores() if scored else {},
    )


def _draft(order: Order, run: Run, publication: Publication, counts: Mapping[str, int]) -> Manifest:
    """What the manifest will say of the model but for its number, its scores and its files."""
    prefix = order.recipe.prefix
    return Manifest(
        name=publication.name,
        version=1,
        language=publication.language,
        licence=publication.licence,
        base=f"{order.base}{', encoder of a warm start' if order.warm_start else ''}",
        training_data=", ".join(f"{source} ({number:,})" for source, number in counts.items()),
        created=date.today(),
        task_prefix=prefix_of(AutoConfig.from_pretrained(run.model)) if prefix is None else prefix,
        max_source_tokens=order.recipe.max_source_tokens,
        decoding=dict(publication.decoding),
        files={},
    )


def _counts(run: Run) -> dict[str, int]:
    """How many pairs each source has, the largest first."""
    return dict(Counter(_load(run.measured)["source"]).most_common())
