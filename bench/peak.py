"""What the machine can do at most, and how much of it the encoder does."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from app.engine.linears import BFloat16Linear, Int8Linear, PackedLinear, can_lay_out

SECONDS = 0.5
SHAPES = ((512, 512, 2048), (1024, 1024, 1024), (2048, 1024, 4096))  # rows, in, out


def product_peak(precision: str, *, device: torch.device, workers: int) -> float:
    """The best rate over some shapes and kinds of products in that precision, FLOP/s, on all workers together."""
    shapes = SHAPES if device.type == "cpu" else ((8192, 4096, 4096),)
    return max(
        _rate(product, device, workers, 2 * math.prod(shape))
        for shape in shapes
        for product in _products(precision, shape, device)
    )


@torch.inference_mode()
def _products(precision: str, shape: tuple[int, int, int], device: torch.device) -> list[Callable[[], Tensor]]:
    rows, width, out = shape
    layer = torch.nn.Linear(width, out, bias=False)
    given = torch.randn(rows, width)
    if precision == "int8":
        packed = Int8Linear(layer)._packed
        return [lambda: torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(given, 0.02, 128, packed)]
    dtype = getattr(torch, precision)
    left, right = given.to(device, dtype), layer.weight.to(device, dtype)
    products: list[Callable[[], Tensor]] = [lambda: torch.nn.functional.linear(left, right)]
    if device.type == "cpu" and can_lay_out() and precision in ("float32", "bfloat16"):
        laid_out = PackedLinear(layer) if precision == "float32" else BFloat16Linear(layer)
        products.append(lambda: laid_out(left))
    return products


def _rate(product: Callable[[], Tensor], device: torch.device, workers: int, work: int) -> float:
    with ThreadPoolExecutor(workers, initializer=_one_thread, initargs=(device, workers)) as pool:
        return sum(pool.map(lambda _: _rate_of_one(product, device, work), range(workers)))


def _one_thread(device: torch.device, workers: int) -> None:
    if device.type == "cpu" and workers > 1:
        torch.set_num_threads(1)


@torch.inference_mode()
def _rate_of_one(product: Callable[[], Tensor], device: torch.device, work: int) -> float:
    product()
    products, began = 0, perf_counter()
    while perf_counter() - began < SECONDS:
        product()
        products += 1
        if device.type == "cuda" and products % 100 == 0:
            torch.cuda.synchronize(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return work * products / (perf_counter() - began)


@torch.inference_mode()
def encoder_work(encoder: torch.nn.Module, articles: list[tuple[int, ...]], device: torch.device) -> int:
    """The FLOP of encoding these articles, each at its own length."""
    work = 0
    for length in {len(article) for article in articles}:
        with FlopCounterMode(display=False) as counter:
            encoder(input_ids=torch.ones(1, length, dtype=torch.long, device=device))
        work += counter.get_total_flops() * sum(len(article) == length for article in articles)
    return work
