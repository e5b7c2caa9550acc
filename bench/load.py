"""A running service under closed-loop load: each client sends its next article when it has the answer to the last."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from time import perf_counter

import httpx


class LoadError(Exception):
    """The service did not answer as it should."""


@dataclass(frozen=True)
class Load:
    """What `clients` clients saw; seconds."""

    clients: int
    requests: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def percentile(self, percent: int) -> float:
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


async def drive(url: str, articles: Sequence[str], *, clients: int, requests: int, key: str | None = None) -> Load:
    """Send `requests` articles with `clients` clients. Raises LoadError at the first answer that is not 200."""
    latencies: list[float] = []
    waiting = iter(article for article, _ in zip(cycle(articles), range(requests), strict=False))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, headers=headers, trust_env=False) as http:
        began = perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(_client(http, waiting, latencies))
        except* (httpx.HTTPError, LoadError) as errors:
            first = errors.exceptions[0]
            raise LoadError(f"{url}: {str(first) or type(first).__name__}") from first
    return Load(clients, len(latencies), perf_counter() - began, latencies)


async def _client(http: httpx.AsyncClient, waiting: Iterator[str], latencies: list[float]) -> None:
    for article in waiting:
        began = perf_counter()
        answer = await http.post("/headline", json={"text": article})
        if answer.status_code != 200:
            raise LoadError(f"{answer.status_code}: {answer.text[:200]}")
        latencies.append(perf_counter() - began)
