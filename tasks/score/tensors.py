"""Arrays of numpy or torch that functions of a score are given, as tensors, and results as what was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import numpy as np
import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"

Kind = TypeVar("Kind", np.ndarray, torch.Tensor)
"""What is given is what comes back."""


def as_tensor(name: str, array: Array, dims: int) -> torch.Tensor:
    """Returns `array` as a tensor of real floating point numbers; shared memory where that can be.

    Raises:
        ValueError: It is no array of `dims` dimensions, or not of real numbers.
    """
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"`{name}` is of {array.dtype}; it must be of real numbers")
        # torch shares neither read-only memory (it warns) nor reversed or foreign-endian arrays (it refuses).
        sound = array.flags.writeable and all(s >= 0 for s in array.strides) and array.dtype.isnative
        array = torch.from_numpy(array if sound else array.astype(array.dtype.newbyteorder("="), order="C", copy=True))
    if not isinstance(array, torch.Tensor):
        raise ValueError(f"`{name}` is {type(array).__name__}; it must be a numpy array or a torch tensor")
    if array.ndim != dims:
        raise ValueError(f"`{name}` has shape {tuple(array.shape)}; it must have {dims} dimensions")
    if array.is_complex() or array.dtype == torch.bool:
        raise ValueError(f"`{name}` is of {array.dtype}; it must be of real numbers")
    return array if array.is_floating_point() else array.double()


def as_logits(logits: Array) -> torch.Tensor:
    """Returns logits as a tensor `(B, N, V)`.

    Raises:
        ValueError: They are not of that shape, or not real numbers.
    """
    return as_tensor("logits", logits, 3)


def kept_rows(mask: Array | None, logits: torch.Tensor) -> Sequence[torch.Tensor | None]:
    """Returns for each of B samples the positions, int64, that `mask`, bool `(B, N)`, leaves; None where it is all.

    Raises:
        ValueError: It is of another shape or not of bools.
    """
    if mask is None:
        return [None] * len(logits)
    found = torch.as_tensor(np.array(mask) if isinstance(mask, np.ndarray) else mask)
    if found.dtype != torch.bool or found.shape != logits.shape[:2]:
        raise ValueError(
            f"`mask` is {found.dtype} of shape {tuple(found.shape)}; it must be bool of {tuple(logits.shape[:2])}"
        )
    return [None if bool(row.all()) else row.nonzero()[:, 0].to(logits.device) for row in found]


def exact_device(tensor: torch.Tensor) -> torch.device:
    """Where float64 arithmetic on `tensor` can be done: its device, but the CPU for one that has no float64."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def as_kind(found: torch.Tensor, given: Kind, like: torch.Tensor) -> Kind:
    """Returns `found` as numpy or torch, as `given` is; float64 if `like` is, else float32, and on its device."""
    found = found.to(torch.float64 if like.dtype == torch.float64 else torch.float32).to(like.device)
    return found.numpy() if isinstance(given, np.ndarray) else found


def has_float32() -> bool:
    """Whether torch makes float32 products of matrices of all their bits: no TF32, no bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # a backend was told its own precision, which the question for all of them does not know
        return False


def whole_spans(tensor: torch.Tensor, span: int) -> torch.Tensor:
    """Returns `tensor` with zeros added along its last side, where needed, to a multiple of `span` numbers."""
    lacking = -tensor.shape[-1] % span
    # torch would copy where it has nothing to add
    return torch.nn.functional.pad(tensor, (0, lacking)) if lacking else tensor


@contextmanager
def full_precision(tensor: torch.Tensor) -> Iterator[None]:
    """Within it no autocast makes products of lower precision than their factors'."""
    with torch.autocast(tensor.device.type, enabled=False):
        yield
