"""The BART reads as the BERT did, begins to write with its layers, and appears whole or not at all."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from app.engine.load import load
from app.training import warm_start as module
from app.training.errors import TrainingError
from app.training.warm_start import bart_of, new_vectors, read_encoder, replace_vocabulary, train_tokenizer, warm_start
from tests.engine.models import build

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*MARKS, "mars", "rover", "##s", "land", "##ed", "the", "ministers", "hall", "##e", "ro", "a", "o", "r"]
TEXTS = [
    "The rover landed on Mars.",
    "Mars rovers\n\n  land, the ministers said in Halle.",
    "Ministers: the rover landed. Ünïcode 你好, 你好!",
] * 2
SIZE = 300
WIDTH, LAYERS, POSITIONS = 32, 4, 40
BART_EPS = 1e-5


def a_bert(*, layers: int = LAYERS, eps: float = BART_EPS) -> BertModel:
    """Random weights, biases and norms, so that nothing that is forgotten could go unseen."""
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        layer_norm_eps=eps,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        bert = BertModel(config)
        for weights in bert.parameters():
            nn.init.normal_(weights, mean=0.1, std=0.4)
    return bert.eval()


def word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece({piece: token for token, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, clean_text=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), MARKS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    a_bert().save_pretrained(tmp_path / "bert")
    word_piece().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "new"


def set_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# The same reader


def hidden_states(model: nn.Module) -> list[Tensor]:
    """Of two texts of different lengths, behind the embeddings and each layer, where they have tokens."""
    mask = torch.ones(2, POSITIONS, dtype=torch.long)
    mask[1, 9:] = 0
    tokens = (torch.arange(2 * POSITIONS) * 5 % len(PIECES)).view(2, POSITIONS)
    with torch.no_grad():
        states = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
    return [state[mask.bool()] for state in states]


def with_eps(model: BartForConditionalGeneration, eps: float) -> BartForConditionalGeneration:
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = eps
    return model


def assert_reads_as(model: BartForConditionalGeneration, bert: BertModel, *, atol: float = 1e-5) -> None:
    ours, theirs = hidden_states(model.get_encoder()), hidden_states(bert)
    assert len(ours) == LAYERS + 1
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=atol)


def test_with_the_old_vocabulary_the_encoder_gives_the_hidden_states_of_the_bert() -> None:
    assert_reads_as(bart_of(a_bert()), a_bert())


def test_what_differs_under_another_epsilon_is_the_epsilon_alone() -> None:
    bert = a_bert(eps=1e-2)
    assert_reads_as(with_eps(bart_of(bert), 1e-2), bert)
    with pytest.raises(AssertionError):
        assert_reads_as(bart_of(bert), bert)
    assert_reads_as(bart_of(a_bert(eps=1e-12)), a_bert(eps=1e-12), atol=1e-3)


def test_the_width_the_heads_and_the_activation_are_taken_over() -> None:
    bert = a_bert()
    bert.config.hidden_act = "relu"
    config = bart_of(bert).config
    assert (config.d_model, config.encoder_layers, config.max_position_embeddings) == (WIDTH, LAYERS, POSITIONS)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (4, 4)
    assert (config.encoder_ffn_dim, config.decoder_ffn_dim) == (48, 48)
    assert (config.activation_function, config.scale_embedding) == ("relu", False)


# The writer


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    mine, other = ours.state_dict(), theirs.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize(
    ("layers", "asked", "taken"),
    [(4, None, [0, 2]), (6, None, [0, 2, 4]), (5, None, [0, 2, 4]), (6, 2, [0, 3]), (3, 3, [0, 1, 2]), (1, None, [0])],
)
def test_the_decoder_has_the_layers_of_the_encoder_evenly_spaced(
    layers: int, asked: int | None, taken: list[int]
) -> None:
    bart = bart_of(a_bert(layers=layers), decoder_layers=asked).model
    assert bart.config.decoder_layers == len(bart.decoder.layers) == len(taken)
    for ours, place in zip(bart.decoder.layers, taken, strict=True):
        theirs = bart.encoder.layers[place]
        for name, part in theirs.named_children():
            if name != "activation_fn":
                assert same(getattr(ours, name), part), name
        assert same(ours.encoder_attn, theirs.self_attn)
        assert same(ours.encoder_attn_layer_norm, theirs.self_attn_layer_norm)
    assert same(bart.decoder.embed_positions, bart.encoder.embed_positions)
    assert same(bart.decoder.layernorm_embedding, bart.encoder.layernorm_embedding)


@pytest.mark.parametrize("count", [0, -1, LAYERS + 1])
def test_a_decoder_of_no_layers_or_of_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(TrainingError, match=f"1 to {LAYERS} layers"):
        bart_of(a_bert(), decoder_layers=count)


# The vocabulary


def trained(size: int = SIZE) -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, size=size, positions=POSITIONS)


def test_the_tokenizer_is_cased_and_puts_barts_marks_around_a_text() -> None:
    tokenizer = trained()
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id] == [0, 1, 2]
    assert [tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.model_max_length] == [3, 4, POSITIONS]
    tokens = tokenizer("The Mars rover: 你好 \U0001f680")["input_ids"]
    assert (tokens[0], tokens[-1]) == (0, 2)
    assert tokenizer.decode(tokens) == "<s> The Mars rover: 你好 \U0001f680</s>"
    assert tokenizer("the mars")["input_ids"] != tokenizer("The Mars")["input_ids"]


def test_white_space_is_one_blank() -> None:
    tokenizer = trained()
    assert tokenizer("The rover\n\t landed\u00a0")["input_ids"] == tokenizer("The rover landed ")["input_ids"]
    assert not [token for token in tokenizer.get_vocab() if "ĠĠ" in token or ("Ċ" in token and token != "Ċ")]


def test_what_recurs_becomes_a_token_if_only_in_the_first_text() -> None:
    vocabulary = train_tokenizer(["once once ago", "never"], size=SIZE, positions=POSITIONS).get_vocab()
    assert "Ġonce" in vocabulary
    assert not {"Ġago", "Ġnever"} & vocabulary.keys()


def vectors_by_name() -> tuple[dict[str, Tensor], Callable[..., Tensor], Tensor]:
    """The new tokens' vectors, the mean of those of old pieces, and all the old ones."""
    old = torch.randn(len(PIECES), WIDTH, generator=torch.Generator().manual_seed(1))
    tokenizer = trained()
    new = new_vectors(tokenizer, word_piece(), old)
    assert new.shape == (len(tokenizer), WIDTH)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    named = dict(zip(names, new, strict=True))
    return named, lambda *pieces: old[[PIECES.index(piece) for piece in pieces]].mean(0), old


@pytest.mark.parametrize(
    ("token", "pieces"),
    [
        ("ĠMars", ["mars"]),
        ("Ġrover", ["rover"]),
        ("the", ["the"]),
        ("Ġlanded", ["land", "##ed"]),
        ("o", ["o"]),
        ("<s>", ["[CLS]"]),
        ("<pad>", ["[PAD]"]),
        ("</s>", ["[SEP]"]),
        ("<unk>", ["[UNK]"]),
        ("<mask>", ["[MASK]"]),
        ("Ġä½łå¥½", ["[UNK]"]),  # 你好 in bytes
        ("z", ["[UNK]"]),
    ],
)
def test_a_token_has_the_mean_of_the_vectors_of_its_old_pieces(token: str, pieces: list[str]) -> None:
    new, mean, _ = vectors_by_name()
    torch.testing.assert_close(new[token], mean(*pieces))


@pytest.mark.parametrize("token", ["Ġ", "Ċ", "ä", "½"])  # a blank, a line break, and bytes of larger characters
def test_a_token_without_a_text_has_the_mean_of_all_vectors(token: str) -> None:
    new, _, old = vectors_by_name()
    torch.testing.assert_close(new[token], old.mean(0))


def test_a_vocabulary_is_shared_by_encoder_decoder_and_output() -> None:
    model = bart_of(a_bert())
    vectors = torch.randn(SIZE, WIDTH)
    replace_vocabulary(model, vectors)
    assert torch.equal(model.model.shared.weight, vectors)
    for part in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens, model.lm_head):
        assert part.weight.data_ptr() == model.model.shared.weight.data_ptr()
    assert model.config.vocab_size == model.final_logits_bias.shape[-1] == SIZE


# The folder


def test_the_folder_is_a_transformers_model_with_everything_in_it(encoder: Path, target: Path) -> None:
    warm_start(encoder, iter(TEXTS), target, vocabulary_size=SIZE)
    model, report = AutoModelForSeq2SeqLM.from_pretrained(target, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert isinstance(model, BartForConditionalGeneration)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    expected = bart_of(a_bert())
    replace_vocabulary(expected, new_vectors(tokenizer, word_piece(), a_bert().embeddings.word_embeddings.weight.data))
    assert same(model, expected)
    assert (len(tokenizer), tokenizer.model_max_length) == (SIZE, POSITIONS)
    assert tokenizer("The rover")["input_ids"] == trained()("The rover")["input_ids"]
    assert not list(target.parent.glob(".*"))


def test_the_folder_says_how_to_write(encoder: Path, target: Path) -> None:
    warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    decoding = GenerationConfig.from_pretrained(target)
    assert (decoding.num_beams, decoding.max_new_tokens, decoding.no_repeat_ngram_size) == (4, 32, 3)
    assert (decoding.bos_token_id, decoding.pad_token_id, decoding.eos_token_id) == (0, 1, 2)
    assert (decoding.decoder_start_token_id, decoding.forced_bos_token_id, decoding.forced_eos_token_id) == (
        2,
        None,
        None,
    )
    config = json.loads((target / "config.json").read_text())
    assert (config["decoder_start_token_id"], config["forced_eos_token_id"], config["vocab_size"]) == (2, None, SIZE)


def test_the_service_can_serve_it(encoder: Path, target: Path) -> None:
    warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    model = load(target, None, device="cpu", dtype="float32")
    assert (model.info.max_source_tokens, model.engine.decoding.num_beams) == (POSITIONS, 4)


def test_the_body_of_a_masked_language_model_in_half_precision_will_do(encoder: Path, target: Path) -> None:
    masked = BertForMaskedLM(a_bert().config)
    masked.bert.load_state_dict(a_bert().state_dict(), strict=False)
    masked.half().save_pretrained(encoder)
    warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    weights = load_file(target / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    expected = a_bert().encoder.layer[0].intermediate.dense.weight
    torch.testing.assert_close(weights["model.encoder.layers.0.fc1.weight"], expected.half().float())


def test_texts_that_give_too_few_tokens_give_a_smaller_vocabulary(
    encoder: Path, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "app.training"):
        warm_start(encoder, TEXTS, target, vocabulary_size=5000)
    size = len(AutoTokenizer.from_pretrained(target))
    assert 261 < size < 5000
    assert f"a vocabulary of {size} tokens, not 5000" in caplog.text
    assert AutoModelForSeq2SeqLM.from_pretrained(target).config.vocab_size == size


# What does not work


def other_kind(folder: Path) -> None:
    build("t5").save_pretrained(folder)


def no_weights_of_a_bert(folder: Path) -> None:
    save_file({"something.else": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})


def fewer_weights_than_tokens(folder: Path) -> None:
    tokenizer = word_piece()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(folder)


def no_mask(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("[MASK]", "[GAP]"))
    text = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(text.replace("[MASK]", "[GAP]"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no BERT-like encoder"),
        (other_kind, "no BERT-like encoder but of another kind: t5 T5ForConditionalGeneration"),
        (no_weights_of_a_bert, "no weights of a BertModel: they lack"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: set_config(folder, position_embedding_type="relative_key"), "relative_key positions"),
        (lambda folder: set_config(folder, is_decoder=True), "from left to right only"),
        (lambda folder: set_config(folder, hidden_act="nonsense"), "cannot be loaded"),
        (no_mask, r"its tokenizer lacks \[MASK\]"),
        (fewer_weights_than_tokens, f"has {len(PIECES) + 1} tokens, its weights {len(PIECES)}"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_line(
    encoder: Path, target: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(encoder)
    with pytest.raises(TrainingError, match=words) as caught:
        warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists()


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_without_texts_there_is_no_vocabulary(encoder: Path, target: Path, texts: list[str]) -> None:
    with pytest.raises(TrainingError, match="no texts"):
        warm_start(encoder, texts, target, vocabulary_size=SIZE)
    assert not target.parent.exists()


def test_a_vocabulary_smaller_than_bytes_and_marks_is_refused(encoder: Path, target: Path) -> None:
    with pytest.raises(TrainingError, match="at least 261 tokens"):
        warm_start(encoder, TEXTS, target, vocabulary_size=260)
    warm_start(encoder, TEXTS, target, vocabulary_size=261)


def test_what_is_there_stays(encoder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(TrainingError, match="is there already"):
        warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    assert not list(target.iterdir())


def test_a_folder_half_written_is_gone(encoder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        assert (folder / "model.safetensors").exists()
        assert not target.exists()
        raise OSError("No space left on device")

    monkeypatch.setattr(module.PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(TrainingError, match=r"cannot write .*: No space left on device"):
        warm_start(encoder, TEXTS, target, vocabulary_size=SIZE)
    assert not list(target.parent.iterdir())


def test_a_target_where_nothing_can_be_written_is_an_error(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot write"):
        warm_start(encoder, TEXTS, tmp_path / "file" / "new", vocabulary_size=SIZE)


def test_an_encoder_is_read_in_float32_without_dropout(encoder: Path) -> None:
    a_bert().half().save_pretrained(encoder)
    bert, tokenizer = read_encoder(encoder)
    assert (bert.dtype, bert.training, len(tokenizer)) == (torch.float32, False, len(PIECES))
