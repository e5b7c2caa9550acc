"""A CPU's cores among the batches that run at once: one each; a batch that is alone reads its articles with all."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Cores:
    """Two batches on a core each are faster than one after the other on two; one alone would leave a core idle.

    Only reading is shared: a step of the search is too small to gain by it. Who comes while another reads waits for
    none: from the next article on each has a core.
    """

    def __init__(self, number: int) -> None:
        """number: of batches that may run at once, and of cores."""
        self._number = number
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """While a batch runs."""
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def lend(self, encoder: nn.Module) -> None:
        """Have `encoder` take the cores that nobody else uses, from each article to the next."""
        if self._number > 1:
            encoder.register_forward_pre_hook(lambda *_: self._take())
            encoder.register_forward_hook(lambda *_: self._give(), always_call=True)

    def _take(self) -> None:
        torch.set_num_threads(self._number if self._running == 1 else 1)  # of the calling thread

    def _give(self) -> None:
        torch.set_num_threads(1)
