"""Tuning of GAIS-style (reconstructed) selection by Optuna (the extra `tune`): which graph and network suit the rows.

A trial keeps rows of four fifths of the sample; its value is how well the nearest kept row tells the class of the
rest, averaged over classes. Ranges of the network are those of the authors' sibling code.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.methods.diversity import Gais, GaisGraph, GaisNetwork
from tasks.select.gais_blocks import held_out
from tasks.select.gais_clusters import nearest

HELD_OUT = 0.2


def tuned(
    x: np.ndarray, y: np.ndarray, config: Gais, *, seed: int, device: str = "cpu"
) -> tuple[GaisGraph, GaisNetwork]:
    """The settings of the best of `config.tune_trials` trials, the first of which has the settings given.

    Args:
        x: float32 `(n, d)`, scaled.
        y: int64 `(n,)`, class codes.

    Raises:
        ConfigError: Optuna is not installed.
    """
    require_optuna()
    import optuna

    from tasks.select.gais import select

    out = held_out(y, HELD_OUT, seed)
    learn, ask = np.flatnonzero(~out), np.flatnonzero(out)
    if not len(ask):  # no class has two rows
        return config.graph, config.network
    ratio = config.keep_ratio or (1 - config.percentile if config.percentile is not None else 0.04)

    def value(trial: optuna.Trial) -> float:
        graph, network = suggested(trial, config)
        chosen: dict[str, Any] = {"keep_ratio": ratio, "graph": graph, "network": network, "score": config.score}
        kept = learn[select(x[learn], y[learn], seed=seed, device=device, **chosen)]
        right = y[kept[nearest(x[ask], x[kept])]] == y[ask]
        return float(np.mean([right[y[ask] == c].mean() for c in np.unique(y[ask])]))

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the settings given may be outside the ranges
            sampler = optuna.samplers.TPESampler(seed=seed & 0xFFFFFFFF)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.enqueue_trial(_given(config))
            study.optimize(value, n_trials=config.tune_trials)
            return suggested(optuna.trial.FixedTrial(study.best_params), config)
    finally:
        optuna.logging.set_verbosity(before)


def require_optuna() -> None:
    """Raise ConfigError if Optuna is not installed; it is not imported."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("`tune_trials` needs Optuna, which is not installed: pip install 'mixwright[tune]'")


def suggested(trial: Any, config: Gais) -> tuple[GaisGraph, GaisNetwork]:
    """Settings that `trial` suggests; those that its kind of graph does not read stay as they are."""
    graph = config.graph
    if graph.kind in ("mini_batch", "chunks"):
        found: dict[str, Any] = {"metric": trial.suggest_categorical("metric", ["euclidean", "manhattan", "cosine"])}
        found["similarity_threshold"] = trial.suggest_float("similarity_threshold", 0.7, 0.999)
    elif graph.hashed:
        finest = trial.suggest_int("bits", 4, 24)
        found = {"bits": tuple(dict.fromkeys(max(1, finest - 4 * level) for level in range(len(graph.levels))))}
        if graph.kind != "single_level":
            found["agreement"] = trial.suggest_float("agreement", 0.1, 1.0)
    else:
        found = {}
    network = {
        "hidden": trial.suggest_int("hidden", 4, 64),
        "heads": trial.suggest_int("heads", 4, 16),
        "output_heads": trial.suggest_int("output_heads", 1, 4),
        "attention_dropout": trial.suggest_float("attention_dropout", 0.0, 0.7),
    }
    # Built anew, so that bounds and rules between settings hold.
    return GaisGraph(**graph.model_dump() | found), GaisNetwork(**config.network.model_dump() | network)


def _given(config: Gais) -> dict[str, Any]:
    """The settings as given, as the parameters of a trial; bits by their finest level."""
    graph = {name: getattr(config.graph, name) for name in ("metric", "similarity_threshold", "agreement")}
    network = {name: getattr(config.network, name) for name in ("hidden", "heads", "output_heads", "attention_dropout")}
    return graph | network | {"bits": config.graph.levels[0]}
