"""headline bench: runs the measurements and prints their tables."""

import asyncio
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from app.engine.load import LoadedModel, cores
from app.headlines.article import clean
from app.store.manifest import Manifest
from bench.ctranslate import CannotConvert, Translator, convert
from bench.engines import Comparison, Result, Tokens, Way, compare, generate_ways
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
    """The engine beside generate() and CTranslate2, and its encoder beside the machine's peak."""
    device = model.engine.device
    dtype = torch.float32 if model.info.dtype == "int8" else getattr(torch, model.info.dtype)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    plain.to(device).eval()
    plain.generation_config.update(**(manifest.decoding if manifest else {}))
    articles = [model.tokenizer.read(clean(text)).tokens for text in texts]
    machine_cores = cores() if device.type == "cpu" else 1
    with console.status("") as status, TemporaryDirectory() as converted:
        rivals = generate_ways(model.engine, plain, batch=batch, cores=machine_cores)
        if device.type == "cpu":
            rivals += _ctranslate2(console, model, folder, Path(converted) / "model", articles, status.update)
        comparison = compare(
            model.engine,
            rivals,
            articles,
            workers=model.workers,
            max_batch_tokens=max_batch_tokens,
            rounds=rounds,
            progress=status.update,
        )
        status.update("the machine's peak")
        peak = product_peak(model.info.dtype, device=device, workers=model.workers)
        work = encoder_work(plain.get_encoder(), articles, device)
    console.print(_machine(model, articles))
    console.print(_engine_table(comparison))
    rate = work * model.workers / comparison.encode_seconds
    console.print(
        f"encoder: {rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of the machine's {peak / 1e9:.0f} "
        f"(products in {model.info.dtype}, all cores)"
    )
    return comparison


def _ctranslate2(
    console: Console,
    model: LoadedModel,
    folder: Path,
    converted: Path,
    articles: Sequence[Tokens],
    progress: Callable[[str], None],
) -> list[Way]:
    """CTranslate2 in float32 and int8; none where it does not know the kind of model."""
    ways = []
    try:
        convert(folder, converted)
    except CannotConvert as error:
        console.print(f"without CTranslate2: {error}")
        return []
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for precision in ("float32", "int8"):
        progress(f"CTranslate2's best settings in {precision}")
        translator = Translator(converted, precision, tokenizer, model.engine.decoding)
        translator.tune(articles, cores=cores())
        console.print(f"CTranslate2 {precision} is quickest with {translator.setting}")
        ways.append(Way(f"CTranslate2 {precision}", translator.write, translator.write_one))
    return ways


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


def _engine_table(comparison: Comparison) -> Table:
    table = Table("", "articles/s", "least", "most", "engine faster", "alone, p50 ms", "same")
    for result in (comparison.engine, *comparison.rivals):
        ratios = [ours / theirs for ours, theirs in zip(comparison.engine.rates, result.rates, strict=True)]
        is_ours = result is comparison.engine
        table.add_row(
            result.name,
            *(f"{rate:.2f}" for rate in (result.rate, min(result.rates), max(result.rates))),
            "" if is_ours else f"{median(ratios):.2f}x",
            f"{median(result.latencies) * 1000:.0f}" if result.latencies else "-",
            str(comparison.engine.same(result)),
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
