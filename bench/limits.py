"""A running service at its limits: how little it does when idle, how fast it refuses, and whether its memory grows."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.load import drive

IDLE_SECONDS = 20.0
SETTLING_SECONDS = 3.0  # behind the load: what is held then is held for good
REFUSALS = 100
CLIENTS = 16


@dataclass(frozen=True)
class Limits:
    idle_cores: float
    refusal_seconds: float | None  # None: nothing was refused, the queue was never full
    retry_after: str | None
    memory_idle: float  # bytes
    memory_early: float  # after a tenth of the requests
    memory_late: float


async def measure(url: str, articles: Sequence[str], *, requests: int, key: str | None = None) -> Limits:
    """Idle time, refusals by a full queue while the model is busy, and memory over `requests` requests."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, headers=headers, limits=limits, trust_env=False) as http:
        before = await _metric(http, "process_cpu_seconds_total")
        await asyncio.sleep(IDLE_SECONDS)
        idle = (await _metric(http, "process_cpu_seconds_total") - before) / IDLE_SECONDS
        memory_idle = await _metric(http, "process_resident_memory_bytes")
        await drive(url, articles, clients=CLIENTS, requests=requests // 10, key=key)
        await asyncio.sleep(SETTLING_SECONDS)
        memory_early = await _metric(http, "process_resident_memory_bytes")
        await drive(url, articles, clients=CLIENTS, requests=requests - requests // 10, key=key)
        await asyncio.sleep(SETTLING_SECONDS)
        memory_late = await _metric(http, "process_resident_memory_bytes")
        refusal, retry_after = await _refusals(http, articles)
    return Limits(idle, refusal, retry_after, memory_idle, memory_early, memory_late)


async def _refusals(http: httpx.AsyncClient, articles: Sequence[str]) -> tuple[float | None, str | None]:
    """The median time of a 429 while others keep the queue full."""
    full = [asyncio.create_task(_keep_asking(http, article)) for article in articles]
    seconds, retry_after = [], None
    for _ in range(REFUSALS * 4):
        began = perf_counter()
        answer = await http.post("/headline", json={"text": articles[0]}, headers={"X-Request-Timeout-Ms": "2000"})
        if answer.status_code == 429:
            seconds.append(perf_counter() - began)
            retry_after = answer.headers["Retry-After"]
        if len(seconds) == REFUSALS:
            break
        await asyncio.sleep(0.02)
    for task in full:
        task.cancel()
    await asyncio.gather(*full, return_exceptions=True)
    return (median(seconds) if seconds else None), retry_after


async def _keep_asking(http: httpx.AsyncClient, article: str) -> None:
    while True:
        answer = await http.post("/headline", json={"text": article})
        if answer.status_code == 429:
            await asyncio.sleep(0.5)  # somebody else is in the queue; stay out of the way


async def _metric(http: httpx.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return next(sample.value for sample in samples if sample.name == name)
