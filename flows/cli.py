"""The command line: thin over the flows and the store."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from configs.curate import Curate
    from flows.pipeline import Mix

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Curate raw Parquet shards into a training mix, with a reason for every row.\n\n"
    "Start with `mixwright demo`, then copy a preset, point `input.path` at your shards and run "
    "`mixwright check my.yaml`, `mixwright curate my.yaml --dry-run`, `mixwright curate my.yaml`.",
)
out = Console(width=None if sys.stdout.isatty() else 200)  # what is piped is searched: names stay whole
err = Console(stderr=True)

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few for a busy machine
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",  # a temporary server's words on its own end help nobody
}
"""Settings of Prefect for runs from the command line, unless the user has others."""

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting: `--set sample.batch_size=64`. Repeat it for more."),
]

MixFolder = Annotated[str, typer.Argument(help="A mix: its version folder, or the folder with latest.json.")]

Reach = Annotated[
    Path | None, typer.Option("--config", help="Configuration whose `storage` section tells how MIX is reached.")
]


@contextmanager
def reached_by(config: Path | None) -> Iterator[None]:
    """Within the block, object stores are reached as the configuration at `config` says."""
    if config is None:
        yield
        return
    from configs import loading
    from storage import objects

    with objects.using(loading.validate(loading.read(config)).storage.options()):
        yield


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn refusals into a red line, with the way out below, and exit code 2: no traceback for what a user can mend."""
    try:
        yield
    except (ValueError, OSError) as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        if remedy := getattr(error, "remedy", ""):
            err.print(f"{type(error).__name__}: {remedy}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


@app.command()
def demo(
    settings: Settings = None,
    out_dir: Annotated[str, typer.Option("--out", help="Folder for input, store and mixes.")] = "demo",
) -> None:
    """Curate 4,050 captioned emoji on this machine and print where the mix and its report are.

    A second run finds everything done. `--set sample.kind=iid` redoes sampling and what follows it, nothing else.
    """
    with told_plainly():
        from configs import loading

        moved: dict[str, Any] = {"store": f"{out_dir}/store", "emit": {"out": f"{out_dir}/mixes"}}
        moved["input"] = {"path": f"{out_dir}/input"}
        values = loading.assign(loading.merged(loading.preset("demo"), moved), settings or [])
        _run(values, preset="demo")


@app.command()
def curate(
    config: Annotated[Path, typer.Argument(help="YAML configuration; presets to copy are in configs/presets.")],
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, what is done already and an estimate; do nothing.")
    ] = False,
) -> None:
    """Curate what CONFIG describes. What earlier runs finished is not done again."""
    with told_plainly():
        from configs import loading

        values = loading.assign(loading.read(config), settings or [])
        if dry_run:
            _show_plan(loading.validate(values))
        else:
            _run(values, preset="plain")


@app.command()
def check(config: Annotated[Path, typer.Argument(help="YAML configuration.")], settings: Settings = None) -> None:
    """Say whether CONFIG can run: its settings, the input's columns, the model; nothing is computed."""
    with told_plainly():
        from configs import loading
        from configs.errors import InputError
        from flows.forecast import emptiness
        from flows.pipeline import examine
        from flows.taking import stop_if_too_many_are_damaged

        settled = loading.validate(loading.assign(loading.read(config), settings or []))
        found, planned = examine(settled)
        for one in planned:
            if hasattr(one.method, "check"):
                one.method.check()
        if found.unreadable:
            name, why = min(found.unreadable.items())
            raise InputError(f"{len(found.unreadable)} of {found.files} files cannot be read. First: {name}: {why}")
        stop_if_too_many_are_damaged(found, settled.max_quarantine_fraction)
        told = f"{len(found.entries)} files, {sum(found.rows.values()):,} rows" if found.entries else ""
        waiting = f"{len(found.waiting)} files or folders to be converted first, their rows not yet known"
        told = ", ".join(part for part in (told, waiting if found.waiting else "") if part)
        out.print(f"{config} is fine: {told}.", highlight=False, markup=False, soft_wrap=True)
        lines = [
            f"damaged, will be quarantined as a whole: {name}: {why}" for name, why in sorted(found.damaged.items())
        ]
        for line in [*emptiness(settled, found), *lines]:
            out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


@app.command()
def settings() -> None:
    """List every setting with its default and what it means."""
    from configs import loading

    table = Table("setting", "default", "meaning")
    for row in loading.described():
        table.add_row(*row)
    out.print(table)


@app.command()
def report(mix: MixFolder, settings: Settings = None, config: Reach = None) -> None:
    """Draw the report of MIX again from its own facts: `--set top_concepts=20` shows less than was gathered.

    To gather more, change `report` in the configuration and run `mixwright curate`: only the report is made again.
    """
    with told_plainly(), reached_by(config):
        from configs import loading
        from configs.curate import Report
        from flows.reporting import redraw

        changed = loading.checked(Report, loading.assign({}, settings or [])).model_dump(exclude_unset=True)
        out.print(redraw(mix, changed), markup=False, highlight=False, soft_wrap=True)


@app.command()
def troubleshoot() -> None:
    """Explain every error and every reason for which a row is left out, with the way out of each."""
    from flows.troubleshooting import errors, reasons

    for title, rows in (("error", errors()), ("reason", reasons())):
        table = Table(title, "raised when" if title == "error" else "meaning", "what to do", show_lines=True)
        for row in rows:
            table.add_row(*row)
        out.print(table, markup=False)


@app.command()
def verify(mix: MixFolder, config: Reach = None) -> None:
    """Hash the files of MIX again and add up its ledger; print the first discrepancy and fail, or say all is well."""
    with told_plainly(), reached_by(config):
        from storage import manifests

        wrong = next(manifests.discrepancies(mix), None)
        if wrong:
            err.print(f"{manifests.resolve(mix)}: {wrong}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(1)
        facts = manifests.read(mix)["counts"]
        out.print(
            f"all well: {facts['rows_in']:,} rows in = {facts['kept']:,} kept + {facts['dropped']:,} dropped + "
            f"{facts['quarantined']:,} quarantined; {facts['emitted']:,} rows emitted; every digest fits",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def explain(
    mix: MixFolder,
    key: Annotated[str, typer.Argument(help="A row: its key, `file:row`, or the uid of an emitted row.")],
    config: Reach = None,
) -> None:
    """Tell what each stage said of a row of the input, and where in the mix it ended."""
    with told_plainly(), reached_by(config):
        from flows.explaining import explain_row

        for told in explain_row(mix, key):
            title = told.pop("title")
            # Names, keys and details are data: brackets in them are no markup.
            table = Table(title=Text(title), show_header=False, title_justify="left", min_width=len(title))
            for name, value in told.items():
                table.add_row(name, str(value))
            out.print(table, markup=False)


@app.command(name="train-pocket")
def train_pocket(
    settings: Settings = None,
    out_dir: Annotated[str, typer.Option("--out", help="Folder that receives the model.")] = "demo/pocket",
    work: Annotated[str, typer.Option(help="Folder of pictures and checkpoints.")] = "demo/training",
) -> None:
    """Train the pocket model on the demo's emoji, in minutes on a CPU; a stopped training goes on where it was.

    The shipped one was made with `--out configs/models/pocket`. Settings are those of `configs/pocket.py`:
    `--set steps=300` trains less, `--set other_seeds=2` tells how far recall varies.
    """
    with told_plainly():
        from configs import loading
        from flows.train_pocket import train_pocket as flow

        given = yaml.safe_dump(loading.assign({}, settings or []))
        _quieten()
        state = flow(out=out_dir, work=work, overrides=given, return_state=True)
        _exit_unless_completed(state)
        out.print(f"{state.message}\nmodel: local-dir:{out_dir}", markup=False, highlight=False, soft_wrap=True)


def _quieten() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _exit_unless_completed(state: Any) -> None:
    """Show why a flow run has not completed, and end with exit code 1."""
    if not state.is_completed():
        err.print(state.message or str(state.name), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _run(values: dict[str, Any], preset: str) -> None:
    """Run the curate flow in this process, under the server of PREFECT_API_URL or a temporary one."""
    from configs import loading

    config = loading.validate(values)
    # Whole, so that nothing of the preset stands where the configuration leaves a section out.
    values = config.model_dump(mode="json")
    _quieten()
    from prefect.settings import PREFECT_API_URL

    lasting = bool(PREFECT_API_URL.value())
    mix = None if lasting else _made_before(config)
    if mix:
        message, url = f"nothing to do: {mix.message}", mix.url
    else:
        message, url = _run_flow(values, preset, lasting)
    for line in (message, f"mix:    {url}/data", f"report: {url}/report/index.html"):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _made_before(config: Curate) -> Mix | None:
    """The mix, if all of it is there: then no temporary server needs to start."""
    from configs.errors import RunFailed
    from flows.pipeline import curate as plainly
    from flows.runners import IdleRunner, WorkLeft

    try:
        mix = plainly(config, IdleRunner(), lambda line: None)
    except (WorkLeft, RunFailed, ValueError, OSError):
        return None  # the flow comes to the same, and tells it where runs are looked at
    return mix if mix.emitted else None


def _run_flow(values: dict[str, Any], preset: str, lasting: bool) -> tuple[str, str]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.curate import curate as flow

    # The flow's own lines tell the progress, and its last one what failed.
    logging.getLogger("prefect.task_runs").setLevel(logging.CRITICAL)
    # The heartbeat tells a lasting server that a run is alive; on a temporary one it costs a second and tells nobody.
    with temporary_settings({} if lasting else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = flow(preset=preset, overrides=yaml.safe_dump(values, sort_keys=False), return_state=True)
    _exit_unless_completed(state)
    return state.message or "", str(state.result())


def _show_plan(config: Any) -> None:
    from flows.forecast import forecast

    table = Table("stage", "kind", "to do", "done", "estimate")
    plan = forecast(config)
    for row in plan.rows:
        table.add_row(*row)
    out.print(table)
    for line in plan.lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point."""
    app(prog_name="mixwright")


if __name__ == "__main__":
    main()
