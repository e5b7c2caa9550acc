"""Every Prometheus metric of the service, declared once: seconds, bytes and counts."""

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
GpuMemory = Callable[[], dict[str, int]]
REJECTIONS = ("queue_full", "deadline", "disconnected", "unauthorized", "too_large", "not_ready")


class Metrics:
    """One registry and what is in it; the batcher's observer."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("headline_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.request_duration = Histogram(
            "headline_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_duration = Histogram(
            "headline_queue_duration_seconds", "How long articles waited.", buckets=SECONDS, registry=registry
        )
        self.batch_duration = Histogram(
            "headline_batch_duration_seconds", "A batch's time.", ["stage"], buckets=SECONDS, registry=registry
        )
        self.batch_articles = Histogram(
            "headline_batch_articles", "Articles in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.batch_tokens = Histogram(
            "headline_batch_tokens",
            "Article tokens in a batch, without padding.",
            buckets=[2**power for power in range(6, 17)],
            registry=registry,
        )
        self.padding_tokens = Counter("headline_padding_tokens", "Tokens of padding in batches.", registry=registry)
        self.article_tokens = Histogram(
            "headline_article_tokens",
            "Tokens of an article before truncation.",
            buckets=(32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
            registry=registry,
        )
        self.generated_tokens = Counter(
            "headline_generated_tokens", "Tokens of the best candidates.", registry=registry
        )
        self.truncated_articles = Counter(
            "headline_truncated_articles", "Articles too long for the model.", registry=registry
        )
        self.unsupported_headlines = Counter(
            "headline_unsupported_headlines",
            "Answered headlines with names or numbers that their articles lack.",
            registry=registry,
        )
        self.waiting_requests = Gauge("headline_waiting_requests", "Articles that wait.", registry=registry)
        self.waiting_tokens = Gauge(
            "headline_waiting_tokens", "Tokens that wait, counted as MAX_BATCH_TOKENS counts.", registry=registry
        )
        self.running_requests = Gauge("headline_running_requests", "Articles in the model.", registry=registry)
        self.rejected = Counter("headline_rejected", "Requests turned away.", ["reason"], registry=registry)
        for reason in REJECTIONS:
            self.rejected.labels(reason)
        self.model_info = Gauge(
            "headline_model_info", "The loaded model.", ["name", "version", "device", "dtype"], registry=registry
        )
        self.model_ready = Gauge("headline_model_ready", "1 while requests are taken.", registry=registry)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)

    def watch_gpu_memory(self, read: GpuMemory) -> None:
        """Export `read()`, kinds of memory with their bytes, at each scrape."""
        gauge = Gauge("headline_gpu_memory_bytes", "GPU memory.", ["kind"], registry=self.registry)
        for kind in read():
            gauge.labels(kind).set_function(partial(_one_of, read, kind))

    # The batcher's observer
    def waiting(self, jobs: int, cost: int) -> None:
        self.waiting_requests.set(jobs)
        self.waiting_tokens.set(cost)

    def running(self, jobs: int) -> None:
        self.running_requests.set(jobs)

    def taken(self, waited: Sequence[float]) -> None:
        for seconds in waited:
            self.queue_duration.observe(seconds)


def _one_of(read: GpuMemory, kind: str) -> float:
    return read()[kind]
