"""CTranslate2 on the same model, converted on the spot: the library to beat on a CPU, at the best of its settings."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import ctranslate2
import torch
from ctranslate2.converters import TransformersConverter
from transformers import PreTrainedTokenizerBase

from app.engine.decoding import Decoding

Tokens = tuple[int, ...]
BATCHES = (2, 4, 8, 16)
TRIAL = 16  # articles on which the settings are tried


class CannotConvert(Exception):
    """CTranslate2 does not know this kind of model."""


class Translator:
    """One precision of CTranslate2, float32 or int8, with the decoding of ours."""

    def __init__(self, folder: Path, precision: str, tokenizer: PreTrainedTokenizerBase, decoding: Decoding) -> None:
        self._tokenizer = tokenizer
        self._options = {
            "beam_size": decoding.num_beams,
            "length_penalty": decoding.length_penalty,
            "max_decoding_length": decoding.max_new_tokens,
            "min_decoding_length": decoding.min_new_tokens,
            "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
            "return_end_token": True,
            "max_input_length": 0,
        }
        self._folder, self._precision = folder, precision
        self._many, self._batch = self._opened(1, 1), 1
        self._one = self._many
        self.setting = ""

    def tune(self, articles: Sequence[Tokens], *, cores: int) -> None:
        """Take the quickest of some settings for many articles, and for one at a time."""
        trial = articles[:: max(1, len(articles) // TRIAL)]
        threads = sorted({(cores, 1), (1, cores)})
        opened = {pair: self._opened(*pair) for pair in threads}
        times = {}
        for pair, batch in product(threads, BATCHES):
            self._many, self._batch = opened[pair], batch
            self.write(trial[:4])
            times[pair, batch] = _seconds(lambda: self.write(trial))
        pair, self._batch = min(times, key=lambda setting: times[setting])
        self._many = opened[pair]
        self._one = opened[1, cores]
        self.setting = f"{pair[0]} x {pair[1]} threads, batches of {self._batch}"

    def write(self, articles: Sequence[Tokens]) -> list[Tokens]:
        """The best headline of each."""
        return self._written(self._many, articles, self._batch)

    def write_one(self, article: Tokens) -> Tokens:
        """The best headline of one article, with all cores at work on it."""
        return self._written(self._one, [article], 1)[0]

    def _opened(self, batches: int, threads: int) -> Any:
        return ctranslate2.Translator(
            str(self._folder),
            device="cpu",
            compute_type=self._precision,
            inter_threads=batches,
            intra_threads=threads,
        )

    def _written(self, translator: Any, articles: Sequence[Tokens], batch: int) -> list[Tokens]:
        texts = [self._tokenizer.convert_ids_to_tokens(list(article)) for article in articles]
        results = translator.translate_batch(texts, max_batch_size=batch, **self._options)
        return [tuple(self._tokenizer.convert_tokens_to_ids(result.hypotheses[0])) for result in results]


def convert(folder: Path, into: Path) -> None:
    """Convert the model in `folder` as CTranslate2 reads it, in float32. Raises CannotConvert."""
    try:
        _Converter(str(folder)).convert(str(into))
    except (ValueError, AttributeError, KeyError, NotImplementedError) as error:
        raise CannotConvert(str(error).partition("\n")[0]) from error


class _Converter(TransformersConverter):
    def load_model(self, model_class: Any, name: str, **options: Any) -> Any:
        model = model_class.from_pretrained(name, **{**options, "dtype": torch.float32})
        if model.config.model_type == "bart" and not hasattr(model.config, "normalize_before"):
            model.config.normalize_before = False  # what its loader asks for, and configurations no longer have
        return model


def _seconds(work: Any) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began
