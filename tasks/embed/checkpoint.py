"""Loading an open_clip model by name, refusing what open_clip would only warn about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from configs.errors import ModelError
from configs.methods.embed import OpenClip
from configs.pocket import FOLDER

SCHEMES = ("hf-hub:", "local-dir:")
CHECKPOINT_SUFFIXES = (".json", ".safetensors", ".bin", ".pth")
"""What open_clip reads from a model folder."""
POCKET = "pocket"
"""Name of the model that lies in the repository."""


def located(config: OpenClip) -> OpenClip:
    """`config` as open_clip understands it: the name `pocket` replaced by the folder that it stands for."""
    return config.model_copy(update={"model": f"local-dir:{FOLDER}"}) if config.model == POCKET else config


def load_model(config: OpenClip, device: str) -> tuple[Any, Any, Any]:
    """Model in evaluation mode, its evaluation transform, its tokenizer.

    Without `pretrained` the weights are random, drawn from `seed`; checkpoints are read as weights only, never as code.

    Raises:
        ModelError: If the model or its weights are unknown; names close matches.
    """
    import open_clip
    import torch

    check_names(config)
    config = located(config)
    tag = open_clip.get_pretrained_cfg(config.model, config.pretrained) if config.pretrained else {}
    # The default generator alone is seeded: torch.manual_seed would touch those of CUDA too, and no fork restores them.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model, _, transform = open_clip.create_model_and_transforms(
            config.model,
            config.pretrained,
            precision=config.precision,
            device=device,
            force_quick_gelu=bool(tag.get("quick_gelu")),  # a mismatch only warns, and the embeddings are off
            force_image_size=config.image_size,
            force_context_length=config.context_length,
            pretrained_text=False,
            weights_only=True,
            # Else a hub or folder without a checkpoint means random weights and a line in the log.
            require_pretrained=config.pretrained is not None or config.model.startswith(SCHEMES),
        )
    tokenizer = open_clip.get_tokenizer(config.model, context_length=config.context_length)
    return model.eval().requires_grad_(False), transform, tokenizer


def check_names(config: OpenClip) -> None:
    """Raise ModelError, with close matches, if `model` or `pretrained` names nothing that open_clip can load."""
    import open_clip

    if config.model == POCKET or config.model.startswith(SCHEMES):
        _check_scheme(config)
        return
    architectures = [*open_clip.list_models(), POCKET]
    if config.model.replace("/", "-") not in architectures:
        raise ModelError(f"`model` is {config.model!r}, unknown to open_clip; {_near(config.model, architectures)}")
    if config.pretrained is None or Path(config.pretrained).is_file():
        return
    if not open_clip.get_pretrained_cfg(config.model, config.pretrained):
        tags = open_clip.list_pretrained_tags_by_model(config.model)
        raise ModelError(
            f"`pretrained` is {config.pretrained!r}, neither a file nor a tag of {config.model}; "
            f"{_near(config.pretrained, tags)}"
        )


def weights_digest(config: OpenClip) -> str | None:
    """Digest of the local files that `pretrained` or `local-dir:` names; None where weights come from elsewhere.

    Part of the fingerprint: a checkpoint that is trained further under the same name gives new embeddings.
    """
    config = located(config)
    if config.model.startswith("local-dir:"):
        inside = Path(config.model.removeprefix("local-dir:")).glob("*")
        paths = sorted(path for path in inside if path.suffix in CHECKPOINT_SUFFIXES)
    else:
        paths = [Path(config.pretrained)] if config.pretrained and Path(config.pretrained).is_file() else []
    found = [_file_digest(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return blake3(" ".join(found).encode()).hexdigest() if found else None


@lru_cache
def _file_digest(path: Path, size: int, modified: int) -> str:
    """Content digest; `size` and `modified` are there for the cache."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _check_scheme(config: OpenClip) -> None:
    if config.model == POCKET and config.image_size is not None:
        raise ModelError(f"`image_size` is {config.image_size}; it must be null, since pocket takes its own size only")
    scheme, name = located(config).model.split(":", 1)
    if scheme == "local-dir" and not (Path(name) / "open_clip_config.json").is_file():
        raise ModelError(f"`model` is {config.model!r}, but {name} holds no open_clip_config.json")
    if config.pretrained is not None:
        raise ModelError(
            f"`pretrained` is {config.pretrained!r}; it must be null, since {config.model!r} brings its own weights"
        )


def _near(name: str, known: Iterable[str]) -> str:
    """Up to five of the known names that look like `name`, else the first twenty, as words for an error."""
    by_lower = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=5, cutoff=0.5)
    return f"known: {', '.join(by_lower[entry] for entry in close or list(by_lower)[:20]) or 'none'}"
