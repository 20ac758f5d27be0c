"""Ray and Dask: their pools of Prefect's, what a task asks them for, what must hold for machines other than this one.

A cluster of this run's own lives as long as the run, on this machine. One that is named (`runner.address`) has
machines of its own: they have this checkout installed, and see the store and the inputs under the same paths or URLs.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from configs.curate import Curate
from configs.errors import ConfigError, PlaceError, RunFailed
from configs.inputs import HuggingFaceInput
from configs.runner import Runner
from configs.section import Section
from tasks.embed.device import resolve_device

ATTEMPTS = 3
"""To start a local Ray, which gives up after 30 s: on a busy machine that is too early."""
PACKAGES = {"ray": ("ray", "prefect_ray"), "dask": ("distributed", "prefect_dask")}
OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray cluster: only names and small facts travel, Ray's own default is a third of the memory."""


def check(config: Curate) -> None:
    """Refuse what workers of a cluster could not do.

    Raises:
        PlaceError: A package is missing, or a path means another folder on each machine.
    """
    runner = config.runner
    missing = [name for name in PACKAGES.get(runner.kind, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise PlaceError(
            f"`runner.kind` is {runner.kind}, which is not installed: pip install 'mixwright[{runner.kind}]'"
        )
    if runner.address is None:
        return
    named = {"store": config.store, "emit.out": config.emit.out}
    for number, one in enumerate(config.inputs):
        if not isinstance(one, HuggingFaceInput):  # its path may be the name of a data set
            named[f"input.{number}.path" if len(config.inputs) > 1 else "input.path"] = one.path
    for name, section in (("embed", config.embed), ("annotate.encoder", getattr(config.annotate, "encoder", None))):
        model = getattr(section, "model", "")
        if model.startswith("local-dir:"):
            named[f"{name}.model"] = model.removeprefix("local-dir:")
    for setting, path in named.items():
        if "://" not in path and not os.path.isabs(path):
            raise PlaceError(
                f"`{setting}` is {path!r}, which each machine of the cluster at {runner.address} would look for in a "
                "folder of its own; name an absolute path on a file system that all of them share, or a URL"
            )


@contextmanager
def cluster(config: Runner) -> Iterator[Any]:
    """The running pool of task runs on the cluster that `config` names, or on one of its own.

    Raises:
        ConfigError: Workers elsewhere could not reach the Prefect server of this run.
        RunFailed: No cluster answers at the address.
    """
    with temporary_settings({PREFECT_API_URL: _api(config)}), ExitStack() as stack:
        try:
            pool = _started(config, stack)
        except Exception as error:  # Ray raises bare ones; what went wrong is told, and where it came from
            where = f"at `runner.address` {config.address}" if config.address else "here"
            raise RunFailed(f"no {config.kind} cluster answers {where}: {type(error).__name__}: {error}") from error
        yield pool


def _started(config: Runner, stack: ExitStack) -> Any:
    if config.kind == "dask":
        pool = stack.enter_context(_dask(config))
        _ = pool.client  # else it connects with the first task
        return pool
    for _ in range(ATTEMPTS - 1):
        try:
            return stack.enter_context(_ray(config))
        except ConnectionError:
            raise
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return stack.enter_context(_ray(config))


def _ray(config: Runner) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray makes the default, and warns until then
    from prefect_ray import RayTaskRunner

    common = {"configure_logging": False, "log_to_driver": False}
    if config.address is None:
        own = {"num_cpus": config.workers, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        return RayTaskRunner(init_kwargs={"address": "local", **own, **common})
    if config.address == "auto":  # which the task runner itself takes for a cluster of its own
        return RayTaskRunner(init_kwargs={"address": "auto", **common})
    return RayTaskRunner(address=config.address, init_kwargs=common)


def _dask(config: Runner) -> Any:
    from prefect_dask import DaskTaskRunner

    logging.getLogger("distributed").setLevel(logging.WARNING)  # each connection is a line otherwise
    if config.address:
        return DaskTaskRunner(address=config.address)
    own: dict[str, Any] = {"n_workers": config.workers, "threads_per_worker": 1, "processes": True}
    # No limit of memory: Dask kills workers that come near one, and stages bound what they hold.
    own |= {"dashboard_address": None, "memory_limit": 0, "resources": {"GPU": max(1, config.gpus_per_task)}}
    return DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=own)


def _api(config: Runner) -> str:
    """Address of the Prefect server, which workers must reach too: also of a temporary one of this process."""
    named = PREFECT_API_URL.value()
    if named:
        return str(named)
    host = urlsplit(config.address or "//localhost").hostname
    if host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(
            f"`runner.address` is {config.address!r}, but no Prefect server is named that its workers could reach: "
            "start one (`prefect server start --host 0.0.0.0`) and set PREFECT_API_URL to its address"
        )
    with get_client(sync_client=True) as client:
        return str(client.api_url)


def asking(config: Runner, call: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Within the block, a task that is submitted asks for GPUs, if a model computes in it."""
    if not config.gpus_per_task or not any(_computes(value) for value in call.values()):
        return nullcontext()
    if config.kind == "ray":
        from prefect_ray.context import remote_options

        return remote_options(num_gpus=config.gpus_per_task)
    import dask

    return dask.annotate(resources={"GPU": config.gpus_per_task})


def pinned(value: Any) -> Any:
    """A section whose `device: auto` is what the plan took it for; other values as they are.

    Fingerprints name the device class. A worker that finds another one says so, instead of computing on it.
    """
    if not isinstance(value, Section):
        return value
    changed = {name: pinned(getattr(value, name)) for name in type(value).model_fields}
    if changed.get("device") == "auto":
        changed["device"] = resolve_device("auto")
    return value.model_copy(update=changed)


def _computes(value: Any) -> bool:
    """Whether a model of the section runs on a device that is not the CPU."""
    if not isinstance(value, Section):
        return False
    return getattr(value, "device", "cpu") != "cpu" or any(
        _computes(getattr(value, name)) for name in type(value).model_fields
    )


def lost(config: Runner) -> tuple[type[BaseException], ...]:
    """What Ray or Dask raise when a worker is gone for good."""
    if config.kind == "ray":
        import ray

        return (ray.exceptions.RayError,)
    import distributed

    return (distributed.KilledWorker, distributed.CancelledError)
