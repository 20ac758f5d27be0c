"""What is done: one folder a stage, in the order data flows; one file a method, pure functions over arrays."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa


class Failure(NamedTuple):
    """One row that a method could not process: it ends in the quarantine, nothing else in its batch is touched."""

    row: int
    """Index of the row in the shard."""
    reason: str
    """A short fixed word, `undecodable_image` for one: reports count by it."""
    detail: str
    """What was seen, for the person who looks into it."""


class Result(NamedTuple):
    """What a per-shard method returns."""

    table: pa.Table
    """One row per input row, in order; nulls where a row failed."""
    failures: list[Failure]


def load(methods: Mapping[str, str], config: Any, **context: Any) -> Any:
    """Build the method that `config.kind` names.

    Args:
        methods: A stage's registry: kind -> `"module:Class"`, a string so that a plan imports no heavy library.
        config: The method's config model; becomes the first argument of the class.
        context: What else the method was promised, `state` of an earlier fit for one.
    """
    if config.kind not in methods:
        raise ValueError(f"`kind` is {config.kind!r}; known kinds: {', '.join(sorted(methods))}")
    module, name = methods[config.kind].split(":")
    return getattr(importlib.import_module(module), name)(config, **context)
