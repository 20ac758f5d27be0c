"""Selects that work towards a size, whole: rows and shares to the row, bytes and tokens to the most that fits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora import config, digests, run, write_corpus

from storage import files
from tasks.select import ranking, targets

KINDS = {
    "threshold": {"kind": "threshold", "score": "alignment"},
    "exact_duplicates": {"kind": "exact_duplicates"},
    "balance": {"kind": "balance"},
}
EVERYTHING = {"sample": {"kind": "iid", "batch_size": 1}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    write_corpus(folder / "in", shards=4)
    return folder


def outcome(corpus, select, over=None):
    """The ledger of a run with these selects, and its log."""
    log: list[str] = []
    mix = run(config(corpus, {"select": select, **EVERYTHING, **(over or {})}), log)
    ledger = pa.concat_tables(pq.read_table(f) for f in sorted((corpus / "out").glob(f"mix/{mix.url[-12:]}/ledger/*")))
    return mix, ledger, log


def kept(ledger):
    return ledger.filter(pc.equal(ledger["outcome"], "kept"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 150])
def test_rows_are_met_exactly(corpus, kind, rows):
    _, ledger, _ = outcome(corpus, [KINDS[kind] | {"target_rows": rows}])
    assert kept(ledger).num_rows == rows
    gone = ledger.filter(pc.and_(pc.equal(ledger["outcome"], "dropped"), pc.equal(ledger["stage"], f"select/{kind}")))
    wanted = {"threshold": {"below_threshold"}, "exact_duplicates": {"exact_duplicate", "over_target"}}
    assert set(gone["reason"].to_pylist()) <= wanted.get(kind, {"balanced_out", "no_concept"})


def test_a_share_is_of_the_rows_that_the_select_sees(corpus):
    _, ledger, _ = outcome(
        corpus, [KINDS["threshold"] | {"target_rows": 101}, KINDS["balance"] | {"target_fraction": 0.3}]
    )
    assert kept(ledger).num_rows == 31


def test_a_target_keeps_the_best_by_score_and_a_larger_one_keeps_them_too(corpus):
    found = []
    for rows in (40, 90):
        _, ledger, _ = outcome(corpus, [KINDS["threshold"] | {"target_rows": rows}])
        score = {True: [], False: []}
        for row in ledger.to_pylist():
            if row["stage"] == "select/threshold" or row["outcome"] == "kept":
                score[row["outcome"] == "kept"].append(row["score"])
        found.append({(r["file"], r["row"]) for r in kept(ledger).to_pylist()})
    assert found[0] < found[1]


@pytest.mark.parametrize("unit", ["bytes", "tokens"])
def test_bytes_and_tokens_are_never_exceeded_and_one_more_row_would(corpus, unit):
    source = pa.concat_tables(pq.read_table(f) for f in sorted((corpus / "in").iterdir()))
    words = np.array([len((text or "").split()) for text in source["text"].to_pylist()])
    weight = pc.fill_null(pc.binary_length(source["image"]), 0).to_numpy() + pc.binary_length(source["text"]).to_numpy()
    size = words if unit == "tokens" else weight
    place = {(f"{i // 60:05d}.parquet", i % 60): i for i in range(len(size))}
    goal = 300 if unit == "tokens" else 20_000
    mix, ledger, _ = outcome(corpus, [KINDS["threshold"] | {f"target_{unit}": goal}])
    stays = [place[r["file"], r["row"]] for r in kept(ledger).to_pylist()]
    assert goal - size.max() < size[stays].sum() <= goal
    step = next((corpus / "store" / "select" / "threshold").glob("*/_cut.json"))
    told = [files.read_json(str(f)) for f in step.parent.parent.glob("*/_cut.json")]
    assert any(one.get("unit") == unit and one["size"] == size[stays].sum() for one in told)
    assert "tokens" not in pq.read_schema(next((corpus / "out").glob(f"mix/{mix.url[-12:]}/data/*"))).names


def test_a_target_above_what_is_there_keeps_all_and_says_so(corpus):
    _, ledger, log = outcome(corpus, [KINDS["exact_duplicates"] | {"target_rows": 10_000}])
    assert set(ledger["outcome"].to_pylist()) == {"kept", "quarantined"}
    assert any("the target of 10,000 rows is not reached: there are 232, all are kept" in line for line in log)


def test_copies_go_before_rows_that_are_alone_and_name_a_keeper_that_stays(corpus):
    _, ledger, _ = outcome(corpus, [KINDS["exact_duplicates"] | {"target_rows": 230}])  # 232 rows, 4 copies
    gone = ledger.filter(pc.equal(ledger["reason"], "exact_duplicate")).to_pylist()
    assert len(gone) == 2 and all(row["keeper_file"] == row["file"] and row["keeper_row"] == 3 for row in gone)
    assert [row["file"] for row in gone] == ["00002.parquet", "00003.parquet"]  # of equal ranks the latest go first


def test_workers_and_groups_of_shards_change_no_byte(corpus, tmp_path):
    select = [KINDS["balance"] | {"target_rows": 120}, KINDS["exact_duplicates"] | {"target_fraction": 0.5}]
    found = []
    for number, runner in enumerate(({"workers": 1}, {"workers": 3, "shards_per_task": 1})):
        over = {"runner": runner, "store": f"{tmp_path}/{number}", "emit": {"out": f"{tmp_path}/out{number}"}}
        run(config(corpus, {"select": select, **EVERYTHING, **over}))
        found.append([d for n, d in digests(tmp_path, f"out{number}").items() if "/data/" in n or "/ledger/" in n])
    assert found[0] == found[1] and found[0]


@pytest.mark.parametrize("of", ["image", "text"])
def test_images_and_texts_alone_can_be_what_is_equal(tmp_path, of):
    write_corpus(tmp_path / "in", shards=2)
    table = pq.read_table(tmp_path / "in" / "00000.parquet")
    columns = table.to_pydict()
    columns["image"][20] = columns["image"][21]
    columns["text"][30] = "  Ｗ007, \u2003 w003…"
    columns["text"][31] = "w007, W003…"
    pq.write_table(pa.table(columns), tmp_path / "in" / "00000.parquet")
    _, ledger, _ = outcome(tmp_path, [{"kind": "exact_duplicates", "of": of, "keep_by": ["longest_text", "first"]}])
    gone = {(r["file"], r["row"]): r for r in ledger.to_pylist() if r["reason"] == "exact_duplicate"}
    first = (
        gone["00000.parquet", 31] if of == "text" else gone.get(("00000.parquet", 21), gone.get(("00000.parquet", 20)))
    )
    assert first["keeper_row"] == (30 if of == "text" else 41 - first["row"])
    texts, images = ({r: columns[name][r] for r in range(60)} for name in ("text", "image"))
    if of == "image":
        assert len(texts[first["keeper_row"]]) >= len(texts[first["row"]])
        assert images[first["keeper_row"]] == images[first["row"]]


class Quotas:
    """Quotas that are the same share of every group."""

    def __init__(self):
        self.calls = 0

    def quotas(self, groups, rows, wanted):
        self.calls += 1
        return np.minimum(rows, -(-rows * wanted // max(1, rows.sum())))


class Parts:
    """Rows in parts, and how often they were read."""

    def __init__(self, parts, counted=False):
        self.parts, self.counted, self.reads = parts, counted, 0

    def __iter__(self):
        self.reads += 1
        return (part._replace(size=np.ones_like(part.size)) if self.counted else part for part in self.parts)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.3, 0.97, 1.0, 2.0])
@pytest.mark.parametrize("loaded", [0, 1 << 22])
def test_quotas_by_size_are_the_most_rows_that_fit_and_ranks_are_read_once_or_a_few_times(monkeypatch, loaded, share):
    monkeypatch.setattr(targets, "LOADED_ROWS", loaded)
    rng, n = np.random.default_rng(3), 20_000
    key = ranking.keys(rng.random(n).astype(np.float32), np.zeros(n, np.int32), np.arange(n))
    size = rng.lognormal(5, 2, n).astype(np.int64)
    whole = ranking.Ranks(key, rng.choice([3, 8, -1, 1 << 40], n, p=[0.5, 0.3, 0.19, 0.01]), size)
    parts = [ranking.Ranks(*(column[at : at + 1500] for column in whole)) for at in range(0, n, 1500)]
    sized, counted, method = Parts(parts), Parts(parts, counted=True), Quotas()
    known, wanted = ranking.totals(parts), int(size.sum() * share)
    cut = targets._searched(sized, counted, method, known, wanted)
    assert sized.reads + counted.reads <= (2 if loaded else 40) and method.calls <= 24
    # Every number of rows up to the one taken, and the next, by sorting.
    group, rows, _ = known
    sums = [np.append(0, np.cumsum(size[order])) for order in (_first(whole, g) for g in group)]
    fits = [
        sum(int(total[q]) for total, q in zip(sums, Quotas().quotas(group, rows, m))) <= wanted for m in range(n + 1)
    ]
    most = n if all(fits) else fits.index(False) - 1
    stays = cut.stays(whole.key, whole.group)
    assert [int(stays[whole.group == g].sum()) for g in group] == Quotas().quotas(group, rows, most).tolist()
    assert size[stays].sum() <= wanted


def _first(ranks, group):
    inside = np.flatnonzero(ranks.group == group)
    return inside[np.lexsort(ranks.key[inside].T[::-1])]


def test_a_dry_run_knows_the_scores_that_selects_have_made(corpus):
    from flows.pipeline import examine

    settings = config(
        corpus, {"select": [KINDS["threshold"] | {"target_tokens": 5}, {"kind": "exact_duplicates", "of": "text"}]}
    )
    made = [one.label for one in examine(settings)[1]]
    assert made[-6:-4] == ["score/tokens", "score/text_digest"]
    assert made[-4:] == ["select/threshold", "select/exact_duplicates", "mix", "sample"]


def test_a_row_that_is_too_large_by_itself_does_not_end_the_order(tmp_path):
    texts = ["a " * 400, *(f"row {i} of some words" for i in range(50))]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": texts}), tmp_path / "in" / "a.parquet")
    over = {"input": {"image": None, "key": None, "source": None}, "embed": None, "annotate": None, "score": []}
    select = [{"kind": "minhash", "target_tokens": 100}]  # of its own it would keep the longest text
    mix, ledger, _ = outcome(tmp_path, select, over)
    assert mix.manifest["counts"]["kept"] == 20
    assert ledger["reason"].to_pylist()[0] == "over_target"
