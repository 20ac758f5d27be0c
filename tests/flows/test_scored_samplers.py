"""UDS and what it is compared with through the whole pipeline: texts, a small language model, scores, samples, a mix."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import config, digests, run
from tiny_lm import real_texts, tiny_lm

from configs.errors import ColumnError, RunFailed, StageError
from flows import stages
from storage import files, manifests
from storage.packed import unpack
from tasks.sample.uds import Uds
from tasks.score.uds import MemoryBuffer, top_k, utility_diversity
from tasks.score.utility_diversity import UtilityDiversity

ROWS, SHARDS = 40, 3
KINDS = ("uds", "random", "max_loss", "max_entropy", "gradient_norm", "rho_loss", "greats")


def write_shard(folder: Path, number: int, texts: list[str]) -> None:
    """Texts, and scores as another program might have made them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(number)
    columns = {"text": texts, "key": [f"{number}-{i}" for i in range(len(texts))]}
    columns["source"] = [("docs", "help")[i % 2] for i in range(len(texts))]
    columns |= {"intra": rng.random(len(texts)), "sketch": list(rng.standard_normal((len(texts), 6)))}
    columns["sketch"][5] = None
    pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Shards, two language models, validation rows, and a mix sampled by UDS."""
    folder, texts = tmp_path_factory.mktemp("scored"), real_texts(ROWS * (SHARDS + 1) + 8)
    for name, seed in (("lm", 0), ("reference", 1)):
        tiny_lm(folder / name, texts, vocab=320, width=16, layers=1, max_length=32, seed=seed)
    for number in range(SHARDS):
        write_shard(folder / "in", number, texts[ROWS * number : ROWS * (number + 1)])
    pq.write_table(pa.table({"text": texts[-8:]}), folder / "held_out.parquet")
    run(settings(folder, folder))
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of the shards and of the store."""
    for name in ("in", "store"):
        shutil.copytree(made / name, tmp_path / name, copy_function=shutil.copy2)
    return tmp_path


def settings(place: Path, made: Path, over: dict | None = None, **sample):
    model = {"kind": "causal_lm", "max_length": 32, "device": "cpu"}
    wanted = {"kind": "uds", "superbatch_size": 24, "filter_ratio": 0.75, "micro_batch": 8, "alpha": 0.01}
    wanted |= {"logits": model | {"model": str(made / "lm")}, "reference": model | {"model": str(made / "reference")}}
    wanted |= {"validation": str(made / "held_out.parquet"), "buffer": 16} | sample
    if wanted.get("from_input"):
        wanted |= {"logits": None, "reference": None}
    base = {"input": {"image": None, "key": "key", "source": "source"}, "embed": None, "annotate": None}
    base |= {"score": [], "select": [], "emit": {"scores": []}}  # the input has an `intra` of its own
    return config(place, {**base, "sample": wanted} | (over or {}))


def folder_of(mix, stage: str, kind: str) -> Path:
    (step,) = [s for s in mix.manifest["steps"] if (s["stage"], s["kind"]) == (stage, kind)]
    return Path(mix.manifest["config"]["store"], stage, kind, step["fingerprint"])


def parts_of(mix, name: str, kind: str = "uds") -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted(folder_of(mix, "sample", kind).glob(f"{name}-*.parquet")))


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file of the scores was written, and its size."""
    return {str(f): (f.stat().st_mtime_ns, f.stat().st_size) for f in folder.rglob("score/**/*") if f.is_file()}


# ------------------------------------------------------------------------------------------------------------- the picks
def test_picks_are_those_of_a_trainers_loop_over_the_draws_and_every_row_is_accounted_for(place, made):
    mix = run(settings(place, made))
    assert mix.emitted == 30 and list(manifests.discrepancies(mix.url)) == []
    counts = mix.manifest["counts"]
    assert counts["rows_in"] == ROWS * SHARDS == counts["kept"] + counts["dropped"] + counts["quarantined"]
    scored = {f.stem: pq.read_table(f) for f in folder_of(mix, "score", "uds").glob("*.parquet")}
    values, plan = parts_of(mix, "values"), parts_of(mix, "part")
    shards = [step["digest"] for step in mix.manifest["parents"]]
    table = pa.concat_tables(
        scored[shards[s]].slice(r, 1) for s, r in zip(values["__shard"].to_pylist(), values["row"].to_pylist())
    )
    intra, sketches = table["intra"].to_numpy(), unpack(table["sketch"], np.float32)
    buffer, picks = MemoryBuffer(16, sketches.shape[1]), []
    for first in range(0, 120, 8):
        ours = slice(first, first + 8)
        total = utility_diversity(intra[ours], buffer.mean_distance(sketches[ours]), 0.01)
        np.testing.assert_allclose(values["total"].to_numpy()[ours], total, rtol=1e-6)
        picks.append(first + top_k(total, 2))
        buffer.push(sketches[picks[-1]])
    assert plan["draw"].to_pylist() == np.concatenate(picks).tolist()
    assert np.flatnonzero(values["picked"].to_numpy()).tolist() == sorted(plan["draw"].to_pylist())
    assert values["draw"].to_pylist() == list(range(120)) and (values["inter"].to_numpy()[8:] > 0).all()
    told = [(f.name, f.type) for f in values.schema]
    assert told[:4] == [("draw", pa.int64()), ("round", pa.int32()), ("row", pa.int64()), ("__shard", pa.int32())]
    assert told[4:6] == [("group", pa.int32()), ("picked", pa.bool_())]
    assert told[6:] == [(name, pa.float32()) for name in ("intra", "inter", "total")]


def test_another_alpha_share_or_buffer_runs_no_model(place, made, monkeypatch):
    monkeypatch.setattr(UtilityDiversity, "run", lambda *_: pytest.fail("a model was run"))
    before, log, seen = written(place), [], set()
    for over in ({}, {"alpha": 0.0}, {"filter_ratio": 0.5}, {"alpha": 1.0, "buffer": 1}, {"micro_batch": 24}):
        mix = run(settings(place, made, **over), log)
        seen.add(tuple(parts_of(mix, "part")["draw"].to_pylist()))
    assert written(place) == before and log.count("score/uds: all 3 shards are done") == 5
    assert log.count("mix: done before") == 5 and len(seen) == 5


def test_one_word_compares_all_seven(place, made):
    picked, before = {}, written(place)
    for kind in KINDS:
        mix = run(settings(place, made, kind=kind))
        plan = parts_of(mix, "part", kind)
        picked[kind] = frozenset(plan["draw"].to_pylist())
        assert mix.emitted == len(picked[kind]) == 30
        assert np.bincount(plan["draw"].to_numpy() // 8).tolist() == [2] * 15  # 2 of each micro-batch of 8
        told = sorted(folder_of(mix, "sample", kind).glob("values-*"))
        assert len(told) == (kind != "random")
    assert len({*picked.values()}) == len(KINDS)
    after = written(place)
    assert before.items() <= after.items()
    fresh = {Path(name).relative_to(place / "store" / "score").parts[0] for name in after.keys() - before.keys()}
    assert fresh == {"losses", "gradients"}


def test_orthonormal_sketches_give_the_picks_of_released_ones(place, made):
    picks = [parts_of(run(settings(place, made, orthonormal=one)), "part")["draw"] for one in (False, True)]
    inter = [
        parts_of(run(settings(place, made, orthonormal=one)), "values")["inter"].to_numpy() for one in (False, True)
    ]
    assert picks[0].equals(picks[1])
    np.testing.assert_allclose(inter[0], inter[1] * np.sqrt(32 * 320) / 2, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- incremental
def test_of_a_new_shard_only_its_own_scores_are_computed(place, made, monkeypatch):
    scored, original = [], UtilityDiversity.run
    monkeypatch.setattr(UtilityDiversity, "run", lambda self, rows: scored.append(1) or original(self, rows))
    before = written(place)
    write_shard(place / "in", 7, real_texts(ROWS * (SHARDS + 1))[-ROWS:])
    mix = run(settings(place, made))
    assert len(scored) == 1 and mix.emitted == 36  # 6 superbatches of 160 draws
    assert before.items() <= written(place).items()


def test_the_same_bytes_for_any_workers_and_again_for_nothing(made, tmp_path_factory):
    mixes = []
    for workers in (1, 3):
        place = tmp_path_factory.mktemp(f"workers{workers}")
        shutil.copytree(made / "in", place / "in", copy_function=shutil.copy2)
        over = {"runner": {"workers": workers, "shards_per_task": 1}}
        mixes.append(run(settings(place, made, over)))
        assert run(settings(place, made, over)).task_runs == 0
    one, other = (digests(Path(mix.url), "data", "ledger") for mix in mixes)
    assert one == other and mixes[0].manifest["version"] == mixes[1].manifest["version"]
    one, other = (digests(folder_of(mix, "sample", "uds"), "") for mix in mixes)
    assert one == other and any(name.startswith("values-") for name in one)


@pytest.fixture(scope="module")
def in_parts(made, tmp_path_factory):
    """A mix that was sampled superbatch by superbatch, each a part of its own, from scores of the input."""
    place = tmp_path_factory.mktemp("in_parts")
    shutil.copytree(made / "in", place / "in", copy_function=shutil.copy2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "PARTITION_ROWS", 24)
        return run(settings(place, made, from_input=True, alpha=0.3))


@pytest.mark.parametrize("crash", ["picking", "told", "planned"])
def test_a_run_goes_on_after_a_crash_between_parts_with_the_same_bytes(place, made, in_parts, monkeypatch, crash):
    monkeypatch.setattr(stages, "PARTITION_ROWS", 24)
    with monkeypatch.context() as patch:
        if crash == "picking":
            original = Uds.pick_and_value
            patch.setattr(Uds, "pick_and_value", lambda self, rows, step: _cut(step == 2) or original(self, rows, step))
        else:
            end = {"told": "values-00002.parquet", "planned": "state-00002.npz"}[crash]
            writing = files.write_bytes
            patch.setattr(files, "write_bytes", lambda url, data: _cut(url.endswith(end)) or writing(url, data))
        with pytest.raises((RunFailed, RuntimeError), match="power cut"):
            run(settings(place, made, from_input=True, alpha=0.3))
    steps: list[int] = []
    original = Uds.pick_and_value
    monkeypatch.setattr(
        Uds, "pick_and_value", lambda self, rows, step: steps.append(step) or original(self, rows, step)
    )
    resumed = run(settings(place, made, from_input=True, alpha=0.3))
    assert steps == [2, 3, 4]
    one, other = (digests(folder_of(mix, "sample", "uds"), "") for mix in (in_parts, resumed))
    assert one == other and {"values-00002.parquet", "state-00004.npz"} <= set(one)
    assert digests(Path(in_parts.url), "data", "ledger") == digests(Path(resumed.url), "data", "ledger")


def _cut(now: bool) -> None:
    if now:
        raise RuntimeError("power cut")


def test_parts_do_not_matter(place, made, in_parts):
    mix = run(settings(place, made, from_input=True, alpha=0.3))
    assert len([*folder_of(mix, "sample", "uds").glob("values-*")]) == 1
    assert len([*folder_of(in_parts, "sample", "uds").glob("values-*")]) == 5
    one, other = (parts_of(run, "part").drop_columns(["shard"]) for run in (mix, in_parts))
    assert one.equals(other)
    one, other = (parts_of(run, "values").to_pandas() for run in (mix, in_parts))
    assert one.equals(other) and one["total"].isna().sum() == SHARDS  # rows without a sketch


# ------------------------------------------------------------------------------------------------------------- refusals
def test_who_has_no_scores_is_told_how_to_get_them(place, made):
    wanted = {"logits": None, "reference": None, "validation": None}
    with pytest.raises(StageError, match=r"`sample: uds` needs the column 'intra', which nothing before it makes; .*"
                       r"Give `sample.logits`, the model to score with, or list the score `uds`. If the input has `intra` "
                       r"and `sketch`, set `sample.from_input: true`.") as refused:  # fmt: skip
        run(settings(place, made, **wanted))
    assert refused.value.remedy == "" and StageError("").remedy  # said once, not followed by a general hint
    with pytest.raises(StageError, match=r"needs the column 'lm_loss'.*name in `sample.column` a score that is made"):
        run(settings(place, made, **wanted | {"kind": "max_loss"}))
    with pytest.raises(ColumnError, match=r"00000\.parquet has no column 'lm_loss', which `sample` names; its columns"):
        run(settings(place, made, kind="max_loss", from_input=True))
    with pytest.raises(ColumnError, match=r"00000\.parquet, `sample`: `source` is a column of string; a score must be"):
        run(settings(place, made, kind="max_loss", from_input=True, column="source"))


def test_a_score_that_is_listed_serves_the_sampler(place, made):
    listed = {"kind": "uds", "logits": settings(place, made).sample.logits.model_dump(mode="json")}
    before = written(place)
    mix = run(settings(place, made, {"score": [listed]}, logits=None, reference=None))
    assert mix.emitted == 30 and written(place) == before


@pytest.mark.nightly
@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server")
def test_the_flow_samples_part_after_part(made, place, monkeypatch):
    from flows.curate import curate

    monkeypatch.setattr(stages, "PARTITION_ROWS", 48)
    overrides = yaml.safe_dump(settings(place, made).model_dump(mode="json"))
    state = curate(preset="plain", overrides=overrides, return_state=True)
    assert state.is_completed() and state.message.startswith("30 rows in 5 batches of 6")
