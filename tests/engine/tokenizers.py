"""Small real tokenizers of every kind that seq2seq models have, trained on the articles of tests/data."""

import json
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

LINES = (Path(__file__).parents[1] / "data/articles.jsonl").read_text(encoding="utf-8").splitlines()
TEXTS = [json.loads(line)["text"] for line in LINES[:40]]
SPECIAL = ["<pad>", "</s>", "<unk>"]
SIZE = 900


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=128
    )


def byte_level_bpe() -> PreTrainedTokenizerBase:
    """BART's, GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _fast(tokenizer)


def unigram() -> PreTrainedTokenizerBase:
    """SentencePiece's, as T5 and Pegasus have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=SIZE, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _fast(tokenizer)


def bpe_with_bytes() -> PreTrainedTokenizerBase:
    """SentencePiece's with bytes for what it does not know, as Gemma has it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = ["▁" + word for text in TEXTS for word in text.split() if word.isascii()]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=SPECIAL))
    trained = json.loads(tokenizer.to_str())
    vocabulary = trained["model"]["vocab"]
    trained["model"]["vocab"] |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return _fast(Tokenizer.from_str(json.dumps(trained)))


def word_piece() -> PreTrainedTokenizerBase:
    """BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=SPECIAL))
    return _fast(tokenizer)


def bytes_alone() -> PreTrainedTokenizerBase:
    """ByT5's."""
    return ByT5Tokenizer()


KINDS = {kind.__name__: kind for kind in (byte_level_bpe, unigram, bpe_with_bytes, word_piece, bytes_alone)}


@cache
def build(kind: str) -> PreTrainedTokenizerBase:
    return KINDS[kind]()
