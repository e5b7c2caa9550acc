"""headline bench: runs the measurements and prints their tables."""

import asyncio
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSeq2SeqLM

from app.engine.load import LoadedModel, cores
from app.headlines.article import clean
from app.store.manifest import Manifest
from bench.engines import Comparison, Result, compare
from bench.limits import Limits, measure
from bench.load import Load, drive
from bench.peak import encoder_work, product_peak

REQUESTS_A_CLIENT = 12


def bench_engine(
    console: Console,
    model: LoadedModel,
    folder: Path,
    manifest: Manifest | None,
    texts: Sequence[str],
    *,
    rounds: int,
    batch: int,
    max_batch_tokens: int,
) -> Comparison:
    """The engine beside generate(), and its encoder beside the machine's peak."""
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=model.engine.dtype, use_safetensors=True)
    plain.to(model.engine.device).eval()
    plain.generation_config.update(**(manifest.decoding if manifest else {}))
    articles = [model.tokenizer.read(clean(text)).tokens for text in texts]
    with console.status("") as status:
        comparison = compare(
            model.engine,
            plain,
            articles,
            workers=model.workers,
            batch=batch,
            max_batch_tokens=max_batch_tokens,
            rounds=rounds,
            progress=status.update,
        )
        status.update("the machine's peak")
        peak = product_peak(dtype=model.engine.dtype, device=model.engine.device, workers=model.workers)
        work = encoder_work(plain.get_encoder(), articles, model.engine.device)
    console.print(_machine(model, articles))
    console.print(_engine_table(comparison, batch))
    console.print(f"the same headlines: {comparison.same} of {len(articles)}")
    rate = work * model.workers / comparison.encode_seconds
    console.print(
        f"encoder: {rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of the machine's {peak / 1e9:.0f} (linear, all cores)"
    )
    return comparison


def bench_service(
    console: Console, url: str, texts: Sequence[str], *, clients: Sequence[int], engine: Result | None, key: str | None
) -> list[Load]:
    """A running service at several numbers of clients; beside the engine's own rate where it was measured."""
    loads = []
    for number in clients:
        with console.status(f"{number} clients"):
            requests = max(len(texts), REQUESTS_A_CLIENT * number)
            loads.append(asyncio.run(drive(url, texts, clients=number, requests=requests, key=key)))
    table = Table("clients", "requests", "articles/s", "p50 ms", "p95 ms", "p99 ms", "of the engine's rate")
    for load in loads:
        share = f"{load.rate / engine.rate:.0%}" if engine else "-"
        percentiles = [f"{load.percentile(percent) * 1000:.0f}" for percent in (50, 95, 99)]
        table.add_row(str(load.clients), str(load.requests), f"{load.rate:.2f}", *percentiles, share)
    console.print(table)
    return loads


def bench_limits(console: Console, url: str, texts: Sequence[str], *, requests: int, key: str | None) -> Limits:
    """What a running service does when idle and when full, and its memory over many requests."""
    with console.status("idling, then working"):
        limits = asyncio.run(measure(url, texts, requests=requests, key=key))
    refused = "never" if limits.refusal_seconds is None else f"{limits.refusal_seconds * 1000:.1f} ms at the median"
    growth = limits.memory_late / limits.memory_early - 1
    console.print(f"idle: {limits.idle_cores:.2%} of a core, {limits.memory_idle / 1e6:.0f} MB resident")
    console.print(f"queue full: refused in {refused}, Retry-After {limits.retry_after}")
    console.print(
        f"memory: {limits.memory_early / 1e6:.0f} MB after {requests // 10} requests, "
        f"{limits.memory_late / 1e6:.0f} MB after {requests} ({growth:+.1%})"
    )
    return limits


def _machine(model: LoadedModel, articles: Sequence[Sequence[int]]) -> str:
    info = model.info
    tokens = sum(map(len, articles)) / len(articles)
    return (
        f"{info.name}@{info.version}, {info.dtype} on {info.device}, {cores()} cores, {model.workers} workers; "
        f"{len(articles)} articles of {tokens:.0f} tokens at the mean; beam {model.engine.decoding.num_beams}; "
        f"{_processor()}; torch {torch.__version__}, transformers {transformers.__version__}"
    )


def _engine_table(comparison: Comparison, batch: int) -> Table:
    table = Table("", "articles/s", "least", "most", "engine is faster", "one alone, p50 ms")
    for result in (comparison.engine, comparison.as_they_come, comparison.by_length):
        ratios = [ours / theirs for ours, theirs in zip(comparison.engine.rates, result.rates, strict=True)]
        faster = "" if result is comparison.engine else f"{median(ratios):.2f}x"
        alone = f"{median(result.latencies) * 1000:.0f}" if result.latencies else "-"
        name = result.name if result is comparison.engine else f"{result.name}, batches of {batch}"
        table.add_row(
            name, *(f"{rate:.2f}" for rate in (result.rate, min(result.rates), max(result.rates))), faster, alone
        )
    return table


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
