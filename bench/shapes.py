"""Models with random weights in the shape of known ones: as much work as the real ones, none of their sense."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

SPECIAL = ("<pad>", "</s>", "<unk>")
ARTICLE, HEADLINE, BEAMS = 512, 16, 4  # tokens, tokens, beams
SHAPES = {"t5-small": T5Config(decoder_start_token_id=0)}  # the defaults of T5Config are its shape


def save_shape(name: str, folder: Path) -> None:
    """A model of that shape in `folder`, with a word for each of its tokens. Raises ValueError for an unknown shape."""
    if name not in SHAPES:
        raise ValueError(f"no shape {name!r}; there is {', '.join(SHAPES)}")
    config = SHAPES[name]
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    model.generation_config.update(
        num_beams=BEAMS, max_new_tokens=HEADLINE, min_new_tokens=HEADLINE, early_stopping=True
    )
    model.save_pretrained(folder)
    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), config.vocab_size))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=ARTICLE
    ).save_pretrained(folder)


def articles_of(name: str, number: int) -> list[str]:
    """So many articles of random words, each as long as the shape's articles are."""
    generator = torch.Generator().manual_seed(1)
    size = (number, ARTICLE - 1)
    tokens = torch.randint(len(SPECIAL), SHAPES[name].vocab_size, size, generator=generator)
    return [" ".join(f"w{token}" for token in article) for article in tokens.tolist()]
