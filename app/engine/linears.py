"""Linear layers as a CPU multiplies them fastest: those that read the same rows as one, laid out once, in float32,
bfloat16 or int8.

The model stays transformers' own: only its `torch.nn.Linear` are replaced, and it can be run after that, not saved or
trained. Which layers share their rows is seen in a trial run, not read from their names.
"""

import os
import platform
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import groupby

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.engine.decoder import Decoder, is_grouped
from app.engine.encoder import Encoder

ROWS = 512  # for which oneDNN chooses its layout; it serves any number
WIDE = 8192  # outputs from which oneDNN's layout pays without AVX-512
WEIGHT_STEPS, ROW_STEPS = 63, 127  # weights in 7 bits: without VNNI the sum of two products has to fit in 16
TINY = 1e-12

Build = Callable[[nn.Linear], nn.Module]


def can_lay_out() -> bool:
    """Whether the layers here can run: on an x86 processor, with a torch that has oneDNN and FBGEMM."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return (
        platform.machine().lower() in {"x86_64", "amd64"}
        and has_onednn
        and "fbgemm" in torch.backends.quantized.supported_engines
    )


def multiplies_bfloat16() -> bool:
    """Whether this processor has matrix products in bfloat16 of its own."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def lay_out(model: PreTrainedModel, precision: str) -> None:
    """Replace every linear layer below `model` by one that multiplies in `precision`: float32, bfloat16 or int8.

    In bfloat16 the output layer stays in float32, and with it the scores.
    """
    # oneDNN keeps a kernel for every number of rows it meets, 1024 of them: 50 MB, and no faster than with 64.
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    build = LAYOUTS[precision]
    output = model.get_output_embeddings()
    replacements: dict[nn.Module, nn.Module] = {}
    for linears in _groups(model):
        of_scores = precision == "bfloat16" and output in linears
        replacements |= zip(linears, _joined(linears, in_float32 if of_scores else build), strict=True)
    _replace(model, replacements)


class _Linear(nn.Module):
    """What families look up in a linear layer; its weights themselves are let go."""

    weight: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.register_buffer("weight", linear.weight.detach().new_empty(0, dtype=dtype), persistent=False)


class PackedLinear(_Linear):
    """The same sums in another order, with weights as oneDNN wants them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._packed = _packed(linear.weight.detach())

    def forward(self, rows: Tensor) -> Tensor:
        return _product(rows, self._packed, self._bias)


class BFloat16Linear(_Linear):
    """Rows of any type times weights in bfloat16, in bfloat16: what is added to float32 behind it is float32 again."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, torch.bfloat16)
        weight = linear.weight.detach().bfloat16()
        self._has_products: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self._laid_out = _packed(weight) if self._has_products else weight

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.bfloat16()
        if self._has_products:
            return _product(rows, self._laid_out, self._bias)
        return nn.functional.linear(rows, self._laid_out, self._bias)  # slow, for tests


class Int8Linear(_Linear):
    """Weights in 7 bits with a scale for each output, rows in 8 bits with a scale for each row; both symmetric.

    So what becomes of a row never depends on its company.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        scales = weight.abs().amax(1).clamp(min=TINY).double() / WEIGHT_STEPS
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*quantized tensor creation functions", UserWarning)
            quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantised, None)

    def forward(self, rows: Tensor) -> Tensor:
        largest = rows.abs().amax(-1, keepdim=True).clamp_(min=TINY)
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / ROW_STEPS, ROW_STEPS + 1, self._packed
        )
        return product.mul_(largest) if self._bias is None else torch.addcmul(self._bias, product, largest)


def in_float32(linear: nn.Linear) -> nn.Module:
    """Laid out for oneDNN where that is faster than torch's own (MKL, which knows no AVX-512 on processors of AMD)."""
    pays = torch.cpu.get_capabilities()["avx512_f"] or linear.out_features >= WIDE
    return PackedLinear(linear) if pays else linear


LAYOUTS: Mapping[str, Build] = {"float32": in_float32, "bfloat16": BFloat16Linear, "int8": Int8Linear}


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return packed


def _product(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product


class _Siblings:
    """Several linear layers over the same rows as one product, which the first of them to be called computes."""

    def __init__(self, linears: list[nn.Linear], build: Build) -> None:
        self._product = build(_stacked(linears))
        self._widths = [linear.out_features for linear in linears]
        self._last = threading.local()

    def part(self, rows: Tensor, place: int) -> Tensor:
        """What the layer at `place` makes of `rows`."""
        if getattr(self._last, "rows", None) is not rows:
            self._last.rows, self._last.parts = rows, self._product(rows).split(self._widths, -1)
        part: Tensor = self._last.parts[place]
        if place == len(self._widths) - 1:
            del self._last.rows, self._last.parts
        return part


class SiblingLinear(_Linear):
    """One of several linear layers over the same rows."""

    def __init__(self, linear: nn.Linear, siblings: _Siblings, place: int) -> None:
        super().__init__(linear)
        self._siblings, self._place = siblings, place

    def forward(self, rows: Tensor) -> Tensor:
        return self._siblings.part(rows, self._place)


def _joined(linears: list[nn.Linear], build: Build) -> list[nn.Module]:
    if len(linears) == 1:
        return [build(linears[0])]
    siblings = _Siblings(linears, build)
    return [SiblingLinear(linear, siblings, place) for place, linear in enumerate(linears)]


@torch.no_grad()
def _stacked(linears: list[nn.Linear]) -> nn.Linear:
    has_bias = any(linear.bias is not None for linear in linears)
    stacked = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears), bias=has_bias)
    stacked.weight.copy_(torch.cat([linear.weight.detach() for linear in linears]))
    if has_bias:
        stacked.bias.copy_(torch.cat([_bias_of(linear) for linear in linears]))
    return stacked


def _bias_of(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def _groups(model: PreTrainedModel) -> list[list[nn.Linear]]:
    """All linear layers, those together that a trial run sees read the same rows one after the other."""
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    read: list[tuple[nn.Linear, Tensor]] = []  # the rows are kept, so that no two of them ever are at one address
    hooks = [
        linear.register_forward_pre_hook(lambda layer, given: read.append((layer, given[0]))) for linear in linears
    ]
    _try_out(model)
    for hook in hooks:
        hook.remove()
    calls = Counter(linear for linear, _ in read)
    together = [[linear for linear, _ in group] for _, group in groupby(read, key=lambda call: id(call[1]))]
    groups = [group for group in together if len(group) > 1 and all(calls[linear] == 1 for linear in group)]
    grouped = {linear for group in groups for linear in group}
    return groups + [[linear] for linear in linears if linear not in grouped]


@torch.inference_mode()
def _try_out(model: PreTrainedModel) -> None:
    memory, mask = Encoder(model).encode([[3, 4, 5]])
    Decoder(model, memory, mask, grouped=is_grouped(model)).step(torch.tensor([3]))


def _replace(module: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    for name, child in module.named_children():
        if child in replacements:
            setattr(module, name, replacements[child])
        else:
            _replace(child, replacements)
