"""Data sets that the `datasets` library builds: of the hub, and of folders of data files.

Nobody's code is run: scripts are refused. And of a data set's data files, which its README may name at will, only those
inside of it are read: `datasets` itself would follow a README to any JSON file of this machine.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from configs.errors import InputError
from storage import files
from storage.broken import BrokenFile
from storage.fingerprints import fingerprint
from storage.objects import ObjectError
from storage.shards import InputFile
from tasks.ingest.pictures import LOT, Folder
from tasks.ingest.records import SLICE_ROWS, Unusable
from tasks.ingest.saved_datasets import PIECE

HUB = "hf://datasets/"
SECONDS = 20
"""How long the hub may take to name a data set's newest commit."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def unit(config: Any) -> InputFile:
    """The split of a data set as it is now: its commit on the hub, the look of its files in a folder.

    Raises:
        InputError: It is not there, or cannot be read so.
        ObjectError: The hub cannot be asked.
    """
    if config.streaming and re.search(r"[\[+]", config.split):
        raise InputError(f"`input.split` is {config.split!r}; parts of splits need `input.streaming: false`")
    if find_spec("datasets") is None:
        raise InputError(
            f"`input.path` is {config.path!r}, which needs a package that is not installed: "
            "pip install 'mixwright[huggingface]'"
        )
    size = 0
    fs, path = files.filesystem(config.path)
    if files.is_local(config.path) and os.path.isdir(path):
        url = os.path.abspath(path)
        infos = fs.find(url, detail=True, on_error="raise")
        look: Any = [[name[len(url) :], info["size"], info["mtime"]] for name, info in sorted(infos.items())]
        size = sum(int(info["size"]) for info in infos.values())
    elif _NAME.fullmatch(config.path):
        look = _commit(config)
        url = f"{HUB}{config.path}@{look}"
    else:
        raise InputError(
            f"`input.path` is {config.path!r}; it is no folder here, none of `save_to_disk` elsewhere, and no name on "
            "the Hugging Face hub"
        )
    asked = [config.subset, config.split, config.streaming]
    file = "/".join(part for part in (config.subset, config.split) if part)
    return InputFile(file, url, size, fingerprint({"look": str(look), "asked": asked}))


def _commit(config: Any) -> str:
    """The commit that `revision`, or else the main branch, is now; the hub is not asked if a commit is given."""
    if config.revision and _COMMIT.fullmatch(config.revision):
        return str(config.revision)
    from huggingface_hub import HfApi, errors

    try:
        return str(HfApi().dataset_info(config.path, revision=config.revision, timeout=SECONDS).sha)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise InputError(_missing(config)) from error
    except (OSError, errors.HTTPError) as error:
        raise ObjectError(errno.EIO, _unreachable(config, error)) from error


def _missing(config: Any) -> str:
    what = f"revision {config.revision!r} of it" if config.revision else "public data set of this name"
    return (
        f"`input.path` is {config.path!r}; no folder is there, and the Hugging Face hub shows no {what}: "
        "if it is private, log in with `hf auth login` or set HF_TOKEN"
    )


def _unreachable(config: Any, error: Exception) -> str:
    return (
        f"`input.path` is {config.path!r}; no folder is there, and the Hugging Face hub cannot be reached ({error}): "
        "try again, or give the folder of a copy that `save_to_disk` wrote"
    )


def tables(config: Any, unit: InputFile, head: bool = False) -> tuple[Iterator[pa.Table], pa.Schema]:
    """The rows as Arrow tables, and their schema with the metadata of `datasets`, empty where it is not known before.

    Args:
        config: `configs.inputs.HuggingFaceInput`.
        unit: What `unit` gave.
        head: Only the first rows, nothing downloaded as a whole.

    Raises:
        InputError: There is no such subset or split.
        BrokenFile: The data files are damaged.
        OSError: They cannot be read now.
    """
    import datasets

    datasets.disable_progress_bars()
    with _errors(config, unit, InputError):
        builder = _builder(config, unit)
        if head or config.streaming:
            found = builder.as_streaming_dataset(split=re.split(r"[\[+]", config.split)[0].strip())
            count = LOT
        else:
            builder.download_and_prepare()
            found = builder.as_dataset(split=config.split)
            count = max(1, min(SLICE_ROWS, found.num_rows * PIECE // max(1, found.data.nbytes)))
        schema = found.features.arrow_schema if found.features else pa.schema([])
        return _read(config, unit, found.with_format("arrow").iter(batch_size=count)), schema


def _read(config: Any, unit: InputFile, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    with _errors(config, unit, BrokenFile):
        yield from batches


@contextmanager
def _errors(config: Any, unit: InputFile, wrong: type[InputError] | type[BrokenFile]) -> Iterator[None]:
    """Say in one sentence what went wrong; `wrong` is what errors of value are: of the question or of the content."""
    from datasets import exceptions
    from huggingface_hub import errors

    try:
        yield
    except (InputError, BrokenFile):
        raise
    except exceptions.DatasetNotFoundError as error:
        raise InputError(_missing(config)) from error
    except exceptions.DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise _of_reading(config, unit, cause) or BrokenFile(_line(cause)) from error
    except FileNotFoundError as error:
        raise InputError(f"`input.path` is {config.path!r}; no data files to read are there: {_line(error)}") from error
    except (OSError, errors.HTTPError) as error:
        raise _of_reading(config, unit, error) or BrokenFile(_line(error)) from error
    except (ValueError, TypeError, RuntimeError, KeyError, pa.ArrowException) as error:
        if wrong is BrokenFile or isinstance(error, pa.ArrowException):
            raise BrokenFile(_line(error)) from error
        raise InputError(f"`input.path` is {config.path!r}; `datasets` says: {_line(error)}") from error


def _of_reading(config: Any, unit: InputFile, error: BaseException) -> OSError | None:
    """The error, if it is one of reading and not of content, which Arrow tells by an OSError without a number."""
    from huggingface_hub import errors

    if not isinstance(error, OSError | errors.HTTPError) or (type(error) is OSError and error.errno is None):
        return None
    if unit.url.startswith(HUB) or not isinstance(error, OSError):
        return ObjectError(errno.EIO, _unreachable(config, error))
    return error


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _builder(config: Any, unit: InputFile) -> Any:
    import datasets

    options: dict[str, Any] = {}
    if int(datasets.__version__.split(".")[0]) < 4:  # later ones know no scripts at all
        options["trust_remote_code"] = False
    where = unit.url
    if unit.url.startswith(HUB):
        where, _, options["revision"] = unit.url.removeprefix(HUB).partition("@")
    builder = datasets.load_dataset_builder(where, config.subset, **options)
    for name in _data_files(builder):
        if not any(_is_inside(name, place) for place in _homes(unit, builder)):
            raise InputError(f"`input.path` is {config.path!r}; it names the data file {name!r}, outside of itself")
    return builder


def _data_files(builder: Any) -> list[str]:
    return [name for names in (builder.config.data_files or {}).values() for name in names]


def _homes(unit: InputFile, builder: Any) -> list[str]:
    """What the data files of a data set may begin with: any of its commits, under the name that it has today."""
    if not unit.url.startswith(HUB):
        return [unit.url]
    named = unit.url.removeprefix(HUB).partition("@")[0]
    return [f"{HUB}{name}@" for name in (named, builder.repo_id) if name]


def _is_inside(name: str, home: str) -> bool:
    if home.startswith(HUB):
        return name.startswith(home) and ".." not in name.split("/")
    if "://" in name or not name.startswith(home.rstrip("/") + "/"):
        return False
    try:
        Folder(home).locate(name[len(home.rstrip("/")) + 1 :])
    except Unusable:
        return False
    return True


def places(config: Any, unit: InputFile) -> list[str]:
    """Folders whose files the data set's pictures may be: its own, and what was downloaded and unpacked for it."""
    if not unit.url.startswith(HUB):
        return [unit.url]
    import datasets
    from huggingface_hub import constants

    cached = "datasets--" + config.path.replace("/", "--")
    return [unit.url, os.path.join(constants.HF_HUB_CACHE, cached), str(datasets.config.EXTRACTED_DATASETS_PATH)]
