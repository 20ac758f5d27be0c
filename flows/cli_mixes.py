"""Commands that look at a mix or write it in another form."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml
from rich.table import Table
from rich.text import Text

from flows.terminal import (
    MixFolder,
    Reach,
    Settings,
    err,
    exit_unless_completed,
    out,
    quieten,
    reached_by,
    told_plainly,
)


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


def verify(mix: MixFolder, config: Reach = None) -> None:
    """Hash the files of MIX again and add up its ledger; print the first discrepancy and fail, or say all is well."""
    with told_plainly(), reached_by(config):
        from storage import manifests

        wrong = next(manifests.discrepancies(mix), None)
        if wrong:
            err.print(f"{manifests.resolve(mix)}: {wrong}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(1)
        told = manifests.all_well(manifests.read(mix))
        out.print(told, highlight=False, soft_wrap=True)


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


def export(
    mix: MixFolder,
    to_folder: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URL that receives the export; empty.")],
    kind: Annotated[str, typer.Option("--to", help="webdataset or litdata.")] = "webdataset",
    shards: Annotated[
        int | None, typer.Option(help="Files of equal numbers of rows: a multiple of world size x loader workers.")
    ] = None,
    shard_bytes: Annotated[int | None, typer.Option(help="Else about the most bytes of a file.")] = None,
    workers: Annotated[int, typer.Option(help="Files written at the same time.")] = 2,
    config: Reach = None,
) -> None:
    """Write MIX as webdataset tars or LitData chunks, row for row in its order, and read all of it back.

    What an interrupted export finished is not written again.
    """
    with told_plainly():
        from configs import loading

        asked: dict[str, Any] = {"shards": shards, "shard_bytes": shard_bytes, "workers": workers}
        given = {name: value for name, value in asked.items() if value is not None}
        if config:
            given["storage"] = loading.validate(loading.read(config)).storage.model_dump(mode="json")
        told = _export(mix, to_folder, kind, given)
        for line in (told, f"export: {to_folder}"):
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _export(mix: str, to_folder: str, kind: str, given: dict[str, Any]) -> str:
    """Export as a flow run where a server stands at PREFECT_API_URL, else in this process alone."""
    quieten()
    from prefect.settings import PREFECT_API_URL

    from configs import loading
    from configs.export import Export
    from flows.exporting import export as flow
    from flows.exporting import export_mix, refuse_logins
    from flows.runners import PlainRunner

    refuse_logins(mix, to_folder)
    settled = loading.checked(Export, {**given, "kind": kind})
    if not PREFECT_API_URL.value():

        def tell(line: str) -> None:
            out.print(line, markup=False, highlight=False, soft_wrap=True)

        return export_mix(mix, to_folder, settled, PlainRunner(settled.workers), tell).message
    state = flow(mix=mix, out=to_folder, to=settled.kind, overrides=yaml.safe_dump(given), return_state=True)
    exit_unless_completed(state)
    return state.message or ""
