"""Who is alone reads with all cores; who has company keeps to one; a search always does."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from app.engine.cores import Cores


class Reader(nn.Module):
    """Notes the threads it may use."""

    def forward(self, _: Tensor) -> int:
        return torch.get_num_threads()


def threads(cores: Cores, reader: Reader) -> tuple[int, int]:
    """Torch's threads while an article is read, and after that."""
    return reader(torch.zeros(1)), torch.get_num_threads()


def test_a_batch_alone_reads_with_all_cores_and_then_gives_them_back() -> None:
    cores, reader = Cores(2), Reader()
    cores.lend(reader)
    with ThreadPoolExecutor(1) as pool, cores.batch():
        assert pool.submit(threads, cores, reader).result() == (2, 1)


def test_batches_together_have_a_core_each_until_one_is_done() -> None:
    cores, reader = Cores(2), Reader()
    cores.lend(reader)
    come, go = threading.Event(), threading.Event()

    def other() -> None:
        with cores.batch():
            come.set()
            go.wait()

    with ThreadPoolExecutor(2) as pool, cores.batch():
        company = pool.submit(other)
        come.wait()
        assert pool.submit(threads, cores, reader).result() == (1, 1)
        go.set()
        company.result()
        assert pool.submit(threads, cores, reader).result() == (2, 1)


def test_cores_come_back_from_a_batch_that_failed() -> None:
    class Broken(nn.Module):
        def forward(self) -> None:
            raise RuntimeError

    cores, reader, broken = Cores(2), Reader(), Broken()
    cores.lend(reader)
    cores.lend(broken)

    def fail() -> int:
        with pytest.raises(RuntimeError), cores.batch():
            broken()
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fail).result() == 1
        with cores.batch():
            assert pool.submit(threads, cores, reader).result() == (2, 1)


def test_with_one_worker_torch_keeps_its_threads() -> None:
    cores, reader = Cores(1), Reader()
    cores.lend(reader)
    before = torch.get_num_threads()
    with cores.batch():
        assert threads(cores, reader) == (before, before)
