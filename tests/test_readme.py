"""What README and docs say is true: commands, links, settings, configuration, code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from configs.curate import Curate
from configs.loading import described, validate
from flows.cli import app
from tasks import annotate, embed, ingest, mix, sample, score, select

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
COMMAND = re.compile(r"(?:\.venv/bin/)?mixwright\b")


def blocks(language: str) -> list[tuple[str, str]]:
    found = ((page, re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)) for page, text in PAGES.items())
    return [(page, block) for page, inside in found for block in inside]


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_its_configuration_is_valid(page, block):
    values = yaml.safe_load(block)
    if values.keys() <= Curate.model_fields.keys():
        validate({"input": {"path": "data"}} | values)
    else:
        assert page == "training.md"  # an automation


def commands() -> list[str]:
    lines = [line for _, block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if COMMAND.match(line)]


@pytest.mark.parametrize("line", commands())
def test_its_commands_are_understood(line):
    _, name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments).close()  # refuses options that are not there


def test_it_shows_commands():
    assert {shlex.split(line)[1] for line in commands()} >= {"check", "curate", "serve", "export", "gc"}


def test_its_settings_exist():
    known = {re.sub(r"\[\w+\]", "", path) for path, _, _ in described()}
    for page, text in PAGES.items():
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)", text):
            if name.split(".")[0] in Curate.model_fields and not name.endswith((".yaml", ".json", ".md")):
                assert name in known, f"{page}: {name}"


def test_its_links_lead_somewhere():
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert target.startswith("https://") or (folder / target).exists(), f"{page}: {target}"


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
    for page, text in PAGES.items():
        for path in re.findall(r"`((?:configs|tasks|flows|storage|examples|docs)/[^`*]*)`", text):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_its_python_compiles():
    for page, block in blocks("python"):
        compile(block, page, "exec")


def test_the_pins_hold():
    """Newer ones resolve, and then Prefect breaks, once silently: crons are never scheduled."""
    from importlib.metadata import version

    from packaging.version import Version

    assert Version("3.8.8") <= Version(version("prefect")) < Version("4")
    assert Version(version("fastapi")) < Version("0.151")
    assert Version(version("sqlalchemy")) < Version("2.1")


def test_no_lock_file_carries_an_address():
    assert "://" not in (ROOT / "requirements.lock").read_text()
