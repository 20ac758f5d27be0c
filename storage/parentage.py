"""What became of the input: the files that a mix was made from against those that are there now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

TOLD = 3
"""Files of each kind that a sentence names."""


@dataclass(frozen=True)
class FileChanges:
    """Input files that are not what they were, in the order of their names."""

    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    """Same name, other content."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Old and new name of one content."""
    unread: list[str] = field(default_factory=list)
    """Same name, content not known yet: written or touched since it was read."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any((self.new, self.gone, self.rewritten, self.renamed, self.unread))

    @property
    def told(self) -> str:
        """The counts and the first names, in words; empty if nothing has changed."""
        kinds = {
            "new": self.new,
            "gone": self.gone,
            "rewritten": self.rewritten,
            "renamed": [f"{old} -> {name}" for old, name in self.renamed],
            "written or touched since they were read": self.unread,
        }
        return "; ".join(f"{len(names):,} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _first(names: list[str]) -> str:
    shown = (
        "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name) for name in names[:TOLD]
    )
    return ", ".join([*shown, *(["…"] if len(names) > TOLD else [])])


def changed_files(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> FileChanges:
    """The changes from `before` to `now`: lists like `parents` of a manifest, dicts with `file` and `digest`.

    A digest of None in `now` is one that is not known yet. A new file with the content of one that is gone is that
    one renamed; of several with one content the first of the old names became the first of the new.
    """
    old = {one["file"]: one["digest"] for one in before}
    new = {one["file"]: one["digest"] for one in now}
    gone_by_digest: dict[str, list[str]] = defaultdict(list)
    for file in sorted(old.keys() - new.keys(), reverse=True):
        gone_by_digest[old[file]].append(file)
    added, renamed = [], []
    for file in sorted(new.keys() - old.keys()):
        candidates = gone_by_digest.get(new[file])
        if candidates:
            renamed.append((candidates.pop(), file))
        else:
            added.append(file)
    both = sorted(old.keys() & new.keys())
    return FileChanges(
        new=added,
        gone=sorted(file for left in gone_by_digest.values() for file in left),
        rewritten=[file for file in both if new[file] is not None and new[file] != old[file]],
        renamed=sorted(renamed),
        unread=[file for file in both if new[file] is None],
    )
