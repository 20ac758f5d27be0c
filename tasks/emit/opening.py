"""Where the rows of a mix are: its version, its parts, what mix.json counts of them."""

from __future__ import annotations

import json
from typing import Any

from configs.errors import MixError
from configs.storage import PACKAGES
from storage import files, objects
from storage.manifests import in_batch_order


def options_of(url: str, given: dict[str, Any] | None) -> objects.Options:
    """`given` as `storage.objects` takes it."""
    protocol = {"s3a": "s3", "gcs": "gs"}.get(name := url.partition("://")[0], name)
    if given and protocol not in PACKAGES:
        raise ValueError(f"`storage_options` are for URLs of {', '.join(PACKAGES)}; {url} is none")
    return {protocol: given} if given else {}


def find_mix(url: str, options: objects.Options | None = None) -> tuple[str, dict[str, Any]]:
    """The folder of the version that `url` means, and its mix.json.

    Raises:
        FileNotFoundError: `url` holds neither mix.json nor a latest.json that leads to one.
    """
    folder = url.rstrip("/")
    with objects.using(options or {}):
        manifest = _json(f"{folder}/mix.json")
        if manifest is None and (latest := _json(f"{folder}/latest.json")) is not None:
            folder = f"{folder}/{latest['version']}"
            manifest = _json(f"{folder}/mix.json")
    if manifest is None:
        raise FileNotFoundError(
            f"{folder} is not a mix: no mix.json; give the folder of a version, or one whose latest.json names it "
            "(mix.json is written last: an interrupted run has left none)"
        )
    return folder, manifest


def _json(url: str) -> dict[str, Any] | None:
    fs, path = files.filesystem(url)
    return json.loads(fs.cat_file(path)) if fs.isfile(path) else None


def counts_of(parts: tuple[str, ...], manifest: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    """Rows of each part, and of each unit: nothing and 0 if mix.json does not say, or if units have not equally many.

    None has more than its share of `batch_size`, so if there are as many rows as all could have, each has its share.
    """
    facts, told = manifest.get("files", {}), manifest["batches"]
    rows = tuple(facts.get(f"data/{part.rpartition('/')[2]}", {}).get("rows", -1) for part in parts)
    if min(rows) < 0 or sum(rows) != told["steps"] * told["batch_size"]:
        return (), 0
    return rows, told["batch_size"] // told["world_size"]


def parts_of(url: str, manifest: dict[str, Any], options: objects.Options) -> tuple[str, ...]:
    """URLs of the mix's parts, in batch order.

    Raises:
        FileNotFoundError: There are none.
        MixError: One is missing.
    """
    with objects.using(options):
        there = {name for name in files.names(f"{url}/data") if name.startswith("part-") and name.endswith(".parquet")}
    if not there:
        raise FileNotFoundError(f"{url} has a mix.json, but no data/part-*.parquet: it is empty, or was copied in part")
    counted = {name.removeprefix("data/") for name in manifest.get("files", {}) if name.startswith("data/")}
    if missing := sorted(counted - there):
        raise MixError(f"{url}/data lacks {missing[0]}, which mix.json counts; the mix is damaged: copy it again")
    return tuple(f"{url}/data/{name}" for name in in_batch_order(counted or there))
