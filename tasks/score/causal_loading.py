"""Loading a causal language model of `transformers`, refusing what the library would only warn about."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from configs.errors import ConfigError, ModelError
from configs.methods.logits import CausalLm
from tasks.embed.encoder import single_threads
from tasks.score.hub import check_name, named, reached

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".json", ".model", ".txt")
"""Files of a folder that weights, tokenizer and configuration are in."""
NECESSARY = {
    "configuration": ("config.json",),
    "weights": ("*.safetensors",),
    "tokenizer": ("tokenizer.json", "*.model", "vocab.*"),
}
"""What a folder must hold, and files of which one is it."""
POSITIONS = ("max_position_embeddings", "n_positions")

_loading = threading.Lock()
_loaded: dict[tuple[Any, ...], LanguageModel] = {}


def require_transformers() -> None:
    """Raise ConfigError if transformers is not installed; it is not imported."""
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            "`logits: causal_lm` needs transformers, which is not installed: pip install 'mixwright[text]'"
        )


def check_model(config: CausalLm) -> None:
    """Raise if `model` is neither a folder with a model nor the name of one; nothing is loaded or fetched.

    Raises:
        ModelError: No such folder, or no model in it.
        ConfigError: `max_length` is more than its positions.
    """
    folder = Path(config.model)
    if not folder.is_dir():
        check_name(config)
        return
    settings = folder / "config.json"
    for what, names in NECESSARY.items():
        if not any(next(folder.glob(name), None) for name in names):
            raise ModelError(
                f"`model` is {config.model!r}, but that folder holds no {what} ({', '.join(names)}); "
                "write it there with `save_pretrained`"
            )
    try:
        known = json.loads(settings.read_text(encoding="utf-8"))
        known = known.get("text_config") or known
        positions = next((known[name] for name in POSITIONS if isinstance(known.get(name), int)), None)
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{settings} is damaged: {error}; save the model anew") from None
    check_positions(config, positions)


def check_positions(config: CausalLm, positions: int | None) -> None:
    """Raise ConfigError if rows may be longer than the model has positions; None: it has no limit."""
    if positions is not None and config.max_length > positions:
        raise ConfigError(
            f"`max_length` is {config.max_length}, but {config.model} has {positions} positions; lower it to that"
        )


def weights_digest(model: str) -> str | None:
    """Digest of names and contents of the files in a local folder; None for a name on the hub.

    Part of the fingerprint: a model that is trained further under the same name gives new scores.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    found = [f"{path.name} {_file_digest(path, path.stat().st_size, path.stat().st_mtime_ns)}" for path in paths]
    return blake3("\n".join(found).encode()).hexdigest()


@lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified: int) -> str:
    """Content digest; `size` and `modified` are there for the cache."""
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def load_language_model(config: CausalLm, device: str) -> LanguageModel:
    """The model that `config` describes; a process loads it once and then shares it among its threads.

    Only one is kept: a step is done before the next begins, and two large ones seldom have room.

    Raises:
        ModelError: It cannot be found or loaded.
        ConfigError: Its vocabulary or positions do not fit.
    """
    key = (device, config.model, config.revision, config.precision, weights_digest(config.model))
    with _loading:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = LanguageModel(config, device)
        return _loaded[key]


class Computed(NamedTuple):
    """What a forward pass gives."""

    logits: torch.Tensor
    """`(B, N, V)`, on the device."""
    hidden: torch.Tensor | None
    """`(B, N, H)`: what the head makes logits of, if asked for."""
    tokens: torch.Tensor
    """int64 `(B, N)`, on the device."""
    there: torch.Tensor
    """bool `(B, N)`, on the device."""
    finite: torch.Tensor
    """bool `(B,)`, on the CPU: no NaN, no infinity in a row's logits."""


class LanguageModel:
    """A model on its device, and its tokenizer.

    On a CPU several blocks are in the model at once, each on one thread, as in `tasks.embed.encoder`: the bytes do not
    depend on the number of cores. On CUDA one is computed while the one before is scored.

    Attributes:
        tokenizer: As transformers gives it. Hold `tokenizing` while using it: fast ones serve one thread at a time.
        begin: Special tokens in front of a row, as the tokenizer puts them.
        end: Those behind it; where the tokenizer puts none, its end-of-text token, if it has one.
        vocabulary: V, columns of the logits.
        positions: Most tokens of a row; None: no limit.
        workers: Blocks that `submit` works on at once.
    """

    def __init__(self, config: CausalLm, device: str) -> None:
        import torch

        self._device = torch.device(device)
        with _plain_errors(config), _quiet():
            self.tokenizer, model = _fetched(config)
            self.model = model.to(self._device).eval().requires_grad_(False)
        self.tokenizing = threading.Lock()
        self.begin, self.end = special_tokens(self.tokenizer)
        self.positions: int | None = getattr(self.model.config.get_text_config(), POSITIONS[0], None)
        self.workers = 1 if device == "cuda" else os.cpu_count() or 1
        self._seen = threading.local()
        self._head = self.model.get_output_embeddings()
        if self._head is not None:  # its input is what `hidden` is; the last entry of `hidden_states` is it as a rule
            # A hook that knows `self` would be a cycle: the weights would stay until it is collected.
            self._head.register_forward_pre_hook(partial(_see, self._seen))
        self._pool: ThreadPoolExecutor = single_threads(self.workers)
        _check_vocabulary(config, self.tokenizer, self.model.get_input_embeddings().weight.shape[0])
        one = torch.zeros((1, 1), dtype=torch.int64)
        self.vocabulary: int = self.submit(one, one == 0, False).result().logits.shape[-1]

    def submit(self, tokens: torch.Tensor, there: torch.Tensor, hidden: bool) -> Future[Computed]:
        """A forward pass to come.

        Args:
            tokens: int64 `(B, N)`, on the CPU, padded on the right.
            there: bool `(B, N)`: what is no padding.
            hidden: Give the head's inputs too.
        """
        return self._pool.submit(self._forward, tokens, there, hidden)

    def _forward(self, tokens: torch.Tensor, there: torch.Tensor, hidden: bool) -> Computed:
        import torch

        if hidden and self._head is None:
            raise ModelError("the model has no output layer of its own, so that there are no gradients of it")
        full = bool(there.all())
        if self._device.type == "cuda":
            tokens, there = tokens.pin_memory(), there.pin_memory()
        tokens, there = (one.to(self._device, non_blocking=True) for one in (tokens, there))
        self._seen.asked = hidden
        with torch.no_grad():
            # Without a mask, where there is no padding, the attention's fast kernels serve.
            logits = self.model(input_ids=tokens, attention_mask=None if full else there.long()).logits
            # NaN and infinity both survive a sum, which takes no second matrix.
            finite = (torch.isfinite(logits.sum(-1, dtype=torch.float32)) | ~there).all(dim=1).cpu()
        inner = self._seen.__dict__.pop("hidden", None)
        self._seen.asked = False
        return Computed(logits, inner, tokens, there, finite)


def _see(seen: threading.local, head: Any, inputs: tuple[Any, ...]) -> None:
    """Keep the head's input where `_forward` asked for it; who trains the model keeps no activations so."""
    if getattr(seen, "asked", False):
        seen.hidden = inputs[0]


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids that stand before and behind every row."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    at = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)
    begin, end = dressed[:at], dressed[at + len(bare) :]
    if not end and tokenizer.eos_token_id is not None:
        end = [tokenizer.eos_token_id]
    return begin, end


def _fetched(config: CausalLm) -> tuple[Any, Any]:
    """Tokenizer and model, from the folder or the hub: weights as safetensors only, no code."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    where: dict[str, Any] = {"revision": config.revision} if config.revision else {}
    where |= {"trust_remote_code": False, "local_files_only": not Path(config.model).is_dir() and not reached(config)}
    tokenizer = AutoTokenizer.from_pretrained(config.model, **where)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        config.model, dtype=dtype, use_safetensors=True, output_loading_info=True, **where
    )
    model, found = loaded
    if found["missing_keys"]:  # transformers would draw them at random, and warn
        missing = sorted(found["missing_keys"])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"`model` is {config.model!r}, whose files lack the weights {missing[0]}{more}")
    model.config.use_cache = False
    return tokenizer, model


@contextmanager
def _plain_errors(config: CausalLm) -> Iterator[None]:
    """What transformers, the hub and safetensors raise while loading, as one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (ModelError, ConfigError):
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"`model` is {named(config)!r}, which cannot be loaded: {why}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_vocabulary(config: CausalLm, tokenizer: Any, rows: int) -> None:
    last = max(tokenizer.get_vocab().values(), default=0)
    if last >= rows:
        raise ConfigError(
            f"`model` is {config.model!r}, whose tokenizer has token ids up to {last}, but whose vocabulary has "
            f"{rows}: they do not belong together; take the tokenizer that the model was trained with"
        )
