"""Work under the `storage` section of its configuration, planned for the devices of its `runner`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from configs.curate import Curate
from configs.storage import require_packages
from storage import objects
from tasks.embed.device import planned_for

P = ParamSpec("P")
T = TypeVar("T")


def reaching(work: Callable[Concatenate[Curate, P], T]) -> Callable[Concatenate[Curate, P], T]:
    """`work(config, …)`, which reaches object stores as `config.storage` says.

    Raises:
        PlaceError, CredentialsError: A package or an environment variable is missing; nothing was done.
    """

    @wraps(work)
    def reached(config: Curate, /, *args: P.args, **kwargs: P.kwargs) -> T:
        require_packages(config)
        with objects.using(config.storage.options()), planned_for(config.runner.gpus_per_task > 0):
            return work(config, *args, **kwargs)

    return reached
