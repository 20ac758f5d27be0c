"""Digests that name what an output depends on: the same fingerprint, the same bytes."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

PACKAGES = ("flows", "tasks", "storage", "configs")


def digest(data: bytes | memoryview) -> str:
    """128-bit content digest, 32 hexadecimal digits."""
    return blake3(data).hexdigest(length=16)


def fingerprint(parts: dict[str, Any]) -> str:
    """32 hexadecimal digits over a JSON-ready dict, whatever the order of its keys."""
    return digest(json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=True).encode())


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, found without importing the packages."""
    return {name: importlib.metadata.version(name) for name in packages}


@cache
def source_digest(module: str) -> str:
    """Digest of a module's source and of every module of ours that it imports, directly or not.

    So a change to a kernel that a method calls gives new fingerprints, and one to its tests or docs does not.
    """
    seen: dict[str, str] = {}
    _collect(module, seen)
    return fingerprint(seen)


def _collect(module: str, seen: dict[str, str]) -> None:
    path = _source(module)
    if module in seen or path is None:
        return
    text = path.read_text(encoding="utf-8")
    seen[module] = digest(text.encode())
    for imported in _imports(ast.parse(text)):
        # The configuration tree is left out: what it says is in the fingerprint as values.
        if imported.split(".")[0] in PACKAGES and not imported.startswith("configs"):
            _collect(imported, seen)


def _source(module: str) -> Path | None:
    """The file of a module or package, found without importing it; None for a name inside a module."""
    package, *inner = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    if not spec.submodule_search_locations:
        return None if inner else Path(spec.origin)
    place = Path(spec.origin).parent.joinpath(*inner)
    candidates = (place.with_suffix(".py"), place / "__init__.py") if inner else (Path(spec.origin),)
    return next((path for path in candidates if path.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # a module, or a name in one
