"""Commands of those who run it every day."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from flows.terminal import Settings, err, exit_unless_completed, out, quieten, told_plainly


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
        quieten()
        state = flow(out=out_dir, work=work, overrides=given, return_state=True)
        exit_unless_completed(state)
        out.print(f"{state.message}\nmodel: local-dir:{out_dir}", markup=False, highlight=False, soft_wrap=True)


def serve(
    config: Annotated[Path, typer.Argument(help="YAML configuration.")],
    settings: Settings = None,
    cron: Annotated[
        str, typer.Option(help="When it runs by itself: minute hour day month weekday. Without it: when pressed.")
    ] = "",
    timezone: Annotated[str, typer.Option(help="Of --cron: Europe/Berlin, America/New_York, …")] = "UTC",
    run_now: Annotated[bool, typer.Option("--run-now", help="Start a first run at once.")] = False,
    port: Annotated[int, typer.Option(help="Port of a server started here.")] = 4200,
) -> None:
    """Put CONFIG into the Prefect UI, to be run at a press or every night, until Ctrl-C.

    `mixwright serve my.yaml --cron "0 2 * * *"` curates every night at two and prints the address of the UI. A Prefect
    server is started here unless one answers at PREFECT_API_URL or on the port. One run goes at a time, the next ones
    wait. A run pays only for what is new.

    Ctrl-C stops it all, a run too: what it finished stays. The same command has the schedule on again; nights that it
    missed are not made up for.
    """
    with told_plainly():
        from flows.place import ServingFailed, settle

        settle()
        from configs import loading
        from flows.pipeline import examine
        from flows.serve import Service, serve_until_stopped

        service = Service(loading.validate(loading.assign(loading.read(config), settings or [])), cron, timezone)
        service.next_run()
        examine(service.config)
    try:
        serve_until_stopped(
            service, port, run_now, lambda line: out.print(line, markup=False, highlight=False, soft_wrap=True)
        )
    except ServingFailed as error:
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def gc(
    config: Annotated[Path, typer.Argument(help="YAML configuration, whose store and mix are cleaned.")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    keep: Annotated[
        int, typer.Option(min=0, help="Newest versions of the mix to keep, those without rows counted apart; 0: all.")
    ] = 0,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Versions younger than this are kept too; 0: the count alone decides.")
    ] = 0,
    grace_days: Annotated[
        float, typer.Option(min=0, help="Store files younger than this stay: half-done runs need them.")
    ] = 7,
) -> None:
    """Remove what no kept mix needs: old versions of the mix if asked, and files of the store.

    Never while a run uses the store, and never what another configuration's mix stands on, nor a mined vocabulary. The
    mix that latest.json names always stays. A run of a kept mix's configuration still finds everything done.
    """
    with told_plainly():
        quieten()
        from configs import loading
        from flows.gc import Rules, clean

        settled = loading.validate(loading.assign(loading.read(config), settings or []))
        done = clean(settled, Rules(keep or None, keep_days or None, grace_days, dry_run), lambda line: None)
        table = Table("stage", "kind", "files kept", "bytes kept", "would go" if dry_run else "removed", "bytes")
        for row in done.rows:
            table.add_row(*row)
        out.print(table)
        lines = [f"version: {url}" for url in done.versions] + done.notes
        for line in [*lines, done.message]:
            out.print(line, markup=False, highlight=False, soft_wrap=True)
