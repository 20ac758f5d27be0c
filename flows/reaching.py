"""Work under the `storage` section of its configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from configs.curate import Curate
from configs.storage import require_packages
from storage import objects

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
        with objects.using(config.storage.options()):
            return work(config, *args, **kwargs)

    return reached
