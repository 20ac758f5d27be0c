"""Where tasks run and how many at once."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.section import Section

SCHEMES = {"ray": ("ray://",), "dask": ("tcp://", "tls://", "ws://", "wss://")}
"""How addresses of clusters begin."""


class Runner(Section):
    """How work is spread; nothing here changes a byte of the output."""

    kind: Literal["threads", "ray", "dask"] = Field(
        "threads",
        description="`threads` of the run's own process, or the processes of a Ray or Dask cluster, on this machine "
        "or on many.",
    )
    workers: int = Field(
        2, ge=1, le=512, description="Tasks in flight; of a local cluster also its processes, one CPU each."
    )
    shards_per_task: int = Field(
        0,
        ge=0,
        description="Shards handled by one task; 0: as many as give a stage no more than 16 tasks, or one a worker if "
        "there are more workers.",
    )
    address: str | None = Field(
        None,
        description="A running cluster: `ray://host:10001`, or `auto` for the one that this machine belongs to; for "
        "Dask `tcp://host:8786`. Null: a local cluster, for this run alone.",
    )
    gpus_per_task: float = Field(
        0,
        ge=0,
        le=64,
        description="GPUs of a cluster that a task with a model asks for: Ray's num_gpus, Dask's resource GPU. Above "
        "0, `device: auto` means CUDA, whatever the machine that starts the run has.",
    )

    @model_validator(mode="after")
    def _address_fits(self) -> Self:
        """Only clusters have addresses, each kind its own, and GPUs to ask for."""
        if self.kind == "threads":
            for name in ("address", "gpus_per_task"):
                if getattr(self, name):
                    raise ValueError(f"`{name}` is {getattr(self, name)!r}; that is for `kind` ray or dask")
        elif self.address is not None and not (self.kind == "ray" and self.address == "auto"):
            schemes = SCHEMES[self.kind]
            if not self.address.startswith(schemes):
                example = {"ray": "auto or ray://host:10001", "dask": "tcp://host:8786"}[self.kind]
                raise ValueError(f"`address` is {self.address!r}; for {self.kind} it is like {example}")
        if 1 < self.gpus_per_task != int(self.gpus_per_task):
            raise ValueError(f"`gpus_per_task` is {self.gpus_per_task:g}; above 1 it must be a whole number")
        return self
