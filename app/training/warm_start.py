"""A BERT-like encoder becomes a BART that has yet to learn writing. Knows folders and texts: no pairs, no training.

BERT's layers are BART's: post-norm, the same attention, the same feed-forward part. So the encoder is taken as it is,
token-type row 0 added to its positions, and gives the same hidden states but for the epsilon of its layer norms: 1e-12
in most BERTs, always 1e-5 in BART, whose config has no word for it. An epsilon e stands beside a variance v, so the
values shrink by the share e / 2v: one in 200 000 where the variance is 1, one in 1 000 behind MiniLM's embeddings,
where it is the smallest; its last hidden states differ by one in 2 000. Training begins there: nothing makes up for it.
"""

import json
import logging
from collections.abc import Iterable
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from app.store.files import appearing
from app.training.errors import TrainingError

log = logging.getLogger(__name__)

# What BERT calls the parts of a layer, and what BART does.
LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
CROSS_ATTENTION = {
    old: new.replace("self_attn", "encoder_attn") for old, new in LAYER.items() if new.startswith("self_attn")
}
OFFSET = 2  # rows of BART's positions that stand before the first token's

# The new vocabulary's first tokens, in BART's order, and whose vectors they take over.
SPECIAL = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
START, PAD, END = 0, 1, 2
SMALLEST = 256 + len(SPECIAL)
HALF = "\ufffd"  # what half a character is decoded to


def warm_start(
    encoder: Path,
    texts: Iterable[str],
    target: Path,
    *,
    vocabulary_size: int = 16_384,
    decoder_layers: int | None = None,
) -> None:
    """Write to the new folder `target` a BART that reads as the BERT in the folder `encoder` does.

    Its vocabulary is trained on `texts`, its decoder has `decoder_layers` of the encoder's layers, every second one
    unless said. `target` appears at once and whole, or not at all with a TrainingError.
    """
    if vocabulary_size < SMALLEST:
        raise TrainingError(f"a vocabulary has at least {SMALLEST} tokens (bytes and marks), not {vocabulary_size}")
    if target.exists():
        raise TrainingError(f"{target} is there already")
    bert, old_tokenizer = read_encoder(encoder)
    model = bart_of(bert, decoder_layers=decoder_layers)
    tokenizer = train_tokenizer(texts, size=vocabulary_size, positions=model.config.max_position_embeddings)
    replace_vocabulary(model, new_vectors(tokenizer, old_tokenizer, model.get_input_embeddings().weight.detach()))
    _write(model, tokenizer, target)
    log.info("%s: %.1f million parameters, %d tokens", target, model.num_parameters() / 1e6, len(tokenizer))


def read_encoder(folder: Path) -> tuple[BertModel, PreTrainedTokenizerBase]:
    """The BERT in a folder, in float32, and its tokenizer; raises TrainingError if it is none that BART could be."""
    _check(folder, _config(folder))
    transformers_logging.disable_progress_bar()
    try:
        bert, report = BertModel.from_pretrained(
            folder, add_pooling_layer=False, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds; all mean that this folder is no encoder for us
        raise TrainingError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    if absent := sorted(report["missing_keys"]):
        raise TrainingError(f"{folder}: no weights of a BertModel: they lack {len(absent)} tensors, {absent[0]} first")
    _check_marks(folder, tokenizer, bert.config.vocab_size)
    return bert.eval(), tokenizer


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{folder} is no model: it has no config.json that can be read") from error
    except ValueError as error:
        raise TrainingError(f"{folder / 'config.json'} is damaged: {_first_line(error)}") from error
    return config if isinstance(config, dict) else {}


def _check(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type", "nameless")
    if kind != "bert":
        what = " ".join([kind, *(config.get("architectures") or [])])
        raise TrainingError(f"{folder} is no BERT-like encoder but of another kind: {what}")
    if config.get("is_decoder"):
        raise TrainingError(f"{folder} is a BERT that reads from left to right only, not an encoder")
    if (positions := config.get("position_embedding_type", "absolute")) != "absolute":
        raise TrainingError(f"{folder} has {positions} positions, and BART can take over absolute ones only")


def _check_marks(folder: Path, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    if absent := [mark for mark in SPECIAL.values() if mark not in tokenizer.get_vocab()]:
        raise TrainingError(f"{folder}: its tokenizer lacks {' '.join(absent)}")
    if len(tokenizer) > size:
        raise TrainingError(f"{folder}: its tokenizer has {len(tokenizer)} tokens, its weights {size}")


def bart_of(bert: BertModel, *, decoder_layers: int | None = None) -> BartForConditionalGeneration:
    """A BART with the weights and, for now, the vocabulary of the BERT; its decoder reads the encoder by them too."""
    layers = list(bert.encoder.layer)
    chosen = _spread(layers, (len(layers) + 1) // 2 if decoder_layers is None else decoder_layers)
    model = BartForConditionalGeneration(_bart_config(bert.config, decoder_layers=len(chosen)))
    model.generation_config = _decoding()
    model.get_input_embeddings().load_state_dict(bert.embeddings.word_embeddings.state_dict())
    for part in (model.model.encoder, model.model.decoder):
        part.embed_positions.load_state_dict({"weight": _positions(bert)})
        part.layernorm_embedding.load_state_dict(bert.embeddings.LayerNorm.state_dict())
    for new, old in zip(model.model.encoder.layers, layers, strict=True):
        _copy(old, new, LAYER)
    for new, old in zip(model.model.decoder.layers, chosen, strict=True):
        _copy(old, new, LAYER)
        _copy(old, new, CROSS_ATTENTION)
    return model.eval()


def _spread(layers: list[nn.Module], count: int) -> list[nn.Module]:
    """So many of the layers, evenly spaced, the first one among them."""
    if not 1 <= count <= len(layers):
        raise TrainingError(f"the decoder can have 1 to {len(layers)} layers, as many as the encoder has, not {count}")
    return [layers[ceil(place * len(layers) / count)] for place in range(count)]


def _bart_config(bert: Any, *, decoder_layers: int) -> BartConfig:
    return BartConfig(
        vocab_size=bert.vocab_size,
        max_position_embeddings=bert.max_position_embeddings,
        d_model=bert.hidden_size,
        encoder_layers=bert.num_hidden_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=bert.num_attention_heads,
        decoder_attention_heads=bert.num_attention_heads,
        encoder_ffn_dim=bert.intermediate_size,
        decoder_ffn_dim=bert.intermediate_size,
        activation_function=bert.hidden_act,
        init_std=bert.initializer_range,
        scale_embedding=False,
        tie_word_embeddings=True,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=END,
        forced_eos_token_id=None,
    )


def _decoding() -> GenerationConfig:
    return GenerationConfig(
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=END,
        num_beams=4,
        early_stopping=True,
        length_penalty=1.0,
        max_new_tokens=32,
        min_new_tokens=3,
        no_repeat_ngram_size=3,
    )


def _positions(bert: BertModel) -> Tensor:
    """BART's positions, [OFFSET + positions, width]: no text ever has a token type but the first."""
    rows = bert.embeddings.position_embeddings.weight + bert.embeddings.token_type_embeddings.weight[0]
    return torch.cat([rows.new_zeros(OFFSET, rows.shape[1]), rows.detach()])


def _copy(old: nn.Module, new: nn.Module, names: dict[str, str]) -> None:
    for theirs, ours in names.items():
        new.get_submodule(ours).load_state_dict(old.get_submodule(theirs).state_dict())


def train_tokenizer(texts: Iterable[str], *, size: int, positions: int) -> PreTrainedTokenizerFast:
    """A cased byte-level BPE of at most `size` tokens, to which every run of white space is one blank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_some(texts), _trainer(size))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    if (reached := tokenizer.get_vocab_size()) < size:
        log.warning("the texts give a vocabulary of %d tokens, not %d: they have no more that recur", reached, size)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=positions,
    )


def _some(texts: Iterable[str]) -> Iterable[str]:
    """The texts that are not blank; raises TrainingError if there are none."""
    written = (text for text in texts if text.strip())
    first = next(written, None)
    if first is None:
        raise TrainingError("there are no texts to make a vocabulary of")
    return chain([first], written)


def _trainer(size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def new_vectors(tokenizer: PreTrainedTokenizerBase, old: PreTrainedTokenizerBase, vectors: Tensor) -> Tensor:
    """A vector for each of the tokenizer's tokens: [tokens of the old one, width] -> [tokens, width].

    It is the mean of those of the pieces into which the old one cuts the token's text, [UNK] among them; the mean of
    all where there is no text. A token from within a word is cut as if it began one.
    """
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    pieces = old([_text(name) for name in names], add_special_tokens=False)["input_ids"]
    for token, mark in enumerate(SPECIAL.values()):
        pieces[token] = [old.convert_tokens_to_ids(mark)]
    average = vectors.mean(0)
    return torch.stack([vectors[cut].mean(0) if cut else average for cut in pieces])


def _text(name: str) -> str:
    """What a byte-level token says, without the blank before it; half a character says nothing."""
    text: str = decoders.ByteLevel().decode([name])
    return text.replace(HALF, "").removeprefix(" ")


def replace_vocabulary(model: BartForConditionalGeneration, vectors: Tensor) -> None:
    """Give encoder, decoder and output these vectors, [tokens, width], as their one vocabulary."""
    model.resize_token_embeddings(len(vectors), mean_resizing=False)
    model.get_input_embeddings().load_state_dict({"weight": vectors})


def _write(model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, target: Path) -> None:
    try:
        with appearing(target) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot write {target}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
