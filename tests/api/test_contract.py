"""The OpenAPI document against the application behind it: whatever it allows is answered as it says."""

import threading
from collections.abc import Iterator

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.api.server import create_app
from app.serving.metrics import Metrics
from app.serving.service import HeadlineService
from app.settings import Settings
from tests.fakes import FakeEngine, fake_model


@pytest.fixture(scope="module")
def contract() -> Iterator[schemathesis.BaseSchema]:
    """The document of an application that listens, with a model that answers at once."""
    metrics = Metrics()
    service = HeadlineService(fake_model(FakeEngine()), metrics, max_batch_tokens=8192, max_waiting=64)
    config = uvicorn.Config(create_app(Settings(), service, metrics), port=0, log_level="critical")
    server = Listening(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.listens.wait(30)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    finally:
        server.should_exit = True
        thread.join()


class Listening(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets=None) -> None:  # type: ignore[no-untyped-def]
        await super().startup(sockets)
        self.listens.set()


def test_every_answer_is_as_the_document_says(contract: schemathesis.BaseSchema) -> None:
    operations = [result.ok() for result in contract.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:
        modes = schemathesis.GenerationMode if operation.body else [schemathesis.GenerationMode.POSITIVE]
        for mode in modes:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
            def check(case: schemathesis.Case) -> None:
                # A limit of 1 ms is rightly answered with 504, an article of blanks or markup alone with 422.
                answer = case.call_and_validate(excluded_checks=[not_a_server_error, positive_data_acceptance])
                assert answer.status_code != 500

            check()
