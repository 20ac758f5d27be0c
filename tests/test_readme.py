"""What the README says is true: commands, links, configuration, code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs.loading import validate
from flows.cli import app
from tasks import annotate, embed, ingest, mix, sample, score, select

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_its_configuration_is_valid():
    for block in blocks("yaml"):
        validate(yaml.safe_load(block))


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", TEXT))
    assert {"demo", "test", "ui", "nightly", "bench", "help"} <= named <= targets


def test_it_names_every_command_and_no_other():
    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    assert set(re.findall(r"\| `mixwright ([a-z-]+)", TEXT)) == commands


@pytest.mark.parametrize("stage", [ingest, embed, annotate, score, select, mix, sample], ids=lambda s: s.__name__)
def test_it_names_every_method(stage):
    table = TEXT.split("## Methods")[1].split("\n\n##")[0]
    for kind in stage.METHODS:
        assert f"`{kind}`" in table


def test_its_relative_paths_exist():
    for path in re.findall(r"`((?:configs|tasks|flows|storage)/[^`]*)`", TEXT):
        assert (ROOT / path).exists(), path


def test_its_python_compiles():
    for block in blocks("python"):
        compile(block, "README", "exec")


def test_the_pins_hold():
    """Newer ones resolve, and then Prefect breaks, once silently: crons are never scheduled."""
    from importlib.metadata import version

    from packaging.version import Version

    assert Version("3.8.8") <= Version(version("prefect")) < Version("4")
    assert Version(version("fastapi")) < Version("0.151")
    assert Version(version("sqlalchemy")) < Version("2.1")


def test_no_lock_file_carries_an_address():
    assert "://" not in (ROOT / "requirements.lock").read_text()
