"""The sampler of a training loop: the flow's batches, from sidecars alone, on every rank, resumed anywhere."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import config, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from workers import clean

from configs.errors import MixError
from configs.methods.sample import CabsDm, CabsFm, Iid, Jest
from storage import files
from tasks.sample.concepts import encode, encode_chunks
from tasks.sample.online import ConceptBatchSampler, read_sidecars

PLAIN = {"select": [], "seed": 5}
SAMPLERS = [
    {"kind": "cabs_dm", "batch_size": 16, "filter_ratio": 0.75, "world_size": 2},
    {"kind": "cabs_dm", "batch_size": 16, "filter_ratio": 0.5, "variant": "printed"},
    {
        "kind": "cabs_dm",
        "batch_size": 12,
        "filter_ratio": 0.5,
        "world_size": 3,
        "maximum": 1,
        "targets": {"kind": "natural", "factors": {"w003": 5.0, "w000": 0.1}},
    },
    {"kind": "cabs_dm", "batch_size": 16, "filter_ratio": 0.5, "maximum": 2, "fill": False, "world_size": 2},
    {"kind": "cabs_fm", "batch_size": 8, "filter_ratio": 0.5, "world_size": 2},
    {"kind": "iid", "batch_size": 8, "filter_ratio": 0.5},
]


def rows_of(count=400, vocabulary=60, seed=0):
    rng = np.random.default_rng(seed)
    words = np.minimum(rng.zipf(1.4, (count, 4)), vocabulary)
    return [[f"c{c:02}" for c in row[: rng.integers(0, 5)]] for row in words]


def batches_of(mix, rank):
    """The (file, row) of each batch of one rank, in order, as the flow has emitted them."""
    parts = sorted(name for name in mix.manifest["files"] if name.startswith("data/"))
    columns = ["mix_step", "mix_rank", "mix_slot", "mix_file", "mix_row"]
    table = pa.concat_tables(pq.read_table(f"{mix.url}/{part}", columns=columns) for part in parts)
    found: dict[int, list] = {}
    for line in table.to_pylist():
        if line["mix_rank"] == rank:
            found.setdefault(line["mix_step"], []).append((line["mix_file"], line["mix_row"]))
    return [found[step] for step in sorted(found)]


def places(mix):
    """The (file, row) behind each index."""
    return [(one["file"], row) for one in mix.manifest["parents"] for row in range(one["rows"])]


# ------------------------------------------------------------------------------------------------- the same as the flow
@pytest.mark.parametrize(
    "section", SAMPLERS, ids=lambda s: "-".join(str(v) for v in s.values() if not isinstance(v, dict))
)
def test_batches_are_those_of_the_flow(corpus, section):
    mix = run(config(corpus, PLAIN | {"sample": section}))
    where = places(mix)
    for rank in range(section.get("world_size", 1)):
        sampler = ConceptBatchSampler.of_mix(mix.url, rank=rank)
        got = [[where[index] for index in batch] for batch in sampler]
        assert got == batches_of(mix, rank) and len(got) == len(sampler) > 5


def test_batches_are_those_of_the_flow_behind_selects_groups_and_repeats(corpus):
    (corpus / "in" / "00009.parquet").write_bytes((corpus / "in" / "00002.parquet").read_bytes())
    (corpus / "in" / "00004.parquet").write_bytes(b"no parquet")
    over = {"mix": {"proportions": {"web": 0.5, "books": 0.3, "art": 0.2}, "budget": 400}, "seed": 3}
    mix = run(config(corpus, over))
    sampler = ConceptBatchSampler.of_mix(str(corpus / "out" / "mix"))
    where = [place for place in places(mix) if place[0] != "00004.parquet"]
    assert [[where[index] for index in batch] for batch in sampler] == batches_of(mix, 0)
    assert mix.manifest["counts"]["emitted"] == 400


def test_sidecars_alone_are_enough(corpus):
    """Without a mix: the sidecars in the order of their shards, here where no row failed or was dropped."""
    for path in sorted((corpus / "in").iterdir()):
        table = pq.read_table(path)
        pq.write_table(table.slice(10), path)  # the bad rows are among the first
    section = SAMPLERS[0]
    mix = run(config(corpus, PLAIN | {"sample": section, "input": {"source": None}}))  # one group
    assert mix.manifest["counts"]["quarantined"] == 0
    step = next(one for one in mix.manifest["steps"] if one["stage"] == "annotate")
    folder = files.join(mix.manifest["config"]["store"], "annotate", step["kind"], step["fingerprint"])
    labels = read_sidecars(f"{folder}/{one['digest']}.parquet" for one in mix.manifest["parents"])
    sampler = ConceptBatchSampler(labels, CabsDm(**section), seed=5, rank=1)
    where = places(mix)
    assert [[where[index] for index in batch] for batch in sampler] == batches_of(mix, 1)


# ---------------------------------------------------------------------------------------------------- ranks and epochs
@given(st.integers(1, 4), st.integers(0, 3), st.booleans())
@settings(max_examples=15)
def test_ranks_share_a_superbatch_and_epochs_are_permutations(world_size, epoch, diverse):
    chosen = CabsDm if diverse else CabsFm
    wanted = chosen(batch_size=12, filter_ratio=0.5, world_size=world_size)
    samplers = [ConceptBatchSampler(rows_of(), wanted, seed=2, rank=rank) for rank in range(world_size)]
    seen = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        seen.append(list(sampler))
    assert all(len(batches) == 400 // 24 for batches in seen)
    for step in zip(*seen, strict=True):
        flat = [index for part in step for index in part]
        assert len(set(flat)) == 12 and all(len(part) == 12 // world_size for part in step)
    everything = ConceptBatchSampler([["c"]] * 400, Iid(batch_size=400), seed=2)
    everything.set_epoch(epoch)
    assert sorted(next(iter(everything))) == list(range(400))


def test_epochs_and_seeds_differ_and_repeat():
    def batches(seed, epoch):
        sampler = ConceptBatchSampler(rows_of(), CabsDm(batch_size=8), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(0, 0) == batches(0, 0) and batches(0, 1) == batches(0, 1)
    assert len({str(batches(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_only_some_rows_and_more_draws_than_rows():
    some = np.arange(1, 400, 3)
    sampler = ConceptBatchSampler(rows_of(), CabsFm(batch_size=8, filter_ratio=0.5), rows=some, draws=400)
    batches = list(sampler)
    assert len(batches) == 25 and {i for batch in batches for i in batch} <= set(some.tolist())


# -------------------------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("stop", [0, 1, 7, 16])
def test_a_pass_goes_on_where_its_state_was_taken_on_another_number_of_ranks_too(stop):
    def sampler(world_size=1, rank=0, **more):
        return ConceptBatchSampler(
            rows_of(), CabsDm(batch_size=12, filter_ratio=0.5), seed=1, rank=rank, world_size=world_size, **more
        )

    whole = sampler()
    whole.set_epoch(2)
    batches = list(whole)
    half = sampler()
    half.set_epoch(2)
    going = iter(half)
    assert [next(going) for _ in range(stop)] == batches[:stop]
    state = half.state_dict()
    other = sampler()
    other.load_state_dict(state)
    assert len(other) == len(batches) - stop and list(other) == batches[stop:]
    assert list(other) == batches, "only the first pass is short"

    two = [sampler(2, rank) for rank in (0, 1)]
    for one in two:
        one.load_state_dict(state)
    for left, right, step in zip(*two, range(stop, len(batches)), strict=True):
        assert len({*left, *right}) == 12 and step < len(batches)
    plain = sampler(start=stop)
    assert list(plain) == list(sampler())[stop:]


def test_a_state_of_something_else_is_refused():
    state = ConceptBatchSampler(rows_of(), CabsDm(batch_size=8), seed=1).state_dict()
    for other in (
        ConceptBatchSampler(rows_of(), CabsDm(batch_size=8), seed=2),
        ConceptBatchSampler(rows_of(300), CabsDm(batch_size=8), seed=1),
        ConceptBatchSampler(rows_of(), CabsDm(batch_size=4), seed=1),
        ConceptBatchSampler(rows_of(), CabsDm(batch_size=8), seed=1, draws=200),
        ConceptBatchSampler(rows_of(), CabsDm(batch_size=8, variant="printed"), seed=1),
        ConceptBatchSampler(rows_of(), CabsFm(batch_size=8), seed=1),
    ):
        with pytest.raises(ValueError, match="`state` was saved with "):
            other.load_state_dict(state)


@pytest.mark.parametrize(("workers", "stop"), [(0, 3), (0, 11), (2, 3), pytest.param(2, 11, marks=pytest.mark.nightly)])
def test_a_stateful_data_loader_resumes_in_the_middle_of_an_epoch(workers, stop):
    def loader():
        sampler = ConceptBatchSampler(rows_of(), CabsDm(batch_size=12, filter_ratio=0.5), seed=4)
        return StatefulDataLoader(
            list(range(400)), batch_sampler=sampler, num_workers=workers, multiprocessing_context=clean(workers)
        )

    whole = [batch.tolist() for batch in loader()]
    assert len(whole) == 16
    first = loader()
    going = iter(first)
    assert [next(going).tolist() for _ in range(stop)] == whole[:stop]
    state = first.state_dict()
    del going
    second = loader()
    second.load_state_dict(state)
    assert [batch.tolist() for batch in second] == whole[stop:]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_state_of_an_ended_epoch_gives_the_next_one(workers):
    def loader():
        sampler = ConceptBatchSampler(rows_of(), CabsDm(batch_size=12, filter_ratio=0.5), seed=4)
        context = clean(workers)
        return sampler, StatefulDataLoader(
            list(range(400)), batch_sampler=sampler, num_workers=workers, multiprocessing_context=context
        )

    def passed(sampler, going, epoch):
        sampler.set_epoch(epoch)
        return [batch.tolist() for batch in going]

    sampler, going = loader()
    wanted = [passed(sampler, going, epoch) for epoch in (0, 1, 2)]
    sampler, going = loader()
    assert [passed(sampler, going, epoch) for epoch in (0, 1)] == wanted[:2]
    state = going.state_dict()
    sampler, going = loader()
    going.load_state_dict(state)
    assert passed(sampler, going, 2) == wanted[2]


def test_passes_do_not_disturb_one_another():
    sampler = ConceptBatchSampler(rows_of(), CabsDm(batch_size=12, filter_ratio=0.5), seed=4)
    whole = list(sampler)
    one, other = iter(sampler), iter(sampler)
    assert [next(one), next(one), next(other), next(one)] == [whole[0], whole[1], whole[0], whole[2]]
    sampler.set_epoch(1)
    assert list(one) == whole[3:], "it is of the epoch that it was begun in"


def test_a_plain_data_loader_with_workers():
    def sampler(start=0):
        return ConceptBatchSampler(rows_of(), CabsFm(batch_size=12, filter_ratio=0.5), seed=4, start=start)

    loaded = [
        batch.tolist()
        for batch in DataLoader(
            list(range(400)), batch_sampler=sampler(), num_workers=2, multiprocessing_context=clean(2)
        )
    ]
    assert loaded == list(sampler())
    assert [
        b.tolist()
        for b in DataLoader(list(range(400)), batch_sampler=sampler(5), num_workers=2, multiprocessing_context=clean(2))
    ] == loaded[5:]


# ---------------------------------------------------------------------------------------------------------------- input
@given(st.lists(st.lists(st.lists(st.sampled_from(["b", "a", "é", "zz", ""]), max_size=3), max_size=4), max_size=4))
def test_chunks_are_encoded_as_one(chunks):
    got = encode_chunks(pa.array(chunk, pa.list_(pa.string())) for chunk in chunks)
    wanted = encode([row for chunk in chunks for row in chunk])
    assert got.offsets.tolist() == wanted.offsets.tolist() and got.ids.tolist() == wanted.ids.tolist()
    assert got.size == wanted.size
    assert got.words.to_pylist() == ([] if wanted.words is None else wanted.words.to_pylist())


def test_bad_arguments_are_named(corpus, tmp_path):
    dm = CabsDm(batch_size=12, filter_ratio=0.5)
    tower = {"image": "a", "text": "b", "logit_scale": 10}
    for arguments, message in (
        ({"start": 99}, r"`start` is 99; it must be in \[0, 16\]"),
        ({"world_size": 2}, "`rank` is None and `world_size` 2"),
        ({"world_size": 2, "rank": 2}, r"`rank` is 2; it must be in \[0, 2\)"),
        ({"world_size": 7, "rank": 0}, "`batch_size` is 12; it must be a multiple of `world_size`, which is 7"),
        ({"rows": np.array([0, 400])}, "`rows` has rows from 0 to 400; there are rows 0 to 399"),
        ({"rows": np.ones(400, bool)}, r"`rows` is bool of shape \(400,\); it must be one row of whole numbers"),
        ({"draws": np.array([-1])}, "`draws` has rows from -1 to -1"),
        ({"draws": -5}, "`draws` is -5 of 400 rows; it must be at least 0"),
        ({"rows": np.empty(0, np.int64), "draws": 32}, "`draws` is 32 of 0 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            ConceptBatchSampler(rows_of(), dm, **arguments)
    for rows, some in (([], None), (rows_of(), []), (rows_of(23), None)):
        with pytest.raises(ValueError, match="(0|23) draws do not fill a superbatch of 24; lower `batch_size`"):
            ConceptBatchSampler(rows, dm, rows=some)
    with pytest.raises(ValueError, match="`config` is jest, which needs more than concepts"):
        ConceptBatchSampler(rows_of(), Jest(reference=tower, learner=tower | {"image": "c"}, batch_size=16))
    with pytest.raises(ValueError, match="`epoch` is -1"):
        ConceptBatchSampler(rows_of(), dm).set_epoch(-1)
    with pytest.raises(MixError, match=r"nothing.parquet is missing: this shard has no concepts yet"):
        read_sidecars([str(tmp_path / "nothing.parquet")])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(MixError, match="is no annotate sidecar"):
        read_sidecars([str(tmp_path / "other.parquet")])
    mix = run(config(corpus, {"sample": SAMPLERS[0]}))
    shutil.rmtree(corpus / "store" / "sample")
    with pytest.raises(MixError, match=r"section.json is gone, which .* was made of; run its configuration again"):
        ConceptBatchSampler.of_mix(mix.url, rank=0)
    bare = run(config(corpus, {"annotate": None, "sample": SAMPLERS[-1]}))
    with pytest.raises(MixError, match="was made without `annotate`"):
        ConceptBatchSampler.of_mix(bare.url)
