"""A score by a graph of skills: how near a row is to the skills, and pairs of skills, that a reference set is rich in.

MASS-style: after "MASS: Mathematical Data Selection via Skill Graphs" (arXiv 2503.14917), of which the abstract and
summaries were read and no code exists. The formulas here are a reconstruction that agrees with those; what they leave
open (edge threshold, pair convention, rule of merging) is a setting. None of the paper's figures is claimed.

A_ii is the share of skill i in all occurrences, A_ij that of the pair in all meetings of two skills in a row. The
paper's aggregation S A, S the cosines of rows and skills, summed over skills, is linear in S: it is S times the row
sums of A, and with unit vectors one dot product of a row with g, the sum of skills' vectors by those row sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from configs.errors import ModelError, StageError
from configs.methods.annotate import ZeroShot
from configs.methods.skills import SkillGraph as Config
from storage.states import Checkpoint, State
from tasks import Result
from tasks.annotate.entries import encode_vocabulary
from tasks.annotate.zero_shot import ZeroShotAnnotator
from tasks.by_column import only
from tasks.sample.concepts import Labels, encode, without_repeats
from tasks.score import skill_reference, skills
from tasks.score.skill_merging import merge

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["SkillGraph", "ablated", "adjacency", "degrees", "direction", "merge", "scores"]

Pairs = Literal["unordered", "ordered"]
Parts = Literal["full", "nodes", "edges", "none"]
SKILLS, VECTOR, WORD, SUM = "skills", "vector", "word", "sum"


# ---------------------------------------------------------------------------------------------------------------- graph
def adjacency(
    skill_sets: Sequence[Sequence[int]] | pa.Array | pa.ChunkedArray | tuple[np.ndarray, np.ndarray],
    num_skills: int,
    *,
    min_cooccurrence: int = 1,
    pairs: Pairs = "unordered",
) -> csr_array:
    """Returns the weights of skills and of pairs of them: sparse float64 `(num_skills, num_skills)`, symmetric.

    A_ii = c_i / sum_k c_k, c_i being the rows with skill i. A_ij = c_ij / sum c_kl, c_ij being the rows with both, and
    the sum over unordered pairs, or over both orders. The diagonal sums to one, and so do the edges in the given
    convention; without any they are zero. Reconstructed, see the module.

    Args:
        skill_sets: Each row's skills, repeats counted once: lists of ints, an Arrow list array of ints, or a pair of
            arrays `(offsets, ids)`, row i being `ids[offsets[i]:offsets[i + 1]]`.
        num_skills: n, more than any id.
        min_cooccurrence: Rows in which two skills must meet to be joined.
        pairs: What edges are normalised over.

    Raises:
        ValueError: An id is negative or not below `num_skills`, or an argument is none of its choices.
    """
    from scipy.sparse import csr_array, diags_array

    _check(pairs=(pairs, ("unordered", "ordered")))
    if num_skills < 1 or min_cooccurrence < 1:
        raise ValueError(f"`num_skills` is {num_skills} and `min_cooccurrence` {min_cooccurrence}; both must be >= 1")
    if isinstance(skill_sets, tuple) and len(skill_sets) == 2 and all(isinstance(a, np.ndarray) for a in skill_sets):
        offsets, ids = (np.asarray(one) for one in skill_sets)
        if len(ids) and not 0 <= ids.min() <= ids.max() < num_skills:
            raise ValueError(f"`ids` go from {ids.min()} to {ids.max()}; they must be in [0, {num_skills})")
    else:
        labels: Labels = encode(skill_sets, num_skills)
        offsets, ids = labels.offsets, labels.ids
    counts = skills.together(*without_repeats(offsets, ids, num_skills), num_skills)
    rows = counts.diagonal().astype(np.float64)
    edges = counts - diags_array(rows)
    edges.data[edges.data < min_cooccurrence] = 0
    total = edges.sum() / (2 if pairs == "unordered" else 1)
    found = csr_array(edges / max(1, total) + diags_array(rows / max(1, rows.sum())))
    found.eliminate_zeros()
    return found


def ablated(weights: csr_array, parts: Parts) -> csr_array:
    """Returns an ablation of an adjacency: weights of `nodes` alone, of `edges` alone, `none` (I / n); or it as it is.

    Raises:
        ValueError: `parts` is none of these.
    """
    from scipy.sparse import csr_array, diags_array

    _check(parts=(parts, ("full", "nodes", "edges", "none")))
    nodes = diags_array(weights.diagonal())
    if parts == "nodes":
        return csr_array(nodes)
    if parts == "edges":
        return csr_array(weights - nodes)
    return weights if parts == "full" else csr_array(diags_array(np.full(weights.shape[0], 1 / weights.shape[0])))


def degrees(rows: np.ndarray, met: np.ndarray, pairs: Pairs = "unordered", parts: Parts = "full") -> np.ndarray:
    """Returns the row sums of the adjacency, float64 `(n,)`, from sums of counts alone [derived].

    Args:
        rows: int64 `(n,)`, rows with each skill.
        met: int64 `(n,)`, sum of c_ij over those j that skill i is joined with.
        pairs: See `adjacency`.
        parts: See `ablated`.
    """
    if parts == "none":
        return np.full(len(rows), 1 / len(rows))
    nodes = rows / max(1, rows.sum())
    edges = met / max(1, met.sum() // (2 if pairs == "unordered" else 1))
    return {"full": nodes + edges, "nodes": nodes, "edges": edges}[parts]


# --------------------------------------------------------------------------------------------------------------- scores
def scores(similarity: np.ndarray, weights: csr_array) -> np.ndarray:
    """Returns the scores of rows, float64 `(N,)`: `sum_i (S A)_ji`, worked out as S times A's row sums.

    Args:
        similarity: float `(N, n)`, cosines of rows and skills.
        weights: Sparse `(n, n)`, of `adjacency`.
    """
    return similarity @ np.asarray(weights.sum(axis=1)).ravel()


def direction(skill_vectors: np.ndarray, weights: csr_array) -> np.ndarray:
    """Returns g, float64 `(h,)`: the score of a row with the unit vector e is its dot product with g.

    Args:
        skill_vectors: float `(n, h)`, unit rows.
        weights: Sparse `(n, n)`, of `adjacency`.
    """
    return skills.collapsed(skill_vectors, np.asarray(weights.sum(axis=1)).ravel())


def _check(**choices: tuple[str, Sequence[str]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"`{name}` is {value!r}; it must be one of {', '.join(known)}")


# --------------------------------------------------------------------------------------------------------------- scorer
class SkillGraph:
    """A fitted scorer: `fit` builds the graph and keeps g, `run` is one dot product a row, null without an embedding.

    The graph is made of the alive rows' lists, or of the reference's. A skill's vector is its name's, by the model's
    text tower, or the mean direction of the alive rows that have it; one without a vector has a weight and adds no
    similarity. Merged skills go by the commonest one's vector, and count once in a row.
    """

    def __init__(self, config: Config, *, state: State | None = None) -> None:
        self.config, self._state = config, state
        self._column = f"{config.against}_embedding"
        self._lists = self.learns_from_rows = config.reference is None or config.vectors == "rows"
        self.needs: tuple[str, ...] = (*((config.skills,) if self._lists else ()), self._column)
        self.input_columns: tuple[str, ...] = (config.skills,) if self._lists and config.skills != "concepts" else ()
        self.provides: tuple[str, ...] = (config.name,)
        self.libraries: tuple[str, ...] = ("scipy", *(ZeroShotAnnotator.libraries if config.vectors == "names" else ()))
        self.remedy = (
            "Skills come from `annotate` or an input column; set `against` to what `embed` makes, image or text."
        )

    @property
    def device(self) -> str:
        """Where names are embedded; rows are scored on the CPU."""
        return self._tower({}).device if self.config.vectors == "names" and self._state is None else "cpu"

    def check(self) -> None:
        """Raise a MixwrightError if the reference or the model is not there, or not what it must be."""
        if self.config.reference is not None:
            next(skill_reference.lists_of(self.config.reference, self.config.reference_column), None)
        if self.config.vectors == "names":
            self._tower({}).check()

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise ColumnError if the skills are no lists of strings."""
        for name in self.input_columns:
            skills.check_lists(schema.field(name).type, f"`{name}`")

    def depends_on(self) -> dict[str, Any]:
        """The content of the reference, and what the names' vectors depend on."""
        facts: dict[str, Any] = {}
        if self.config.reference is not None:
            facts["reference"] = skill_reference.content_digest(self.config.reference)
        return facts | ({"names": self._tower({}).depends_on()} if self.config.vectors == "names" else {})

    def _tower(self, state: dict[str, np.ndarray]) -> ZeroShotAnnotator:
        """What embeds names, as the annotator `zero_shot` does."""
        asked = ZeroShot(templates=[self.config.template], encoder=self.config.encoder)
        return ZeroShotAnnotator(asked, state or None)

    # ---- the graph
    def summarise(self, rows: pa.Table) -> pa.Table:
        """The lists of skills that are not null; and what skills' vectors are made of, where rows make them.

        That is the shard's skills with the sums of their rows' directions, in the first rows; or, if that is more, the
        rows' embeddings. Sums are of integers, so either gives the same bytes in the end. Merging changes no sum:
        merged skills go by the vector of one, and are counted once in a row by the lists.
        """
        if not self._lists:
            return pa.table({SKILLS: pa.array([], pa.list_(pa.string()))})
        there = rows[self.config.skills].is_valid()
        lists = rows[self.config.skills].filter(there)
        if self.config.vectors == "names":
            return pa.table({SKILLS: lists})
        vectors, none = rows[self._column].filter(there), pa.nulls(len(lists))
        words, sums = skills.summed(self._read(lists)[0], vectors)
        if words is None:
            return pa.table({SKILLS: lists, VECTOR: vectors, WORD: none, SUM: none})
        return pa.table({SKILLS: lists, VECTOR: none, WORD: words, SUM: sums})

    def fit(self, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None = None) -> State:
        """`skills` by name, each with its `rows` and `weight` in the graph, and `direction`, which rows are scored by.

        Raises:
            StageError: No row has a skill, no skill has a vector, or no two meet where pairs alone have weights.
        """
        config = self.config
        words, rows = skills.commonest((self._read(lists)[0] for lists in self._graph(summaries)), config.largest)
        if not len(words):
            where = f"`{config.skills}`" if config.reference is None else f"`reference` {config.reference!r}"
            raise StageError(f"`score: skill_graph`: no row of {where} has a skill; name a column that has", remedy="")
        vectors = self._vectors(words, summaries, checkpoint)
        if not vectors.any():
            raise StageError(
                f"`score: skill_graph`: no row has both a skill of the graph and a {config.against} embedding, so no "
                "skill has a vector; take `vectors: names`, or a reference with the data's own skills",
                remedy="",
            )
        into = merge(vectors, rows, 2.0 if config.merge is None else config.merge, config.merging)
        kept, place = np.unique(into, return_inverse=True)
        meetings = skills.Meetings(len(kept), config.min_cooccurrence)
        longer = 0
        for lists in self._graph(summaries):
            labels, more = self._read(lists)
            meetings.add(*skills.known(labels, words, place))
            longer += more
        if checkpoint is not None:
            cut = f"; of {longer:,} rows with more than {config.row_skills} the first count" if longer else ""
            checkpoint.tell(f"{config.name}: {len(words):,} skills, {len(words) - len(kept):,} of them merged{cut}")
        names, weight = encode_vocabulary(words.take(pa.array(kept)).to_pylist()), self._weights(meetings)
        towards = skills.collapsed(vectors[kept], weight)
        return {SKILLS: names, "rows": meetings.rows, "weight": weight, "direction": towards}

    def _weights(self, meetings: skills.Meetings) -> np.ndarray:
        """What each skill weighs, float64 `(n,)`."""
        found = degrees(meetings.rows, meetings.met(), self.config.pairs, self.config.parts)
        if not found.any():
            raise StageError(
                f"`score: skill_graph` has `parts: edges`, but no two skills meet in {self.config.min_cooccurrence} "
                "rows; lower `min_cooccurrence`, or take `parts: full`",
                remedy="",
            )
        return found

    def _read(self, lists: pa.Array | pa.ChunkedArray) -> tuple[Labels, int]:
        return skills.read(lists, self.config.row_skills)

    def _graph(self, summaries: Iterable[pa.Table]) -> Iterator[pa.Array | pa.ChunkedArray]:
        """The lists that make the graph, part by part."""
        if self.config.reference is not None:
            yield from skill_reference.lists_of(self.config.reference, self.config.reference_column)
        else:
            yield from (table[SKILLS] for table in only(summaries, SKILLS))

    def _vectors(self, words: pa.Array, summaries: Iterable[pa.Table], checkpoint: Checkpoint | None) -> np.ndarray:
        """Unit vectors of skills, float32 `(n, D)`, zeros where there is none."""
        if self.config.vectors == "names":
            return self._named(words, checkpoint)
        directions = skills.Directions(len(words))
        for table in summaries:
            if table[WORD].null_count < table.num_rows:
                directions.add_sums(words, table[WORD], table[SUM])
            elif table[VECTOR].null_count < table.num_rows:
                directions.add(*skills.known(self._read(table[SKILLS])[0], words), table[VECTOR])
        return directions.unit()

    def _named(self, words: pa.Array, checkpoint: Checkpoint | None) -> np.ndarray:
        """The names' vectors, part by part; parts that are saved are not made again."""
        tower = self._tower({"vocabulary": encode_vocabulary(words.to_pylist())})
        saved = (checkpoint.load() if checkpoint else None) or {}
        for part in range(tower.parts()):
            if f"part-{part}" not in saved:
                saved[f"part-{part}"] = tower.build(part)["classes"]
                if checkpoint is not None:
                    checkpoint.save(saved)
        return np.concatenate([saved[f"part-{part}"] for part in range(tower.parts())])

    # ---- rows
    def run(self, rows: pa.Table) -> Result:
        """Score one shard: float32, null where there is no embedding.

        Raises:
            ModelError: The embeddings are not as wide as the skills' vectors.
        """
        if self._state is None:
            raise ValueError("`state` is None; a score by a graph needs what `fit` has found")
        column, towards = rows[self._column], self._state["direction"]
        width = column.type.byte_width // 2
        if width != len(towards):
            raise ModelError(  # which ends a run at once
                f"`score: skill_graph`: {self.config.against} embeddings have {width} dimensions, skills' vectors "
                f"{len(towards)}; name in `encoder` the model that made the embeddings",
                remedy="",
            )
        found = pa.array(skills.cosines(column, towards), mask=column.is_null().to_numpy())
        return Result(pa.table({self.config.name: found}), [])
