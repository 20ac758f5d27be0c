"""Commands of those who run it every day."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from flows.terminal import Settings, exit_unless_completed, out, quieten, told_plainly


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
