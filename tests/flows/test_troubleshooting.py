"""The catalogue is complete: every error teaches, every reason that the code can give is explained, docs have both."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.catalogue import all_reasons
from configs.errors import MixwrightError, catalogue
from flows.troubleshooting import markdown

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("configs", "flows", "storage", "tasks") for path in sorted((ROOT / name).rglob("*.py"))]
NAMED = {"Failure": 1, "Unusable": 0, "BadImage": 0, "_fail": 0}
"""Calls that take a reason, and the place of it among their arguments."""


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def given(tree: ast.AST) -> Iterator[str]:
    """Reasons that a module names outright."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            place = NAMED.get(getattr(node.func, "id", getattr(node.func, "attr", "")), len(node.args))
            if len(node.args) > place and isinstance(node.args[place], ast.Constant):
                yield node.args[place].value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0].value  # `decisions.reason[...] = "word"`
            if isinstance(target, ast.Attribute) and target.attr == "reason" and isinstance(node.value, ast.Constant):
                yield node.value.value


def test_every_reason_in_the_code_is_explained():
    found = {reason: path.name for path, tree in trees() for reason in given(tree)}
    assert len(found) > 15 and {r: where for r, where in found.items() if r not in all_reasons()} == {}


@pytest.mark.parametrize("member", list(catalogue()), ids=lambda member: member.__name__)
def test_every_error_says_when_it_is_raised_and_what_to_do(member):
    assert member.__doc__.startswith("Raised when ") and member.remedy.endswith((".", "!"))
    assert issubclass(member, MixwrightError) and issubclass(member, ValueError)


def test_every_error_of_the_catalogue_is_raised_somewhere():
    made = {
        node.func.id
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {member.__name__ for member in catalogue()} - made == set()


def test_flows_raise_nothing_that_is_not_in_the_catalogue():
    plain = [
        f"{path.name}:{node.lineno}"
        for path, tree in trees()
        if path.parent.name == "flows" and path.name != "openmoji.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") == "ValueError"
    ]
    assert plain == []


def test_the_readme_has_the_catalogue_as_it_is():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert markdown() in text, "run `.venv/bin/python -m flows.troubleshooting docs/troubleshooting.md` to renew it"
