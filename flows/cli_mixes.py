"""Commands that look at a mix."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.terminal import MixFolder, Reach, Settings, err, out, reached_by, told_plainly


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
        facts = manifests.read(mix)["counts"]
        out.print(
            f"all well: {facts['rows_in']:,} rows in = {facts['kept']:,} kept + {facts['dropped']:,} dropped + "
            f"{facts['quarantined']:,} quarantined; {facts['emitted']:,} rows emitted; every digest fits",
            highlight=False,
            soft_wrap=True,
        )


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
