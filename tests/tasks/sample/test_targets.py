"""Target distributions and the sizes of batches."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.loading import validate
from configs.methods.batches import sub_batch_size
from configs.methods.sample import CabsDm, CabsFm, Iid
from flows.pipeline import examine
from tasks.sample.cabs import select_diverse
from tasks.sample.concepts import encode
from tasks.sample.online import ConceptBatchSampler
from tasks.sample.targets import Target, resolved, shaped_counts, target_counts


# --------------------------------------------------------------------------------------------------------------- sizes
@pytest.mark.parametrize(
    ("superbatch", "ratio", "plain", "power"),
    [
        (5120, 0.8, 1024, 1024),
        (4096, 0.8, 819, 1024),
        (5120, 0.75, 1280, 1024),
        (5120, 0.5, 2560, 2048),
        (1000, 0.8, 200, 256),
        (1500, 0.0, 1500, 1500),  # 2,048 is more than there are
        (3, 0.9, 1, 1),
    ],
)
def test_sub_batch_size_of_the_paper_and_of_the_released_code(superbatch, ratio, plain, power):
    assert sub_batch_size(superbatch, ratio) == plain
    assert sub_batch_size(superbatch, ratio, power_of_two=True) == power


@pytest.mark.parametrize(("superbatch", "ratio"), [(0, 0.5), (4, 1.0), (4, -0.1), (4, float("nan"))])
def test_sizes_out_of_bounds_are_refused(superbatch, ratio):
    with pytest.raises(ValueError, match=r"`superbatch` is 0|`filter_ratio` is (1.0|-0.1|nan); it must be in \[0, 1\)"):
        sub_batch_size(superbatch, ratio)


def test_a_superbatch_may_be_given_instead_of_a_batch():
    paper = CabsDm(superbatch_size=20_480, world_size=4, rounding="power_of_two")
    assert (paper.batch_size, paper.superbatch) == (4096, 20_480) and CabsDm(**paper.model_dump()) == paper
    assert CabsFm(superbatch_size=1000, rounding="power_of_two").batch_size == 256
    assert Iid(superbatch_size=30, filter_ratio=0.5, world_size=3).batch_size == 15


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"superbatch_size": 10, "world_size": 4}, "`superbatch_size` is 10; it must be a multiple of `world_size`"),
        ({"superbatch_size": 40, "batch_size": 9}, "`batch_size` is 9, but .* make it 8; leave one of them out"),
        ({"rounding": "power_of_two"}, "`rounding` is power_of_two, which only `superbatch_size` has a use for"),
        ({"superbatch_size": 2, "filter_ratio": 0.2}, "nothing would be filtered"),
        ({"filter_ratio": 1.0}, "less than 1"),
        ({"filter_ratio": -0.1}, "greater than or equal to 0"),
        ({"targets": {"kind": "natural", "factors": {"dog": -1}}}, "greater than or equal to 0"),
        ({"targets": {"kind": "natural", "exponent": 9}}, "less than or equal to 4"),
        ({"targets": {"kind": "uniform", "factors": {"dog": float("inf")}}}, "less than or equal to"),
        ({"targets": {"kind": "weights", "weights": {"dog": 0}}}, "no weight of `weights` is above 0"),
        ({"targets": {"kind": "released", "factors": {"dog": 2}}}, "Extra inputs are not permitted"),
        ({"targets": {"kind": "uniform"}, "maximum": 2, "minimum": 3}, "`minimum` is 3; it must not exceed"),
    ],
)
def test_sections_that_contradict_themselves_are_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        CabsDm(**fields)


# -------------------------------------------------------------------------------------------------------------- shapes
ROWS = [["dog"], ["dog", "cat"], ["dog"], ["zebra"], ["dog", "dog", "cat"], [], ["owl"], ["dog"]]
LABELS = encode(ROWS)  # cat, dog, owl, zebra: 2, 5, 1, 1 rows; 10 labels in 7 rows


def counts(targets, **more):
    section = resolved(CabsDm(batch_size=7, filter_ratio=0.125, targets=targets, **more))
    return Target(section).counts(LABELS).tolist()


def test_released_targets_are_those_of_the_released_code():
    assert counts({"kind": "released"}) == target_counts(4, 7).tolist() == [2, 2, 2, 1]


def test_uniform_targets_share_out_the_labels_that_a_batch_holds():
    assert counts({"kind": "uniform"}) == [3, 3, 2, 2]  # 7 * 10 / 7 labels
    assert counts({"kind": "uniform"}, maximum=2) == [2, 2, 2, 2]
    assert counts({"kind": "natural", "exponent": 0}) == [3, 3, 2, 2]


def test_natural_targets_are_frequencies_to_a_power():
    assert counts({"kind": "natural", "exponent": 1}) == [2, 6, 1, 1]  # of 2.2, 5.6, 1.1, 1.1
    assert counts({"kind": "natural", "exponent": -4})[1] == 1, "still wanted once"
    assert counts({"kind": "natural", "exponent": -4}, minimum=2)[1] == 2


def test_more_of_these_fewer_of_those():
    assert counts({"kind": "uniform", "factors": {"zebra": 7}}) == [1, 1, 1, 7]
    assert counts({"kind": "uniform", "factors": {"dog": 0}}) == [4, 0, 3, 3], "none wanted is none"
    assert counts({"kind": "uniform", "factors": {"unicorn": 7}}) == [3, 3, 2, 2], "unknown ones change nothing"


def test_weights_of_a_file(tmp_path):
    path = tmp_path / "weights.tsv"
    path.write_bytes("\ufeffdog\t1\n\n zebra \t 3.0 \r\n".encode())
    assert counts({"kind": "file", "path": str(path)}) == [0, 3, 0, 7]
    assert counts({"kind": "file", "path": str(path), "others": 1}) == [2, 2, 1, 5]
    section = CabsDm(targets={"kind": "file", "path": str(path), "factors": {"owl": 2}})
    assert Target(resolved(section)).named == ["dog", "owl", "zebra"]
    assert resolved(section).targets.weights == {"dog": 1.0, "zebra": 3.0} and resolved(resolved(section)) == resolved(
        section
    )
    with pytest.raises(ValueError, match="`targets` are still in .*weights.tsv; call"):
        Target(section)
    assert counts({"kind": "weights", "weights": {"dog": 1, "zebra": 3}}) == [0, 3, 0, 7]


@pytest.mark.parametrize(
    "targets", [{"kind": "uniform", "factors": {"dog": 2}}, {"kind": "weights", "weights": {"dog": 2}}]
)
def test_a_superbatch_without_any_concept_has_no_targets(targets):
    assert Target(CabsDm(targets=targets)).counts(encode([[], None])).tolist() == []
    with pytest.raises(ValueError, match="`concepts` are integers; targets that name concepts need strings"):
        Target(CabsDm(targets=targets)).counts(encode([[0, 1]]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"dog\t1\ncat 2\n", "line 2: 'cat 2' is not a concept, one tab and a number"),
        (b"\t2\n", "line 1: .* is not a concept, one tab and a number"),
        (b"dog\tmany\n", "line 1: 'many' is no number"),
        (b"dog\t-1\n", r"line 1: the number of 'dog' is -1.0; it must be in \[0, 1e\+12\]"),
        (b"dog\tnan\n", "line 1: the number of 'dog' is nan"),
        (b"dog\t1\n\ndog\t2\n", "line 3: 'dog' was in line 1"),
        (b"\xff\t1", "is not UTF-8 text"),
        (b"\n\n", "no weight in it is above 0, nor is `others`"),
        (b"dog\t0\n", "no weight in it is above 0, nor is `others`"),
        (None, "`sample.targets.path` is .* there is no such file"),
    ],
)
def test_bad_files_of_weights_are_refused_before_work(corpus, text, says):
    path = corpus / "weights.tsv"
    if text is not None:
        path.write_bytes(text)
    section = {"kind": "cabs_dm", "batch_size": 8, "targets": {"kind": "file", "path": str(path)}}
    with pytest.raises(ConfigError, match=says):
        examine(config(corpus, {"sample": section}))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.integers(1, 500), st.integers(0, 3))
def test_shaped_counts_are_proportional_and_none_is_none(weights, total, minimum):
    weights = np.array(weights)
    got = shaped_counts(weights, total, minimum=minimum)
    assert got.dtype == np.int64 and ((got > 0) <= (weights > 0)).all()
    if weights.sum() > 0:
        exact = weights / weights.sum() * total
        assert (np.abs(np.maximum(exact, np.where(weights > 0, minimum, 0)) - got) <= 1 + 1e-6).all()
        assert minimum or got.sum() == total
        bounded = shaped_counts(weights, total, minimum=min(minimum, 2), maximum=2)
        assert bounded.max() <= 2


@pytest.mark.parametrize("bad", [[-1.0], [np.nan], [np.inf]])
def test_weights_that_are_no_weights(bad):
    with pytest.raises(ValueError, match="`weights` holds a number that is negative or not finite"):
        shaped_counts(np.array(bad), 3)


# ------------------------------------------------------------------------------------------- what targets bring about
def zipf(count, seed, vocabulary=80):
    rng = np.random.default_rng(seed)
    p = 1 / np.arange(1, vocabulary + 1)
    sizes = rng.integers(1, 5, count)
    return [sorted({f"c{c:02}" for c in rng.choice(vocabulary, size, p=p / p.sum())}) for size in sizes]


def shares(rows, picks):
    labels = encode([rows[i] for i in picks] if picks is not None else rows)
    totals = dict(zip(labels.words.to_pylist(), np.bincount(labels.ids), strict=True))
    return {c: n / sum(totals.values()) for c, n in totals.items()}


@pytest.mark.parametrize("variant", ["released", "printed"])
@pytest.mark.parametrize(("exponent", "most"), [(1, 0.85), (0.5, 0.5), (0, 0.5)])
def test_a_batch_comes_nearer_to_its_target_than_chance(variant, exponent, most):
    """Chance is a fair sample of the natural distribution itself: hard to beat where that is the target."""
    rows = zipf(2000, seed=1)
    section = CabsDm(batch_size=400, variant=variant, targets={"kind": "natural", "exponent": exponent})
    labels = encode(rows)
    wanted = Target(section).counts(labels)
    picks = select_diverse(rows, 400, targets=wanted, maximum=10**9, variant=variant)
    goal = dict(zip(labels.words.to_pylist(), wanted / wanted.sum(), strict=True))

    def distance(found):
        return sum(abs(goal[c] - found.get(c, 0)) for c in goal) / 2

    rng = np.random.default_rng(0)
    chance = [distance(shares(rows, rng.permutation(2000)[:400])) for _ in range(20)]
    assert distance(shares(rows, picks)) < most * min(chance)


def test_factors_move_shares_as_asked():
    rows = zipf(2000, seed=2)
    base = {"kind": "natural", "exponent": 1}

    def share(concept, factors):
        section = CabsDm(batch_size=400, targets=base | {"factors": factors})
        wanted = Target(section).counts(encode(rows))
        return shares(rows, select_diverse(rows, 400, targets=wanted, maximum=10**9)).get(concept, 0)

    assert share("c05", {"c05": 3}) > 2.2 * share("c05", {})
    assert share("c01", {"c01": 0.2}) < 0.5 * share("c01", {})
    assert share("c03", {"c03": 0}) < 0.2 * share("c03", {})


# ---------------------------------------------------------------------------------------------------- through the flow
def test_a_run_tells_of_concepts_that_no_superbatch_held(corpus):
    section = {
        "kind": "cabs_dm",
        "batch_size": 16,
        "filter_ratio": 0.5,
        "targets": {"kind": "uniform", "factors": {"unicorn": 3, "w000": 2, "W001": 1}},
    }
    told: list[str] = []
    mix = run(config(corpus, {"sample": section}), told)
    says = "`sample.targets` names what is in no superbatch: 'W001' (did you mean 'w001'?); 'unicorn'"
    assert any(says in line for line in told) and mix.emitted > 0


def test_the_content_of_a_file_of_weights_is_part_of_the_fingerprint(corpus):
    path = corpus / "weights.tsv"
    section = {"kind": "cabs_dm", "batch_size": 16, "targets": {"kind": "file", "path": str(path), "others": 1}}
    urls = []
    for text in ("w000\t1\n", "w000\t9\n", "w000\t1\n"):
        path.write_text(text)
        urls.append(run(config(corpus, {"sample": section, "select": []})).url)
    assert urls[0] == urls[2] != urls[1]
    other = section | {"targets": section["targets"] | {"path": str(path.rename(corpus / "moved.tsv"))}}
    assert run(config(corpus, {"sample": other, "select": []})).url == urls[0], "its place is not"
    (corpus / "moved.tsv").unlink()
    assert len(list(ConceptBatchSampler.of_mix(urls[1]))) > 5, "what the mix was made of is kept"


def test_rows_without_concepts_in_a_whole_superbatch_do_not_fail_a_run(tmp_path):
    (tmp_path / "in").mkdir()
    classes = [["dog"]] + [[]] * 40
    table = pa.table({"text": [f"t{i}" for i in range(41)], "classes": pa.array(classes, pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    over = {
        "input": {"path": f"{tmp_path}/in", "image": None},
        "annotate": {"kind": "column"},
        "sample": {
            "kind": "cabs_dm",
            "batch_size": 4,
            "filter_ratio": 0.5,
            "targets": {"kind": "uniform", "factors": {"dog": 2}},
        },
    }
    assert (
        run(validate(over | {"name": "x", "store": f"{tmp_path}/store", "emit": {"out": f"{tmp_path}/out"}})).emitted
        == 20
    )
