"""The hub of models: whether a language model's name can be one there, and whether the hub answers; asked once."""

from __future__ import annotations

import os
import re

from configs.errors import ModelError
from configs.methods.logits import CausalLm

HUB_SECONDS = 5.0
"""To wait for the hub's answer at most; nobody asks twice."""
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


def check_name(config: CausalLm) -> None:
    """Raise ModelError if `model`, which is no folder, cannot be the name of a model on the hub either."""
    if not _HUB_NAME.fullmatch(config.model):
        raise ModelError(
            f"`model` is {config.model!r}, which is neither a folder nor a name on the hub: there is no folder "
            f"{_absolute(config)} (relative paths start at the working directory), and names look like org/name"
        )


def reached(config: CausalLm) -> bool:
    """Whether the hub has the model; False: it cannot be asked, but the cache has it. transformers would ask for long.

    Raises:
        ModelError: The hub says no, or cannot be asked and the cache has nothing.
    """
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache

    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError)
    name, sought = named(config), f"there is no folder {_absolute(config)}"
    try:
        HfApi().model_info(config.model, revision=config.revision, timeout=HUB_SECONDS)
    except absent as error:
        why = str(error).strip().splitlines()[0]
        raise ModelError(f"`model` is {name!r}: {sought}, and {constants.ENDPOINT} does not give it: {why}") from None
    except Exception as error:  # each version of the library has another HTTP library, with errors of its own
        found = try_to_load_from_cache(config.model, "config.json", revision=config.revision)
        if isinstance(found, str):
            return False
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"`model` is {name!r}: {sought}, the hub's cache has no such model, and {constants.ENDPOINT} cannot be "
            f"asked: {why}"
        ) from None
    return True


def named(config: CausalLm) -> str:
    """The model with its revision, for messages."""
    return f"{config.model}@{config.revision}" if config.revision else config.model


def _absolute(config: CausalLm) -> str:
    """Where the folder would be, for messages."""
    return os.path.abspath(config.model)
