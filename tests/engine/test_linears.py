"""Layers that multiply faster give what `torch.nn.Linear` gives, exactly or as nearly as their precision allows."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.engine.decoder import group_beams
from app.engine.linears import BFloat16Linear, Int8Linear, PackedLinear, SiblingLinear, lay_out
from tests.engine.models import build


def linear(*, width: int = 48, out: int = 40, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(width, out, bias=bias)


def rows(*shape: int) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(shape)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer", "error"), [(PackedLinear, 1e-6), (BFloat16Linear, 0.01), (Int8Linear, 0.01)])
def test_the_product_is_as_near_as_the_precision_allows(layer: type[nn.Module], error: float, bias: bool) -> None:
    exact, given = linear(bias=bias), rows(2, 30, 48)
    found, expected = layer(exact)(given), exact(given)
    assert found.shape == expected.shape
    assert (found - expected).norm() < error * expected.norm()


@torch.inference_mode()
def test_in_int8_a_row_does_not_depend_on_its_company() -> None:
    layer, given = Int8Linear(linear()), rows(20, 48) * torch.logspace(-3, 3, 20)[:, None]
    assert torch.equal(layer(given), torch.cat([layer(row[None]) for row in given]))


@torch.inference_mode()
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_int8_sums_do_not_overflow(sign: int) -> None:
    exact = linear(width=512, bias=False)
    exact.weight.fill_(sign * 0.3)
    given = torch.full((3, 512), 5.0)
    torch.testing.assert_close(Int8Linear(exact)(given), exact(given))


@torch.inference_mode()
def test_a_row_of_zeros_in_int8_is_the_bias() -> None:
    exact = linear()
    assert torch.equal(Int8Linear(exact)(torch.zeros(1, 48))[0], exact.bias)


@pytest.mark.parametrize(
    ("family", "siblings"),
    [("bart", 2 * 3 + 2 * (3 + 2)), ("t5", 2 * 3 + 2 * (3 + 2)), ("pegasus", 2 * 3 + 2 * (3 + 2))],
)
def test_queries_keys_and_values_are_one_product(family: str, siblings: int) -> None:
    model = laid_out(family)
    assert sum(type(module) is SiblingLinear for module in model.modules()) == siblings


@torch.inference_mode()
def test_siblings_that_read_other_rows_than_in_the_trial_run() -> None:
    exact, attention = (
        build("bart").model.encoder.layers[0].self_attn,
        laid_out("bart").model.encoder.layers[0].self_attn,
    )
    one, other = rows(5, 32), rows(7, 32)
    for name, given in (("v_proj", one), ("q_proj", one), ("k_proj", other), ("q_proj", one), ("v_proj", other)):
        torch.testing.assert_close(getattr(attention, name)(given), getattr(exact, name)(given))


@torch.inference_mode()
def test_siblings_keep_nothing_of_a_batch() -> None:
    attention, given = laid_out("bart").model.encoder.layers[0].self_attn, rows(5, 32)
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(attention, name)(given)
    assert not vars(attention.q_proj._siblings._last)


def test_siblings_in_several_threads_at_once() -> None:
    model, exact = laid_out("bart").model.encoder, build("bart").model.encoder

    @torch.inference_mode()
    def same(seed: int) -> bool:
        tokens = torch.randint(3, 300, (1, 40), generator=torch.Generator().manual_seed(seed))
        expected = exact(input_ids=tokens).last_hidden_state
        return all(torch.allclose(model(input_ids=tokens).last_hidden_state, expected, atol=1e-4) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(4)))


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_output_layer_gives_scores_in_float32(precision: str) -> None:
    layer = laid_out("bart", precision).get_output_embeddings()
    assert layer(rows(3, 32)).dtype == torch.float32
    assert isinstance(layer, Int8Linear) == (precision == "int8")


def laid_out(family: str, precision: str = "float32") -> PreTrainedModel:
    model = build(family)
    group_beams(model)
    lay_out(model, precision)
    return model
