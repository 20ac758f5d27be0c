"""JEST: joint example selection (Evans et al., arXiv 2406.17711). Picks a batch that is learnable as a whole.

In a contrastive loss a row's loss depends on the rows beside it. So rows are not scored alone, as in RHO-LOSS
(Mindermann et al., arXiv 2206.07137), but chosen chunk by chunk, each chunk given the rows chosen before it. Of the
paper the abstract was read, and two re-implementations of its algorithm, which differ; the authors' own pseudo-code was
not. This is a reconstruction: the first chunk by the rows' own losses, both directions counted, Gumbel top-k draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from configs.errors import ColumnError
from configs.methods import sample as methods
from tasks.arguments import at_least
from tasks.sample.pairs import Form, Pairs, given, unit_vectors

Given: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Newly chosen rows -> float64 `(towers, 2, n)`: what their images, and their texts, add to the loss of each row."""

SIDECARS = ("image_embedding", "text_embedding")
"""Columns that `embed` makes; others that a model names are of the input."""


def select_joint(
    learner_loss: ArrayLike,
    reference_loss: ArrayLike,
    batch_size: int,
    *,
    form: Form = "sigmoid",
    chunks: int = 16,
    greedy: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Returns the rows that JEST picks, in order of selection: int64 `(batch_size,)`, no row twice.

    With S = learner - reference, the first chunk is drawn by logit_i = S_ii, each further one by what S_i is given the
    chosen rows C. Each chunk is drawn without replacement from softmax(logit), or, greedy, is the rows with the highest
    logits, equal ones by lower index. Of `batch_size` rows each chunk has `batch_size // chunks`, the last the
    remainder too. A constant added to a whole matrix changes nothing; where S is zero off the diagonal, greedy picks
    are the `batch_size` highest S_ii for any number of chunks, which is RHO.

    `sigmoid`: the matrices hold losses; (i, i) that of pair i, (i, j) that of image i with text j as a negative.
    logit_i = S_ii + sum over j in C of (S_ij + S_ji).

    `softmax`: (i, i) holds minus the logit of pair i, (i, j) the logit of image i with text j. The loss of row i given
    C is then L_ii + (log sum over j in C of exp(L_ij) + log sum over j in C of exp(L_ji)) / 2, that of its image and
    its text against the chosen negatives, and logit_i is the learner's less the reference's.

    All arithmetic is in float64, and of the matrices only diagonals and the chosen rows' rows and columns are read.

    Args:
        learner_loss: `(B, B)`, of the model in training.
        reference_loss: `(B, B)`, of a model trained on clean data.
        batch_size: Rows wanted, at most B.
        form: What the matrices hold.
        chunks: At most `batch_size`; 1: the rows' own losses alone.
        greedy: Take the highest instead of drawing.
        seed: Of the draws.

    Raises:
        ValueError: An argument is out of its bounds, or a loss is not finite.
    """
    learner, reference = _square("learner_loss", learner_loss), _square("reference_loss", reference_loss)
    if learner.shape != reference.shape:
        raise ValueError(f"`reference_loss` is {reference.shape}; it must be as `learner_loss`, {learner.shape}")
    _whole("batch_size", batch_size, len(learner), "the rows there are")
    _whole("chunks", chunks, batch_size, "`batch_size`")
    at_least(seed=(seed, 0))
    if form not in get_args(Form):
        raise ValueError(f"`form` is {form!r}; it must be one of {', '.join(get_args(Form))}")
    reduce_rows = _REDUCED[form]

    def terms(new: np.ndarray) -> np.ndarray:
        both = ((matrix[new], matrix[:, new].T) for matrix in (learner, reference))
        return np.array([[reduce_rows(losses.astype(np.float64)) for losses in pair] for pair in both])

    own = learner.diagonal().astype(np.float64) - reference.diagonal().astype(np.float64)
    rng = None if greedy else np.random.default_rng(seed)
    return _pick(own, terms, _Rule(form, (1.0, -1.0), _sizes(batch_size, chunks)), rng)


class _Rule(NamedTuple):
    """What governs the picks of one superbatch."""

    form: Form
    signs: tuple[float, ...]
    """How each tower counts: +1 the learner, -1 the reference."""
    sizes: list[int]
    """Rows of each chunk."""


def _pick(own: np.ndarray, terms_of: Given, rule: _Rule, rng: np.random.Generator | None) -> np.ndarray:
    """Returns the picks: int64, as many as `rule.sizes` say, or all rows if there are fewer.

    Args:
        own: float64 `(n,)`, S_ii.
        terms_of: See `Given`; asked once for each chunk but the last.
        rule: See `_Rule`.
        rng: Of the draws; None: the highest are taken.
    """
    merge = np.add if rule.form == "sigmoid" else np.logaddexp
    weight = 1.0 if rule.form == "sigmoid" else 0.5
    left, logits = np.ones(len(own), bool), own
    picks: list[np.ndarray] = []
    terms: np.ndarray | None = None
    for number, size in enumerate(rule.sizes):
        if number:
            found = terms_of(picks[-1])
            terms = found if terms is None else merge(terms, found)
            logits = own + weight * (np.array(rule.signs) @ terms.sum(axis=1))
        # Gumbel top-k: the highest of logit + noise are draws without replacement from the softmax, in order.
        keys = logits if rng is None else logits + rng.gumbel(size=len(own))
        candidates = np.flatnonzero(left)
        new = candidates[np.argsort(-keys[candidates], kind="stable")[:size]]
        picks.append(new)
        left[new] = False
        if not left.any():
            break
    return np.concatenate(picks)


def _sizes(batch_size: int, chunks: int) -> list[int]:
    """Rows of each chunk: equal, the last with the remainder."""
    share, remainder = divmod(batch_size, chunks)
    return [share] * (chunks - 1) + [share + remainder]


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """log sum exp over the first axis."""
    highest = logits.max(axis=0)
    return np.asarray(highest + np.log(np.exp(logits - highest).sum(axis=0)))


_REDUCED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": lambda losses: losses.sum(axis=0),
    "softmax": _log_sum_exp,
}


def _square(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` is {array.dtype} of shape {array.shape}; it must be a square matrix of numbers")
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise ValueError(f"`{name}` holds {array[row, column]} at ({row}, {column}); every loss must be finite")
    return array


def _whole(name: str, value: int, most: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number in [1, {most}], {most} being {what}")


class Jest:
    """JEST on embeddings of two models: of each superbatch each rank takes b/W of its B/W rows.

    The picks are those of `select_joint` on the matrices that the embeddings give, which are never made: only a chunk's
    losses with the rows of a block are there at a time. Cosines and single losses are float32 (embeddings rest as
    float16, whose rounding is a hundred times coarser), sums float64. A row with a vector that is null, not finite,
    zero or of another width than most is picked only when no other row is left, in order; it counts for no other row.
    """

    independent: bool = True
    libraries = ("torch",)
    part_rows: int = 1 << 15
    """Vectors are wide: four of 512 numbers are 4 to 8 KiB a draw."""

    def __init__(self, config: methods.Jest, *, seed: int = 0) -> None:
        self.config, self._seed = config, seed
        self._signs, self._towers = zip(*config.towers(), strict=True)
        self.needs: tuple[str, ...] = tuple(dict.fromkeys(n for one in self._towers for n in (one.image, one.text)))
        self.input_columns: tuple[str, ...] = tuple(name for name in self.needs if name not in SIDECARS)

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if columns of these types hold no vectors."""
        for name in schema.names:
            unit_vectors(schema.empty_table()[name], name)

    def pick(self, superbatch: pa.Table, step: int) -> list[np.ndarray]:
        """Returns one int64 array of row indices per rank; see `tasks.sample.Sampler`.

        Raises:
            ColumnError: A column does not hold vectors, or a model's two columns hold vectors of different widths.
        """
        config = self.config
        if superbatch.num_rows != config.superbatch:
            raise ValueError(f"`superbatch` has {superbatch.num_rows} rows; it must have {config.superbatch}")
        found = {name: unit_vectors(superbatch[name], name) for name in self.needs}
        for tower in self._towers:
            widths = [units.shape[1] for units, valid in (found[tower.image], found[tower.text]) if valid.any()]
            if len(set(widths)) > 1:
                raise ColumnError(
                    f"`{tower.image}` has {widths[0]} numbers and `{tower.text}` {widths[1]}; the two columns of one "
                    "model must be vectors of one space"
                )
        sound = np.logical_and.reduce([valid for _, valid in found.values()])
        vectors = {name: units for name, (units, _) in found.items()}
        share = config.superbatch // config.world_size
        return [
            self._pick_rank(vectors, rank * share, sound[rank * share : (rank + 1) * share], [self._seed, step, rank])
            for rank in range(config.world_size)
        ]

    def _pick_rank(self, vectors: dict[str, np.ndarray], first: int, sound: np.ndarray, seed: list[int]) -> np.ndarray:
        """Returns the picks of the rank whose rows begin at `first`."""
        config = self.config
        quota = config.batch_size // config.world_size
        rows, rest = first + np.flatnonzero(sound), first + np.flatnonzero(~sound)
        picks = rows[:0]
        if len(rows):
            pairs = [Pairs(vectors[t.image][rows], vectors[t.text][rows], t, config.form) for t in self._towers]
            own = np.array(self._signs) @ np.stack([one.own() for one in pairs])
            rng = None if config.greedy else np.random.default_rng(seed)
            rule = _Rule(config.form, self._signs, _sizes(quota, config.chunks))
            picks = rows[_pick(own, lambda new: given(pairs, new), rule, rng)]
        return np.concatenate([picks, rest])[:quota].astype(np.int64)
