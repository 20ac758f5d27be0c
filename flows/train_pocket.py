"""The flow that trains the pocket model on the demo corpus."""

from __future__ import annotations

import shlex
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed, State

from configs import loading
from configs.pocket import Pocket
from tasks.train.task import train_pocket as train_task


@flow(name="train-pocket", flow_run_name="train-pocket", validate_parameters=True)
def train_pocket(out: str = "demo/pocket", work: str = "demo/training", overrides: str = "") -> State:
    """Train a pocket model: two towers that learn 4,050 emoji and their names in minutes on a CPU.

    A run that was stopped goes on from its last checkpoint, to the same weights.

    Args:
        out: Folder that receives the model, `local-dir:<out>` for a curation run. The shipped one is in configs/models.
        work: Folder of pictures and checkpoints.
        overrides: Settings of the training as YAML, for example `seed: 1`.
    """
    from flows.openmoji import other_names, write_openmoji

    try:
        config = loading.checked(Pocket, loading.parse(overrides, "`overrides`"))
        shards = [str(path.absolute()) for path in write_openmoji(f"{work}/input")]
        facts: Any = train_task(config, shards, other_names(), {"out": out, "work": work}, command(out, config))
    except (ValueError, OSError) as error:
        return Failed(message=str(error))
    held = facts["recall"]["held_out"]
    found = f"{held['image_to_text@1']:.1%} of {held['pictures']} held-out base emoji find their caption"
    return Completed(message=f"{facts['cpu_minutes']:.1f} CPU minutes; {found}", data=out)


def command(out: str, config: Pocket) -> str:
    """What makes the same model, typed in the checkout."""
    given = {name: value for name, value in config.model_dump().items() if value != Pocket.model_fields[name].default}
    return shlex.join(["mixwright", "train-pocket", "--out", out, *(f"--set={n}={v}" for n, v in given.items())])
