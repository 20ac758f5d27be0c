"""Vocabularies that a user can name: built-in ones, and text files of concepts, one a line."""

from __future__ import annotations

from collections.abc import Iterable

from configs.errors import ConfigError
from storage import files
from storage.fingerprints import digest, versions
from tasks.annotate.cleaning import normalise
from tasks.annotate.entries import lines_of

BUILT_IN = {"imagenet-1k": "open_clip_torch", "imagenet-21k": "timm"}
"""Name -> the distribution that ships the list."""


def check(vocabulary: str, cleaning: str = "none") -> None:
    """Raise ConfigError if `vocabulary` is neither a built-in name nor a file with a concept, `cleaning` considered.

    No library is imported.
    """
    if vocabulary in BUILT_IN:
        return
    names = lines_of(read_text(vocabulary))
    if not any(names if cleaning == "none" else map(normalise, names)):
        raise ConfigError(f"`annotate.vocabulary` is {vocabulary!r}; there is no concept in it, write one a line")


def identity(vocabulary: str) -> str:
    """What stands for the content in a fingerprint: a file's digest, or the name and the version of what ships it.

    Raises:
        ConfigError: There is no such vocabulary.
    """
    if vocabulary in BUILT_IN:  # by version: to read the list imports torch, which a plan must not
        package = BUILT_IN[vocabulary]
        return f"{vocabulary} of {package} {versions((package,))[package]}"
    return digest(_read_file(vocabulary))


def read_text(vocabulary: str) -> str:
    """The vocabulary as text, a concept a line; for a built-in one the library that ships it is imported.

    Names that a list has for two things ("crane", the bird and the machine) are one concept to whoever parses it: 998
    of ImageNet's 1,000 classes and 20,101 of its 21,843 synsets remain.

    Raises:
        ConfigError: There is no such vocabulary, or the file is not UTF-8.
    """
    if vocabulary == "imagenet-1k":
        from open_clip import IMAGENET_CLASSNAMES

        return "\n".join(IMAGENET_CLASSNAMES)
    if vocabulary == "imagenet-21k":
        from timm.data import ImageNetInfo

        return "\n".join(first_lemmas(ImageNetInfo("imagenet-21k").label_descriptions()))
    try:
        return _read_file(vocabulary).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"`annotate.vocabulary` is {vocabulary!r}, which is not UTF-8 text: {error}") from error


def first_lemmas(descriptions: Iterable[str]) -> list[str]:
    """The first, most usual word for each synset, of its lemmas joined by ", "."""
    return [description.split(", ")[0] for description in descriptions]


def _read_file(vocabulary: str) -> bytes:
    fs, path = files.filesystem(vocabulary)
    if not fs.isfile(path):
        raise ConfigError(
            f"`annotate.vocabulary` is {vocabulary!r}; there is no such file, and built in are {', '.join(BUILT_IN)}"
        )
    return files.read_bytes(vocabulary)
