"""What is particular to a family: how it attends, how long an article it takes, what it keeps between articles."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BigBirdConfig, GPT2Config, PreTrainedModel, RobertaConfig, T5Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from app.engine import attention
from app.engine.attention import FoldedCrossAttention
from app.engine.decoder import group_beams, is_grouped
from app.engine.decoding import Decoding
from app.engine.engine import Engine
from app.engine.linears import can_lay_out, lay_out
from app.engine.load import _positions
from tests.engine import models
from tests.engine.models import FAMILIES, build
from tests.engine.test_same_as_generate import FEW_LENGTHS, articles, configured, fast, one_by_one, references, written

LONG = ["pegasus-x", "led", "longt5, local", "longt5, global", "bigbird-pegasus"]
REPEATED = {"prophetnet"}  # whose decoder attends in a way of its own


def engine(model: PreTrainedModel) -> Engine:
    return Engine(model, Decoding.of(configured(model, {"num_beams": 4}, tokens=8)))


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_share_an_articles_keys(family: str) -> None:
    assert is_grouped(fast(family)) == (family not in REPEATED)


@pytest.mark.parametrize("family", sorted(REPEATED))
def test_what_a_class_says_of_its_attention_is_not_believed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family)
    monkeypatch.setattr(type(model), "_supports_sdpa", True)
    group_beams(model)
    assert not is_grouped(model)


def without_mask(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    return sdpa_attention_forward(module, query, key, value, None, **options)


def to_another_article(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    shift = 1 if query.shape[2] > 1 else 0
    return sdpa_attention_forward(module, query, key.roll(shift, 0), value.roll(shift, 0), mask, **options)


def without_cap(*inputs: Any, softcap: float, _whole: Any = attention._capped_attention, **options: Any) -> Any:
    return _whole(*inputs, softcap=1000.0, **options)


@pytest.mark.parametrize(
    ("family", "name", "broken"),
    [
        ("bart", "sdpa_attention_forward", without_mask),
        ("t5", "sdpa_attention_forward", to_another_article),
        ("t5gemma", "_capped_attention", without_cap),
    ],
)
def test_keys_are_not_shared_where_that_changes_the_logits(
    family: str, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(family)
    monkeypatch.setattr(attention, name, broken)
    group_beams(model)
    assert not is_grouped(model)


def test_a_cross_attention_that_cannot_be_folded_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_mask(*inputs: Any, attention_mask: Any, **rest: Any) -> Any:
        return whole(*inputs, attention_mask=None, **rest)

    whole = FoldedCrossAttention.forward

    model = build("led")
    monkeypatch.setattr(FoldedCrossAttention, "forward", forget_mask)
    group_beams(model)
    assert not is_grouped(model)
    assert not any(isinstance(module, FoldedCrossAttention) for module in model.modules())


def test_a_token_that_is_never_written_hides_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def built() -> PreTrainedModel:
        model = build("bart")
        model.final_logits_bias[0, 5] = -torch.inf
        group_beams(model)
        return model

    assert is_grouped(built())
    monkeypatch.setattr(attention, "sdpa_attention_forward", without_mask)
    assert not is_grouped(built())


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"bigbird-pegasus"}))
def test_articles_padded_together_are_encoded_as_alone(family: str) -> None:
    """As on a card, where they are encoded together."""
    encoder = engine(build(family))._encoder
    with torch.inference_mode():
        alone, mask = encoder.encode(articles())
        encoder._unpadded = False
        together, _ = encoder.encode(articles())
    assert mask is not None
    torch.testing.assert_close(together[mask.bool()], alone[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bart", {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "forced_bos_token_id": 2}),
        ("mbart", {"num_beams": 5, "forced_bos_token_id": 7, "forced_eos_token_id": 2}),
        ("m2m-100", {"num_beams": 5, "forced_bos_token_id": 7, "early_stopping": True}),
        ("marian", {"num_beams": 6, "bad_words_ids": [[2]], "renormalize_logits": True, "forced_eos_token_id": 0}),
        ("bert2bert", {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "early_stopping": True}),
    ],
)
def test_decoded_as_checkpoints_of_the_family_ask(family: str, options: dict[str, Any]) -> None:
    plain, batch = build(family), articles(FEW_LENGTHS)
    config = configured(plain, {**options, "min_length": 5, "max_length": 14})
    assert written(Engine(fast(family), Decoding.of(config)), batch) == references(plain, config, batch)


@pytest.mark.parametrize("family", LONG)
def test_articles_of_more_than_4096_tokens(family: str) -> None:
    whole, batch = engine(fast(family)), articles((4100, 300, 4096))
    assert written(whole, batch) == one_by_one(family, configured(build(family), {"num_beams": 4}, tokens=8), batch)


@pytest.mark.parametrize(("encoder", "decoder"), [(BertConfig, GPT2Config), (BigBirdConfig, RobertaConfig)])
def test_an_encoder_and_a_decoder_of_different_families(encoder: Any, decoder: Any) -> None:
    config = models.of_two_parts(encoder, decoder, start=2, pad=0, eos=1)
    plain, batch = models.of(config), articles((37, 90, 37))
    decoding = configured(plain, {"num_beams": 4}, tokens=8)
    expected = [references(models.of(config), decoding, [article])[0] for article in batch]
    group_beams(plain)
    assert is_grouped(plain)
    assert written(Engine(plain, Decoding.of(decoding)), batch) == expected


def test_a_decoder_may_be_deeper_than_its_encoder() -> None:
    """generate() of transformers 5.24 fails there, but for its way without a cache."""
    model = models.of(T5Config(**{**models.T5, "num_decoder_layers": 3}))
    config, batch = configured(model, {"num_beams": 4, "use_cache": False}, tokens=8), articles(FEW_LENGTHS)
    expected = references(model, config, batch)
    group_beams(model)
    assert written(Engine(model, Decoding.of(config)), batch) == expected


def test_led_sees_what_its_first_token_says_everywhere() -> None:
    batch = [[first, *articles((60,))[0]] for first in (10, 11)]
    encoder = engine(build("led"))._encoder
    with torch.inference_mode():
        one, other = encoder.encode(batch)[0]
    assert not torch.equal(one[-1], other[-1])  # 60 tokens are more than two layers' windows reach


def test_bigbird_forgets_the_lengths_it_has_read() -> None:
    """transformers' own attends in full to all articles that come after its first short one."""
    whole, batch = engine(fast("bigbird-pegasus")), articles((90, 5, 36, 37, 80))
    expected = one_by_one("bigbird-pegasus", configured(build("bigbird-pegasus"), {"num_beams": 4}, tokens=8), batch)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda article: written(whole, [article])[0], batch * 4))
    assert found == expected * 4


def test_bigbirds_two_ways_of_reading_have_one_copy_of_the_weights() -> None:
    encoder = engine(fast("bigbird-pegasus"))._encoder
    sparse, full = list(encoder._encoder.parameters()), list(encoder._full.parameters())
    assert encoder._full is not encoder._encoder
    assert {weight.data_ptr() for weight in sparse} == {weight.data_ptr() for weight in full}


@pytest.mark.parametrize("family", FAMILIES)
def test_with_weights_laid_out_the_tokens_are_the_same(family: str) -> None:
    model = fast(family)
    if not can_lay_out():
        pytest.skip("not on this processor")
    config, batch = configured(model, {"num_beams": 4}, tokens=8), articles(FEW_LENGTHS)
    expected = one_by_one(family, config, batch)
    lay_out(model, "float32")
    assert written(Engine(model, Decoding.of(config)), batch) == expected


@pytest.mark.parametrize(
    ("family", "longest", "written"),
    [
        ("t5", None, None),
        ("bart", 128, 128),
        ("led", 8192, 128),
        ("bigbird-pegasus", 8192, 8192),
        ("bert2bert", 128, 128),
        ("roberta2roberta", 126, 126),  # its positions are counted from the padding's
        ("prophetnet", 126, 126),
        ("t5gemma", 8192, 8192),
    ],
)
def test_how_many_tokens_a_family_can_place(family: str, longest: int | None, written: int | None) -> None:
    config = build(family).config
    assert (_positions(config, "encoder"), _positions(config, "decoder")) == (longest, written)


@pytest.mark.parametrize("family", ["bart", "bert2bert", "roberta2roberta", "prophetnet", "marian", "m2m-100"])
def test_the_longest_article_and_headline_fit(family: str) -> None:
    model = fast(family)
    longest, most = _positions(model.config, "encoder"), _positions(model.config, "decoder")
    assert longest is not None
    assert most is not None
    config = configured(model, {"num_beams": 2, "min_new_tokens": most - 1}, tokens=most - 1)
    batch = articles((longest,))
    assert written(Engine(model, Decoding.of(config)), batch) == references(build(family), config, batch)
