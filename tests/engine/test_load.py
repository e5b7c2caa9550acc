"""What is no model for us is refused in one line; what is one loads as transformers would load it."""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer, GPT2Config, GPT2LMHeadModel

from app.engine.engine import Job
from app.engine.load import LoadError, load
from app.store.manifest import Manifest
from tests.engine.models import build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A T5 as save_pretrained leaves it, with a tokenizer that needs no vocabulary."""
    build("t5").save_pretrained(tmp_path / "tiny")
    ByT5Tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def manifest(**given: Any) -> Manifest:
    return Manifest(
        **{
            "name": "tiny",
            "version": 2,
            "language": "en",
            "licence": "CC0-1.0",
            "base": "random",
            "training_data": "none",
            "created": date(2026, 1, 1),
            "files": {},
            **given,
        }
    )


def test_a_folder_without_a_manifest_has_the_defaults_of_its_config(folder: Path) -> None:
    model = load(folder, None, device="cpu")
    assert (model.info.name, model.info.version, model.info.dtype) == ("tiny", "0", "float32")
    assert model.info.parameters == sum(p.numel() for p in build("t5").parameters())
    assert model.engine.decoding.max_new_tokens == 20


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"num_beams": ', "\x00"])
def test_damaged_decoding_defaults_are_an_error(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(LoadError):
        load(folder, None, device="cpu")


def test_a_manifest_overrides_prefix_lengths_and_decoding(folder: Path) -> None:
    (folder / "generation_config.json").write_text(
        json.dumps({"decoder_start_token_id": 0, "eos_token_id": 1, "min_length": 30, "max_length": 200})
    )
    overrides = {"min_length": 0, "max_new_tokens": 24, "num_beams": 3}
    model = load(folder, manifest(task_prefix="headline: ", max_source_tokens=40, decoding=overrides))
    decoding = model.engine.decoding
    assert (decoding.min_new_tokens, decoding.max_new_tokens, decoding.num_beams) == (0, 24, 3)
    reading = model.tokenizer.read("x" * 100)
    assert len(reading.tokens) == 40
    assert reading.article_tokens == len("headline: ") + 100 + 1
    assert model.tokenizer.write(reading.tokens) == "headline: " + "x" * 29
    assert reading.tokens[-1] == 1  # the end mark stays


def test_half_precision_weights_are_computed_in_float32_on_a_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("app.engine.load.multiplies_bfloat16", lambda: False)
    model = load(folder, None, device="cpu")
    assert (model.info.dtype, model.engine.dtype) == ("float32", torch.float32)


def test_bfloat16_is_taken_where_the_processor_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.load.multiplies_bfloat16", lambda: True)
    assert load(folder, None, device="cpu").info.dtype == "bfloat16"
    assert load(folder, None, device="cpu", dtype="float32").info.dtype == "float32"
    assert load(folder, None, device="cpu", quantize="int8").info.dtype == "int8"


@pytest.mark.parametrize(("dtype", "quantize"), [("bfloat16", "none"), ("auto", "int8")])
def test_coarser_products_leave_the_rest_in_float32(folder: Path, dtype: str, quantize: str) -> None:
    exact = load(folder, None, device="cpu", dtype="float32")
    model = load(folder, None, device="cpu", dtype=dtype, quantize=quantize)
    assert model.engine.dtype == torch.float32
    job = Job(exact.tokenizer.read("Rain fell on Oslo all day.").tokens, 4)
    (best, *_), (exact_best, *_) = (engine.generate([job]).candidates[0] for engine in (model.engine, exact.engine))
    assert best.score == pytest.approx(exact_best.score, abs=0.1)
    assert best.score != exact_best.score


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "meta"}, "quantize=int8 needs an x86 processor"),
        ({"device": "cpu", "dtype": "bfloat16"}, "exclude each other"),
    ],
)
def test_int8_where_it_cannot_be(folder: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(folder, None, quantize="int8", **options)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadError, match="pickled weights"):
        load(folder, None)


def test_truncated_weights(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    _refused(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.block.0.layer.0.SelfAttention.q.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _refused(folder, "lack 1 tensors")


def test_an_architecture_that_is_not_seq2seq(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=20)).save_pretrained(tmp_path)
    _refused(tmp_path, "not an encoder-decoder model")


@pytest.mark.parametrize(
    "config", ["{}", "{", '{"model_type": "no-such-family"}', '{"model_type": "t5", "d_model": "x"}']
)
def test_a_config_that_says_nothing(folder: Path, config: str) -> None:
    (folder / "config.json").write_text(config)
    _refused(folder)


def test_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")
    _refused(folder)


def test_remote_code_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSeq2SeqLM": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(folder / 'ran')!r}).touch()")
    load(folder, None)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repetition_penalty": 1.3}, "repetition_penalty=1.3 is not supported"),
        ({"min_new_tokens": 30, "max_new_tokens": 20}, "min_new_tokens"),
        ({"max_new_tokens": 0}, "no room"),
        ({"beams": 4}, "unknown decoding option beams"),
    ],
)
def test_decoding_options_that_cannot_be_carried_out(folder: Path, options: dict[str, Any], words: str) -> None:
    _refused(folder, words, manifest(decoding=options))


def test_a_prefix_that_leaves_no_room(folder: Path) -> None:
    _refused(folder, "no room for an article", manifest(task_prefix="headline: ", max_source_tokens=8))


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps:x"])
def test_a_device_that_is_not_there(folder: Path, device: str) -> None:
    with pytest.raises(LoadError, match=device):
        load(folder, None, device=device)


def test_a_copy_elsewhere_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert load(tmp_path / "copy", manifest()).info.version == "2"


def _refused(folder: Path, words: str = "tiny", given: Manifest | None = None) -> None:
    with pytest.raises(LoadError, match=words) as error:
        load(folder, given)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
