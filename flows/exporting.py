"""Exports of a mix: plan, write, read back, publish. As a Prefect flow, and plainly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from prefect import Task, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from configs import loading
from configs.credentials import masked, refuse
from configs.errors import CredentialsError, PlaceError, RunFailed
from configs.export import Export, Format
from configs.runner import Runner as Threads
from configs.storage import require_packages
from flows.mixes import MixUrl
from flows.runners import Runner, failures, prefect_runner
from flows.watching import PrefectWatch, Unwatched, Watch
from storage import files, manifests, objects
from storage.fingerprints import fingerprint, source_digest, versions
from tasks import load
from tasks.export import METHODS, Exporter
from tasks.export.checking import MANIFEST
from tasks.export.plan import cuts, survey
from tasks.export.rows import Source
from tasks.export.task import STATE, Shard, check_shards, export_shards, fact_file

MOST = 48
"""Most tasks of a step."""


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    url: str
    manifest: dict[str, Any]
    message: str


def export_mix(
    mix: str, out: str, config: Export, runner: Runner, log: Callable[[str], None], watch: Watch | None = None
) -> Exported:
    """Write the mix at `mix` into the folder `out`; what an earlier attempt finished there is not written again.

    Raises:
        MixError: `mix` is no mix.
        PlaceError: `out` holds something else, or a package is missing.
        RunFailed: Some shards failed; the others are done.
    """
    require_packages(config)
    exporter: Exporter = load(METHODS, config)
    if find_spec(exporter.package) is None:
        raise PlaceError(
            f"the format {config.kind!r} is read back with {exporter.package}, which is not installed: "
            f"pip install 'mixwright[{config.kind}]'"
        )
    with objects.using(config.storage.options()):
        extent = survey(mix)
        size = config.shard_bytes or exporter.shard_bytes
        shards: list[Shard] = list(enumerate(cuts(extent, config.shards, size, exporter.row_bytes)))
        plan = _plan(extent.source, config, exporter, [rows for _, rows in shards])
        if (done := _made_before(out, plan, log)) is not None:
            return done
        steps = _Steps(extent.source, files.absolute(out), config, runner, _Told(log, watch or Unwatched()))
        todo = [shard for shard in shards if not _is_written(out, shard[0], exporter)]
        log(f"export {config.kind}: {extent.source.rows:,} rows in {len(shards)} shards, {len(todo)} to write")
        steps.each(export_shards, todo, len(shards))
        return _publish(steps, exporter, plan, shards)


def _plan(source: Source, config: Export, exporter: Exporter, shards: list[tuple[int, int]]) -> dict[str, Any]:
    """What an export's files depend on."""
    manifest = manifests.read(source.url)
    data = {name: facts["digest"] for name, facts in manifest["files"].items() if name.startswith("data/")}
    facts = {
        "mix": {"name": manifest["name"], "version": manifest["version"], "data": fingerprint(data)},
        "format": config.kind,
        "options": config.output_fields(),
        "source": source_digest(type(exporter).__module__),
        "versions": versions((exporter.package,)),
    }
    return {**facts, "rows": source.rows, "shards": len(shards), "fingerprint": fingerprint({**facts, "at": shards})}


def _made_before(out: str, plan: dict[str, Any], log: Callable[[str], None]) -> Exported | None:
    """The export, if it stands at `out`; else `out` is ready to be written.

    Raises:
        PlaceError: Something else is there.
    """
    told = files.join(out, MANIFEST)
    if files.exists(told):
        manifest = files.read_json(told)
        found = manifest["mix"]["version"]
        if manifest["fingerprint"] != plan["fingerprint"]:
            raise PlaceError(
                f"{out} holds another export ({manifest['format']} of version {found}, {manifest['shards']} shards): "
                "give another folder, or remove that one"
            )
        for name, facts in manifest["files"].items():
            target = files.join(out, name)
            if not files.has_size(target, facts["bytes"]):
                raise PlaceError(f"{target} is not as {MANIFEST} says; remove the folder {out} and export again")
        files.remove(files.join(out, STATE))  # of a run that was killed at its very end
        log("export: it is there already")
        return Exported(out, manifest, f"nothing to do: {manifest['rows']:,} rows are in {out}")
    begun = files.join(out, STATE, "plan.json")
    if not files.exists(begun):
        if names := files.names(out):
            raise PlaceError(f"{out} holds something else ({names[0]}, {len(names)} in all): give an empty folder")
        files.write_json(begun, plan)
    elif files.read_json(begun)["fingerprint"] != plan["fingerprint"]:
        raise PlaceError(
            f"{out} holds the beginning of an export of another mix or with other settings: give another folder, or "
            "remove that one"
        )
    files.sweep(out)
    return None


def _is_written(out: str, number: int, exporter: Exporter) -> bool:
    """Whether a shard is whole: its facts are written after it."""
    facts, shard = fact_file(out, number), files.join(out, exporter.name(number))
    return files.exists(facts) and files.has_size(shard, files.read_json(facts)["bytes"])


class _Told(NamedTuple):
    """Who is told of the progress."""

    log: Callable[[str], None]
    watch: Watch


class _Steps:
    """Hands groups of shards to a runner and tells the progress."""

    def __init__(self, source: Source, out: str, config: Export, runner: Runner, told: _Told) -> None:
        self.source, self.out, self.config, self.runner, self.told = source, out, config, runner, told

    def each(self, task: Task[..., Any], shards: list[Shard], of: int) -> None:
        """Run `task` on groups of `shards`.

        Raises:
            RunFailed: With the number of those that failed, and the first.
        """
        size = max(1, -(-len(shards) // MOST))
        groups = [shards[i : i + size] for i in range(0, len(shards), size)]
        shared = {"source": self.source, "out": self.out, "config": self.config, "storage": self.config.storage}
        calls = [{**shared, "shards": g, "label": f"shards {g[0][0]}-{g[-1][0]} of {of}"} for g in groups]
        started, last, ended = time.perf_counter(), 0.0, 0

        def done(index: int) -> None:
            nonlocal last, ended
            ended += len(groups[index])
            now = time.perf_counter() - started
            self.told.watch.progress("export", f"{task.name}, shards", ended, len(shards))
            if ended == len(shards) or now - last >= 1:
                last = now
                self.told.log(f"  {task.name}: {ended} of {len(shards)} shards, {now:.1f} s")

        if failed := failures(self.runner.run(task, calls, done)):
            number, why = failed[0]
            raise RunFailed(f"{len(failed)} of {of} shards failed; rerun to retry only those. First: {number}: {why}")


def _publish(steps: _Steps, exporter: Exporter, plan: dict[str, Any], shards: list[Shard]) -> Exported:
    """Index, read back, and write the manifest: from then on the export exists."""
    out = steps.out
    facts = [files.read_json(fact_file(out, number)) for number, _ in shards]
    listed = {
        exporter.name(number): {name: told[name] for name in ("rows", "bytes", "digest")}
        for (number, _), told in zip(shards, facts, strict=True)
    }
    for name, content in exporter.index(facts).items():
        files.write_bytes(files.join(out, name), content)
        listed[name] = {"rows": 0, **manifests.file_facts(files.join(out, name))}
    steps.each(check_shards, shards, len(shards))
    manifest = {**plan, "files": listed}
    files.write_json(files.join(out, MANIFEST), manifest)
    files.remove(files.join(out, STATE))
    size = sum(told["bytes"] for told in facts) / 1e6
    return Exported(out, manifest, f"verified: {plan['rows']:,} rows in order, {len(shards)} shards, {size:,.1f} MB")


def run_name() -> str:
    """What the run does, for lists of runs: `export-webdataset-mixes/openmoji`."""
    parameters = flow_run.parameters
    return f"export-{parameters.get('to', 'webdataset')}-{masked(parameters['mix'].rstrip('/'))}"


def refuse_logins(mix: str, out: str) -> None:
    """Raise CredentialsError if one of these is a URL with a login: Prefect keeps parameters and names of runs."""
    for name, url in (("the mix", mix), ("the folder of the export", out)):
        try:
            refuse(url)
        except CredentialsError as error:
            raise CredentialsError(f"{name} is refused: {error}") from None


@flow(name="export", flow_run_name=run_name, validate_parameters=True)
def export(mix: MixUrl, out: MixUrl, to: Format = "webdataset", overrides: str = "") -> State:
    """Write an emitted mix in a format of other readers, row for row in its order, and read it back.

    Args:
        mix: A mix: its version folder, or the folder with latest.json.
        out: Folder or URL that receives the export; empty, or with the beginning of the same export.
        to: The format.
        overrides: Settings of `configs/export.py` as YAML, for example `shards: 16`; `storage` as in a configuration.
    """
    log = get_run_logger().info
    try:
        refuse_logins(mix, out)
        given = {**loading.parse(overrides, "`overrides`"), "kind": to}
        config = loading.checked(Export, given)
        with prefect_runner(Threads(workers=config.workers)) as runner:
            watch = PrefectWatch(mix.rstrip("/").rpartition("/")[2], log)
            made = export_mix(mix, out, config, runner, log, watch)
    except (RunFailed, ValueError, OSError) as error:
        return Failed(message=str(error))
    return Completed(message=made.message, data=made.url)
