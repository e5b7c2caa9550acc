"""What the machine can do at most, and how much of it the encoder does."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.5
SHAPES = ((512, 512, 2048), (1024, 1024, 1024), (2048, 1024, 4096))  # rows, in, out


def product_peak(*, dtype: torch.dtype, device: torch.device, workers: int) -> float:
    """The best rate of `linear` over some shapes, FLOP/s, on all workers together."""
    shapes = SHAPES if device.type == "cpu" else ((8192, 4096, 4096),)
    return max(_rate(shape, dtype, device, workers) for shape in shapes)


def _rate(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, workers: int) -> float:
    with ThreadPoolExecutor(workers, initializer=_one_thread, initargs=(device, workers)) as pool:
        return sum(pool.map(lambda _: _rate_of_one(shape, dtype, device), range(workers)))


def _one_thread(device: torch.device, workers: int) -> None:
    if device.type == "cpu" and workers > 1:
        torch.set_num_threads(1)


@torch.inference_mode()
def _rate_of_one(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    rows, width, out = shape
    left = torch.randn(rows, width, dtype=dtype, device=device)
    right = torch.randn(out, width, dtype=dtype, device=device)
    torch.nn.functional.linear(left, right)
    products, began = 0, perf_counter()
    while perf_counter() - began < SECONDS:
        torch.nn.functional.linear(left, right)
        products += 1
        if device.type == "cuda" and products % 100 == 0:
            torch.cuda.synchronize(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 2 * rows * width * out * products / (perf_counter() - began)


@torch.inference_mode()
def encoder_work(encoder: torch.nn.Module, articles: list[tuple[int, ...]], device: torch.device) -> int:
    """The FLOP of encoding these articles, each at its own length."""
    work = 0
    for length in {len(article) for article in articles}:
        with FlopCounterMode(display=False) as counter:
            encoder(input_ids=torch.ones(1, length, dtype=torch.long, device=device))
        work += counter.get_total_flops() * sum(len(article) == length for article in articles)
    return work
