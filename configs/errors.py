"""The catalogue of errors: what a run can be refused or fail with, and what its user does then.

Messages are made where the facts are (the file, the row, the value seen); what a class adds is the kind of fault and
the way out, from which docs/troubleshooting.md is generated. Arguments of method functions that are wrong in
themselves are plain ValueErrors: they are the caller's, not the user's.
"""

from __future__ import annotations

from collections.abc import Iterator


class MixwrightError(ValueError):
    """Raised when a user can mend what is wrong; the message is for people, no traceback is shown."""

    remedy: str = ""
    """What to do, whatever the message's details."""

    def __init__(self, *args: object, remedy: str | None = None) -> None:
        """`remedy`: what to do in this case, instead of the class's; empty where the message says it."""
        super().__init__(*args)
        if remedy is not None:
            self.remedy = remedy


# ----------------------------------------------------------------------------------------------------- before any work
class ConfigError(MixwrightError):
    """Raised when a configuration is refused: an unknown setting, a value out of its bounds, settings at odds."""

    remedy = "`mixwright settings` lists every setting; `mixwright check CONFIG` reads one without running it."


class InputError(MixwrightError):
    """Raised when an input is not there, or is not what its `kind` says."""

    remedy = "Compare `input.path` and `input.kind` with what is in the folder; hidden files and `_names` are left out."


class ColumnError(MixwrightError):
    """Raised when a column is missing, of a wrong type, there twice, or of types that do not go together."""

    remedy = (
        "Take one of the columns that the message lists, or leave the column out with `input.exclude`; a type that "
        "`datasets` cannot read back becomes text with `input.unsupported: json`."
    )


class StageError(MixwrightError):
    """Raised when a stage needs what no stage before it makes, or settings of two stages contradict each other."""

    remedy = "Add the section that makes the missing column (`embed`, `annotate`, `score`), or drop what needs it."


class ModelError(MixwrightError):
    """Raised when a model, its weights or its device are unknown, missing or broken."""

    remedy = (
        "Of `embed`: `model` and `pretrained` as open_clip lists them, a folder as `local-dir:…`. Of a language model: "
        "the path of a folder, or `org/name` on the hub. `device: auto` always works."
    )


class PlaceError(MixwrightError):
    """Raised when a place cannot be used: nothing can be written there, or no package for its URLs is installed."""

    remedy = "Check the path, its permissions and the free space; `pip install 'mixwright[s3]'` or `[gcs]` for URLs."


class CredentialsError(MixwrightError):
    """Raised when a configuration carries a secret, or names an environment variable that is not set."""

    remedy = "Write `env:NAME` in `storage` and set NAME where runs start; never a secret itself, in no URL either."


# -------------------------------------------------------------------------------------------------------- during a run
class RunFailed(MixwrightError):
    """Raised when a run cannot go on; what was finished stays."""

    remedy = "Mend what the message names and run the same command again: only what is missing is done."


class ShardsFailed(RunFailed):
    """Raised when some shards could not be processed (a file vanished, the network broke); the others are done."""

    remedy = "Run the same command again: only those shards are tried. `2 of 40 shards failed` names the first."


class Interrupted(RunFailed):
    """Raised when a run is told to end: by Ctrl-C, or by who started it."""

    remedy = "Run the same command again: it goes on where it was, within a training too."


class PlaceFull(RunFailed):
    """Raised when a disk, a quota or a limit on file sizes leaves no room for what is to be written."""

    remedy = "Make room (the message says how much is free), then run the same command again: nothing is lost."


class ReadOnly(RunFailed):
    """Raised when the file system of the store or the mixes becomes read-only while a run writes to it."""

    remedy = "Disks become read-only after errors: look at the system's log, mount it writable, run the command again."


class StoreLost(RunFailed):
    """Raised when files that the run made or read before are gone: the store was deleted or cleaned meanwhile."""

    remedy = "Run the same command again: what was lost is made again. Nothing should clean a store that is in use."
    gone: str = ""
    """One of the files."""


class TooMuchQuarantined(RunFailed):
    """Raised when more rows or files are in the quarantine than `max_quarantine_fraction` allows."""

    remedy = (
        "The message counts the reasons, the table below explains them. Mend the input, or raise the limit: what is "
        "done is not done again."
    )


class StoreInUse(RunFailed):
    """Raised when `mixwright gc` meets a run that uses the store, or cannot tell whether a mix still needs it."""

    remedy = (
        "Wait until that run has ended, or end it; make the mix reachable. Until then nothing is removed: what a run "
        "or a kept mix needs is never in danger."
    )


class Defect(RunFailed):
    """Raised when the books do not balance: Mixwright's own mistake. No mix is published."""

    remedy = "Please report it with the message, the configuration and the log."


# -------------------------------------------------------------------------------------------------- looking at a mix
class MixError(MixwrightError):
    """Raised when a folder is no mix, or a row or report of it is not there."""

    remedy = "Runs print the folder of their mix; the folder above, with `latest.json`, does as well."


def catalogue(family: type[MixwrightError] = MixwrightError) -> Iterator[type[MixwrightError]]:
    """The classes of the family in the order of their definition, each before those derived from it."""
    for member in family.__subclasses__():
        yield member
        yield from catalogue(member)
