"""The command line: thin over the flows and the store. Commands of one matter are in `cli_mixes`, `cli_operating`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from flows.cli_mixes import explain, export, report, verify
from flows.cli_operating import gc, serve, train_pocket
from flows.terminal import (
    Settings,
    err,
    exit_unless_completed,
    interruptible,
    out,
    quieten,
    states_untold,
    told_plainly,
)

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
def check(
    config: Annotated[Path, typer.Argument(help="YAML configuration.")],
    settings: Settings = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Rows that are run to measure what stages take; 0: measure nothing.")
    ] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passport as JSON and nothing else.")] = False,
) -> None:
    """Say whether CONFIG can run, and show its passport: groups, planned mix, time and storage of every stage.

    What cannot run is refused at once. Then the stages run over a sample, in a temporary folder. Nothing is written
    but the passport, `<store>/passports/`; the report of the run that follows compares it with what it took.
    """
    quieten()
    with told_plainly():
        from configs import loading
        from configs.errors import InputError
        from flows.forecast import emptiness
        from flows.nights import changes_ahead
        from flows.passport import look, passport
        from flows.passport_shown import show
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
        looked = look(settled, found, sample)
        told = f"{len(found.entries)} files, {sum(found.rows.values()):,} rows" if found.entries else ""
        waiting = f"{len(found.waiting)} files or folders to be converted first, their rows not yet known"
        told = ", ".join(part for part in (told, waiting if found.waiting else "") if part)
        lines = [
            f"damaged, will be quarantined as a whole: {name}: {why}" for name, why in sorted(found.damaged.items())
        ]
        lines = [*changes_ahead(settled, found), *emptiness(settled, found), *lines]
        if not as_json:
            out.print(f"{config} is fine: {told}.", highlight=False, markup=False, soft_wrap=True)
            for line in lines:
                out.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
        made = passport(settled, found, looked, sample, lambda line: err.print(line, style="dim", markup=False))
        if as_json:
            typer.echo(json.dumps(made | {"warnings": lines}, indent=1))
        else:
            show(made, out)


@app.command()
def settings() -> None:
    """List every setting with its default and what it means."""
    from configs import loading

    table = Table("setting", "default", "meaning")
    for row in loading.described():
        table.add_row(*row)
    out.print(table, markup=False)


@app.command()
def troubleshoot() -> None:
    """Explain every error and every reason for which a row is left out, with the way out of each."""
    from flows.troubleshooting import errors, reasons

    for title, rows in (("error", errors()), ("reason", reasons())):
        table = Table(title, "raised when" if title == "error" else "meaning", "what to do", show_lines=True)
        for row in rows:
            table.add_row(*row)
        out.print(table, markup=False)


def _run(values: dict[str, Any], preset: str) -> None:
    """Run the curate flow in this process, under the server of PREFECT_API_URL or a temporary one."""
    from configs import loading

    config = loading.validate(values)
    # Whole, so that nothing of the preset stands where the configuration leaves a section out.
    values = config.model_dump(mode="json")
    quieten()
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

    # The heartbeat tells a lasting server that a run is alive; on a temporary one it costs a second and tells nobody.
    settings: dict[Any, Any] = {} if lasting else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with states_untold(), interruptible(), temporary_settings(settings):
        state = flow(preset=preset, overrides=yaml.safe_dump(values, sort_keys=False), return_state=True)
    exit_unless_completed(state)
    return state.message or "", str(state.result())


def _show_plan(config: Any) -> None:
    from flows.forecast import forecast

    table = Table("stage", "kind", "to do", "done", "estimate")
    plan = forecast(config)
    for row in plan.rows:
        table.add_row(*row)
    out.print(table, markup=False)
    for line in plan.lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


for command in (report, verify, explain, export, serve, gc, train_pocket):
    app.command(name=command.__name__.replace("_", "-"))(command)


def main() -> None:
    """Entry point."""
    app(prog_name="mixwright")


if __name__ == "__main__":
    main()
