"""From three pairs to what the service answers: read, learnt by heart, scored, published, served."""

import errno
import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, ByT5Tokenizer, GPT2Config, GPT2LMHeadModel

from app.api.server import create_app
from app.engine.load import load
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService
from app.settings import Settings
from app.store.store import Store, StoreError, verify
from app.training import train as train_module
from app.training.base import Base
from app.training.errors import TrainingError
from app.training.pairs import Columns
from app.training.plan import make_plan
from app.training.recipe import Recipe
from app.training.run import Order, Run, only_one
from app.training.train import Publication, _measure, train
from tests.engine.models import FAMILIES, build, of
from tests.training.test_warm_start import a_bert, word_piece

LEARNT = {
    "The rover landed on Mars at noon, the agency said in a note.": "Rover lands on Mars",
    "A bill to fix roads was signed by the governor on Friday.": "Governor signs roads bill",
    "Snow closed three schools in the north until next week.": "Snow closes schools",
}


def save(folder: Path, model: Any, tokenizer: Any = None) -> Path:
    model.save_pretrained(folder)
    (tokenizer or ByT5Tokenizer()).save_pretrained(folder)
    return folder


def write_pairs(file: Path, pairs: dict[str, str], **more: Any) -> Path:
    rows = [{"article": article, "headline": headline, **more} for article, headline in pairs.items()]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


class Workshop:
    """A store, a run, pairs and a base, in one folder; what is printed is kept."""

    def __init__(self, folder: Path) -> None:
        self.store, self.run = Store(folder / "store"), Run(folder / "run")
        self.pairs = write_pairs(folder / "wire.jsonl", LEARNT)
        self.folder = folder
        self.printed = StringIO()

    @property
    def base(self) -> Path:
        folder = self.folder / "base"
        return folder if folder.exists() else save(folder, build("t5"))

    def train(
        self,
        *,
        evaluation: Any = (),
        without: Any = (),
        device: str = "cpu",
        name: str = "tiny",
        decoding: Any = None,
        **order: Any,
    ) -> Path:
        recipe = order.pop("recipe", Recipe(epochs=1, batch=2, precision="float32", max_source_tokens=64))
        given = {"sources": (str(self.pairs),), "base": str(order.pop("base", None) or self.base), "held_out": 0.0}
        published = train(
            Order(recipe=recipe, **(given | order)),
            Publication(
                name=name,
                language="en",
                licence="CC0-1.0",
                notes="Only three.",
                command="headline train it",
                decoding=decoding or {},
            ),
            store=self.store,
            run=self.run,
            console=Console(file=self.printed, width=200),
            evaluation=[str(file) for file in evaluation],
            without=without,
            device=device,
        )
        assert published is not None
        return published

    def nothing_half_made(self) -> None:
        """The store has no trace of the training, and nothing lies about in the run's folder."""
        assert not list((self.folder / "store").rglob("*"))
        assert not list(self.run.folder.glob(".incoming*"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


async def ask(model_folder: Path, articles: list[str]) -> list[dict[str, Any]]:
    """What the service that serves the folder answers."""
    model, settings, metrics = load(model_folder, verify(model_folder), device="cpu"), Settings(), Metrics()
    service = HeadlineService(model, metrics, max_batch_tokens=model.max_batch_tokens, max_waiting=9)
    app = create_app(settings, service, metrics)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        answers = [await client.post("/headline", json={"text": article}) for article in articles]
    assert [answer.status_code for answer in answers] == [200] * len(articles)
    return [answer.json() for answer in answers]


@pytest.mark.anyio
async def test_what_was_learnt_by_heart_is_what_the_service_answers(workshop: Workshop) -> None:
    config = FAMILIES["bart"]()
    for name, value in {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "init_std": 0.1}.items():
        setattr(config, name, value)
    base = of(config)
    base.generation_config.max_new_tokens = 40
    base.generation_config.num_beams = 2
    recipe = Recipe(
        epochs=60,
        batch=3,
        rate=5e-3,
        warmup=6,
        dropout=0,
        schedule="cosine",
        weight_decay=0,
        precision="float32",
        max_source_tokens=64,
        weights={"wi*": 1.0},
        save_every=1000,
    )
    folder = workshop.train(
        base=save(workshop.folder / "base", base), recipe=recipe, evaluation=[workshop.pairs], name="three"
    )

    answers = await ask(folder, list(LEARNT))
    assert [answer["headlines"][0]["text"] for answer in answers] == list(LEARNT.values())
    assert answers[0]["model"] == {"name": "three", "version": "1"}

    manifest = verify(folder)
    assert manifest is not None
    assert (manifest.name, manifest.version, manifest.licence) == ("three", 1, "CC0-1.0")
    assert (manifest.base, manifest.training_data) == (str(workshop.base), "wire (3)")
    assert (manifest.max_source_tokens, manifest.task_prefix) == (64, "")
    assert (manifest.scores["rougeL"], manifest.scores["unsupported_per_100"]["model"]) == (100, 0)
    assert "README.md" in manifest.files
    card = (folder / "README.md").read_text()
    for words in ("# three: headlines", "CC0-1.0", "| wire | 3 |", "headline train it", '"rate": 0.005', "Only three."):
        assert words in card
    assert "| wire | 100.0 | 100.0 | 100.0 |" in card
    told = [json.loads(line) for line in workshop.run.metrics.read_text().splitlines()]
    assert told[0]["loss"] > 3
    assert told[-1] == {**told[-1], "step": 60, "examples": 180}
    assert told[-1]["loss"] < 0.1
    assert "3 pairs read" in workshop.printed.getvalue()


def test_the_next_training_is_the_next_version_and_may_start_from_the_last(workshop: Workshop) -> None:
    first = workshop.train()
    workshop.run = Run(workshop.folder / "second")
    assert workshop.train(base="tiny") == first.with_name("2")
    assert {path.name for path in first.parent.iterdir()} == {"1", "2"}


def test_once_trained_it_is_only_scored_and_published_again(workshop: Workshop) -> None:
    one = workshop.train()
    before = workshop.run.metrics.read_bytes()
    other = workshop.train(evaluation=[workshop.pairs])
    assert workshop.run.metrics.read_bytes() == before
    weights = [folder / "model.safetensors" for folder in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    manifest = verify(other)
    assert manifest is not None
    assert "3 pairs of 1 sources" in manifest.scores["measured_on"]


def test_a_bert_becomes_a_bart_that_is_trained(workshop: Workshop) -> None:
    encoder = save(workshop.folder / "bert", a_bert(), word_piece())
    recipe = Recipe(epochs=1, batch=3, infill=0.9, max_source_tokens=32, precision="float32", save_as="bfloat16")
    manifest = verify(workshop.train(base=encoder, warm_start=True, recipe=recipe))
    assert manifest is not None
    assert manifest.base == f"{encoder}, encoder of a warm start"
    assert json.loads((workshop.folder / "store/tiny/1/config.json").read_text())["dtype"] == "bfloat16"


def test_what_cannot_be_scored_is_not_published(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train_module, "evaluate", full)
    goes_on = "the training is done, the same command goes on with scoring"
    with pytest.raises(TrainingError, match=f"cannot train in .*run: No space left on device; {goes_on}"):
        workshop.train(evaluation=[workshop.pairs])
    workshop.nothing_half_made()
    assert workshop.run.model.exists()


def test_a_source_may_be_left_out_of_the_scores(workshop: Workshop) -> None:
    spam = write_pairs(workshop.folder / "spam.jsonl", LEARNT)
    manifest = verify(workshop.train(evaluation=[workshop.pairs, spam], without=["spam"]))
    assert manifest is not None
    assert list(manifest.scores["by_source"]) == ["wire"]


def test_a_batch_of_the_plan_is_for_all_processes(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    class OfTwo:
        """The first of two processes, which hears nothing of the other."""

        num_processes, is_main_process = 2, True

        def __init__(self, **_: Any) -> None: ...

        def wait_for_everyone(self) -> None: ...

    asked: list[int] = []

    def plan(*given: Any, batch: int) -> Any:
        asked.append(batch)
        return make_plan(*given, batch=batch)

    monkeypatch.setattr(train_module, "PartialState", OfTwo)
    monkeypatch.setattr(train_module, "make_plan", plan)
    workshop.train()
    assert asked == [4]
    assert json.loads((workshop.run.folder / "order.json").read_text())["processes"] == 2


# Held out


def test_a_single_pair_is_learnt_from_though_a_share_is_held_out(workshop: Workshop) -> None:
    article = "Snow closed three schools in the north until next week."
    workshop.pairs = write_pairs(workshop.folder / "wire.jsonl", {article: LEARNT[article]})
    manifest = verify(workshop.train(held_out=0.9))
    assert manifest is not None
    assert (manifest.training_data, manifest.scores) == ("wire (1)", {})
    assert "Not scored: no pairs were held out." in (workshop.folder / "store/tiny/1/README.md").read_text()


def test_held_out_pairs_are_scored_on_and_never_learnt_from(workshop: Workshop) -> None:
    many = {f"Council {number} met at noon on Friday and left.": f"Council {number} meets" for number in range(60)}
    workshop.pairs = write_pairs(workshop.folder / "wire.jsonl", many)
    manifest = verify(workshop.train(held_out=0.2))
    assert manifest is not None
    held = int(manifest.scores["measured_on"].split()[0])
    assert 2 <= held <= 25
    shown = json.loads(workshop.run.metrics.read_text().splitlines()[-1])["step"]
    assert shown == -(-(60 - held) // 2)


# What cannot be done is said before anything long is done


def encoder_only(folder: Path) -> Any:
    return save(
        folder, BertModel(BertConfig(vocab_size=384, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    )


def decoder_only(folder: Path) -> Any:
    return save(folder, GPT2LMHeadModel(GPT2Config(vocab_size=384, n_embd=8, n_layer=1, n_head=1)))


def padless(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, "a": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    return save(folder, build("t5"), fast)


def without_weights(folder: Path) -> Any:
    save(folder, build("t5"))
    (folder / "model.safetensors").unlink()


def short_of_positions(folder: Path) -> Any:
    return save(folder, build("bart"))


BASES = [
    (encoder_only, "is no encoder-decoder model (bert)"),
    (decoder_only, "is no encoder-decoder model (gpt2)"),
    (padless, "has no pad token"),
    (without_weights, "cannot start from"),
    (short_of_positions, "takes at most 128 tokens, not 512"),
    (lambda folder: folder.mkdir(), "cannot start from"),
]


@pytest.mark.parametrize(("make", "words"), BASES)
def test_a_base_that_will_not_do_is_found_before_the_pairs_are_read(make: Any, words: str, workshop: Workshop) -> None:
    make(workshop.folder / "base")
    with pytest.raises(TrainingError) as caught:
        workshop.train(recipe=Recipe())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not workshop.run.pairs.exists()
    workshop.nothing_half_made()


def test_a_base_without_a_mask_cannot_be_taught_infilling(workshop: Workshop) -> None:
    base = save(workshop.folder / "base", build("t5"), ByT5Tokenizer(extra_ids=0))
    with pytest.raises(TrainingError, match="infilling needs a tokenizer with a mask token"):
        workshop.train(base=base, recipe=Recipe(infill=0.1))
    assert not workshop.run.pairs.exists()


def test_an_encoder_that_will_not_do_is_found_before_the_pairs_are_read(workshop: Workshop) -> None:
    with pytest.raises(TrainingError, match="no BERT-like encoder"):
        workshop.train(warm_start=True)
    assert not workshop.run.pairs.exists()


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [("missing.jsonl", "no such file"), ("empty.jsonl", "no pairs in"), ("other.csv", "no column")],
)
def test_pairs_to_score_on_are_looked_at_first(evaluation: str, words: str, workshop: Workshop) -> None:
    (workshop.folder / "empty.jsonl").touch()
    (workshop.folder / "other.csv").write_text("x\ny\n")
    with pytest.raises(TrainingError, match=words):
        workshop.train(evaluation=[workshop.folder / evaluation])
    assert not workshop.run.pairs.exists()
    workshop.nothing_half_made()


def test_named_columns_are_those_of_the_pairs_to_score_on_too(workshop: Workshop) -> None:
    file = workshop.folder / "named.csv"
    file.write_text("Long,Short\nSnow closed three schools in the north.,Snow closes schools\n")
    manifest = verify(workshop.train(sources=(str(file),), columns=Columns("Long", "Short"), evaluation=[file]))
    assert manifest is not None
    assert manifest.training_data == "named (1)"


def test_a_device_that_is_not_there_is_found_at_once(workshop: Workshop) -> None:
    for device, words in (("tpu", "neither auto nor cpu nor cuda"), ("cuda", "no CUDA device")):
        with pytest.raises(TrainingError, match=words):
            workshop.train(device=device)


def test_pairs_that_do_not_do_leave_nothing(workshop: Workshop) -> None:
    workshop.pairs.write_text("")
    with pytest.raises(TrainingError, match="no pairs in"):
        workshop.train()
    workshop.nothing_half_made()
    assert not list(workshop.run.folder.glob("reading"))


def test_headlines_that_name_what_their_articles_lack_leave_nothing_to_learn(workshop: Workshop) -> None:
    pairs = {"Snow closed three schools in the north until next week.": "Merkel visits 77 schools"}
    workshop.pairs = write_pairs(workshop.folder / "wire.jsonl", pairs)
    with pytest.raises(TrainingError, match="no pair is left: each headline names"):
        workshop.train(recipe=Recipe(supported_only=True))
    workshop.nothing_half_made()


def test_a_folder_holds_one_training(workshop: Workshop) -> None:
    workshop.train()
    with pytest.raises(TrainingError, match="run holds a training with other options: give another --run folder"):
        workshop.train(held_out=0.5)
    assert [path.name for path in (workshop.folder / "store/tiny").iterdir()] == ["1"]


def test_a_name_and_a_folder_are_for_one_at_a_time(workshop: Workshop) -> None:
    home = workshop.store.make_home("tiny")
    with only_one(home, ""), pytest.raises(TrainingError, match="tiny is being trained already: another training hol"):
        workshop.train()
    assert home.exists()  # it is another's
    workshop.run.folder.mkdir()
    with only_one(workshop.run.folder, ""), pytest.raises(TrainingError, match=r"another training runs in .*run"):
        workshop.train()
    workshop.train()


def test_a_weight_of_no_source_is_found_before_anything_is_tokenised(workshop: Workshop) -> None:
    workshop.pairs = write_pairs(workshop.folder / "press.jsonl", LEARNT)
    sources = (str(workshop.pairs), str(write_pairs(workshop.folder / "wire.jsonl", LEARNT)))
    recipe = Recipe(weights={"press": 2.0, "wier": 2.0}, batch=2, max_source_tokens=64)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"no source fits the weight 'wier'; there is press, wire$"):
            workshop.train(sources=sources, recipe=recipe)
        assert not workshop.run.measured.exists()
    encoder = save(workshop.folder / "bert", a_bert(), word_piece())
    workshop.run = Run(workshop.folder / "warm")
    with pytest.raises(TrainingError, match="no source fits the weight 'wier'"):
        workshop.train(sources=sources, recipe=recipe, base=encoder, warm_start=True)
    assert not workshop.run.start.exists()  # no vocabulary was learnt


@pytest.mark.parametrize(("begun", "go_on"), [(1, 2), (2, 1), (None, 2)])
def test_as_many_processes_go_on_as_began(begun: int | None, go_on: int, tmp_path: Path) -> None:
    run, order = Run(tmp_path), Order(sources=("wire",), base="base", recipe=Recipe())
    with run.working(replace(order, processes=begun or 1)):
        pass
    file = tmp_path / "order.json"
    if begun is None:  # as it was written when nobody asked
        kept = json.loads(file.read_text())
        del kept["processes"]
        file.write_text(json.dumps(kept))
    before = file.read_bytes()
    with (
        pytest.raises(TrainingError, match=f"as many processes as began it, {begun or 1}, not {go_on}; or give"),
        run.working(replace(order, processes=go_on)),
    ):
        pytest.fail("it goes on")
    with pytest.raises(TrainingError, match="other options"), run.working(replace(order, processes=go_on, base="x")):
        pytest.fail("it goes on")
    with run.working(replace(order, processes=begun or 1)):
        assert file.read_bytes() == before


def test_an_order_that_cannot_be_read_is_another(tmp_path: Path) -> None:
    (tmp_path / "order.json").touch()
    with (
        pytest.raises(TrainingError, match="other options"),
        Run(tmp_path).working(Order(sources=("wire",), base="base", recipe=Recipe())),
    ):
        pytest.fail("it goes on")


def test_what_is_needed_is_measured_with_the_prefix(tmp_path: Path) -> None:
    """Or else a name at the end of what may be seen falls behind the cut."""
    base = Base(build("t5"), ByT5Tokenizer(), "summarize: ")
    recipe = Recipe(supported_only=True, max_source_tokens=64)
    batch = {"article": ["It snowed in Oslo. Two rose."], "headline": ["Snow in Oslo"]}
    measured = _measure(batch, base=base, recipe=recipe)
    seen = "summarize: It snowed in Oslo"
    assert measured == {"tokens": [len(seen) + len(". Two rose.") + 1], "needed": [len(seen) + 1]}


def test_where_nothing_can_be_written_nothing_begins(workshop: Workshop) -> None:
    (workshop.folder / "store").touch()
    with pytest.raises(StoreError, match=r"cannot publish 'tiny' in .*store: Not a directory"):
        workshop.train()
    assert not workshop.run.folder.exists()
    (workshop.folder / "store").unlink()
    workshop.run = Run(workshop.pairs / "run")
    with pytest.raises(TrainingError, match=r"cannot train in .*: Not a directory"):
        workshop.train()
    workshop.nothing_half_made()


def test_a_name_that_is_none_is_refused(workshop: Workshop) -> None:
    with pytest.raises(StoreError, match="'Not this' is no name of a model"):
        workshop.train(name="Not this")


def test_decoding_options_are_kept_in_the_manifest_and_scored_with(workshop: Workshop) -> None:
    published = workshop.train(decoding={"num_beams": 2, "length_penalty": 0.5}, evaluation=[workshop.pairs])
    manifest = verify(published)
    assert manifest.decoding == {"num_beams": 2, "length_penalty": 0.5}
    assert "beam 2" in manifest.scores["measured_on"]


@pytest.mark.parametrize("options", [{"beams": 2}, {"repetition_penalty": 1.5}, {"max_new_tokens": "many"}])
def test_what_no_search_can_do_is_refused_before_training(workshop: Workshop, options: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="decoding"):
        workshop.train(decoding=options)
    workshop.nothing_half_made()
    assert not workshop.run.folder.exists()
