"""The sample of each group: whatever the cut into shards, held-out rows apart, too few rows told."""

import numpy as np
import pyarrow as pa
import pytest
from mix_samples import KINDS, config, mixed, pair_rows, text_rows, uids

from configs.errors import ColumnError, ModelError
from configs.methods.learned import LanguageMixProxy
from configs.methods.proxies import PairProxy
from storage.states import dump
from tasks.mix import samples as samples_module
from tasks.mix.proxy_texts import TextSource
from tasks.mix.samples import COIN, GROUP, Samples


@pytest.fixture
def divided(monkeypatch):
    """Texts of every group, to learn from and held out, instead of a corpus."""
    found = {}

    def corpus(self, train, held, seed, device):
        found["train"] = [part["text"].to_pylist() for part in train]
        found["held"] = [part["text"].to_pylist() for part in held]
        assert all(part.column_names == ["text"] for part in (*train, *held))

    monkeypatch.setattr(TextSource, "corpus", corpus)
    monkeypatch.setattr("tasks.mix.samples.GroupProxy", lambda corpus, config, device: "proxy")
    return found


def build(settings, *shards, names=KINDS):
    samples = Samples(settings, "cpu")
    return samples.build(names, [samples.summarise(rows, labels) for rows, labels in shards])


def cuts(rows, labels, *ends):
    return [(rows.slice(a, b - a), labels.slice(a, b - a)) for a, b in zip((0, *ends), (*ends, len(rows)))]


def test_what_it_reads():
    samples = Samples(config(proxy=LanguageMixProxy(text="caption")), "cpu")
    assert samples.needs == ("caption", "uid") and samples.input_columns == ("caption",)
    assert samples.libraries == ("torch", "tokenizers") and samples.depends_on() == {"device": "cpu"}
    samples.check_columns(pa.schema({"caption": pa.dictionary(pa.int32(), pa.string())}))
    with pytest.raises(ColumnError, match="the column 'caption' is int64"):
        samples.check_columns(pa.schema({"caption": pa.int64()}))
    samples = Samples(config(), "cpu")
    assert samples.needs == ("text", "uid") and samples.input_columns == ()
    samples.check_columns(pa.schema({}))
    samples.check()
    samples = Samples(config(proxy=PairProxy()), "cpu")
    assert samples.needs == ("image_embedding", "text_embedding", "uid") and samples.input_columns == ()
    samples.check_columns(pa.schema({}))


def test_a_device_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr("tasks.embed.device._visible_devices", lambda: 0)
    with pytest.raises(ModelError, match="no CUDA device is usable here"):
        Samples(config(device="cuda"), "cuda").check()


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_the_same_sample_for_any_cut_into_shards_and_any_order(kind):
    rows, labels = mixed() if kind == "texts" else pair_rows()
    names = sorted(set(labels.to_pylist()))
    over = {} if kind == "texts" else {"proxy": PairProxy(width=8)}
    settings = config(train_rows=30, validation_rows=8, **over)

    def trained(shards):
        built = build(settings, *shards, names=names)
        built.proxy.train(np.full(3, 1 / 3), 3)
        assert built.learned == names and built.told == []
        return dump(built.proxy.state() | {"losses": built.proxy.losses()})

    whole = trained([(rows, labels)])
    many = cuts(rows, labels, *range(7, len(rows), 7), len(rows))  # the last has no row
    assert trained(many) == whole and trained(many[::-1]) == whole and trained([*many, many[3]]) == whole


def test_a_summary_is_bounded_and_has_the_lowest_coins(divided):
    rows, labels = mixed()
    settings = config(train_rows=20, validation_rows=5)
    summary = Samples(settings, "cpu").summarise(rows, labels)
    every = Samples(config(), "cpu").summarise(rows, labels)
    assert summary.column_names == ["text", GROUP, COIN] and summary.num_rows == 75 and every.num_rows == 360
    for name in KINDS:
        mine = summary.filter(pa.compute.equal(summary[GROUP], name))[COIN].to_numpy()
        assert np.array_equal(mine, np.sort(every.filter(pa.compute.equal(every[GROUP], name))[COIN].to_numpy())[:25])
    built = build(settings, (rows, labels))
    assert built.proxy == "proxy" and [len(part) for part in divided["train"]] == [20] * 3
    assert [len(part) for part in divided["held"]] == [5] * 3


@pytest.fixture
def many(monkeypatch):
    """Sixty groups of thirty texts, of which all together may have 600 rows to learn from."""
    monkeypatch.setattr(samples_module, "SAMPLE_ROWS", 600)
    rows = text_rows([f"text {i}" for i in range(1800)])
    return rows, pa.array([f"group {i % 60:02d}" for i in range(1800)])


def test_where_groups_are_many_each_has_fewer_rows_whatever_the_cut(many, divided):
    rows, labels = many
    names = sorted(set(labels.to_pylist()))
    built = build(config(), (rows, labels), names=names)
    assert built.learned == names and built.told == [
        "`groups`: the proxy learns from 10 rows of each group at most, and is measured on 2, instead of 400 and 24: "
        "the sample of all 60 groups together is bounded"
    ]
    assert {len(part) for part in divided["train"]} == {10} and {len(part) for part in divided["held"]} == {2}
    whole = dict(divided)
    order = pa.array(np.argsort(labels.to_numpy(zero_copy_only=False), kind="stable"))
    sorted_rows, sorted_labels = rows.take(order), labels.take(order)
    for shards in (cuts(rows, labels, *range(97, 1800, 97)), cuts(sorted_rows, sorted_labels, *range(45, 1800, 45))):
        for some in (shards, shards[::-1]):
            assert build(config(), *some, names=names) == built and divided == whole
    every = text_rows([f"text {i}" for i in range(240)])
    few = build(config(), (every, labels.slice(0, 240)), names=names)  # four rows each: nothing is cut
    assert not any("together is bounded" in line for line in few.told)


def test_long_rows_count_by_their_bytes(divided, monkeypatch):
    monkeypatch.setattr(samples_module, "SAMPLE_BYTES", 60 * 16 * 32)
    build(config(), mixed())
    assert [len(part) for part in divided["train"]] == [20] * 3 and [len(part) for part in divided["held"]] == [5] * 3
    rows, labels = pair_rows()
    samples = Samples(config(proxy=PairProxy(width=8)), "cpu")
    monkeypatch.setattr(samples_module, "SAMPLE_BYTES", 3 * 2 * 24 * 12)  # 12 numbers of 2 bytes, twice
    assert samples.summarise(rows, labels).num_rows == 3 * (12 + 3)


def test_summaries_and_what_is_joined_are_bounded(many, divided, monkeypatch):
    rows, labels = many
    samples, joined = Samples(config(), "cpu"), []
    lowest = samples._lowest
    assert samples.summarise(rows, labels).num_rows == 60 * 12
    parts = [samples.summarise(*part) for part in cuts(rows, labels, *range(50, 1800, 50))]
    monkeypatch.setattr(samples, "_lowest", lambda group, *rest: joined.append(len(group)) or lowest(group, *rest))
    samples.build(sorted(set(labels.to_pylist())), [*parts, *parts])
    assert len(joined) > 3 and max(joined) <= 60 * 12 * 5 // 4 + 50


def test_a_text_is_cut_at_what_may_become_tokens():
    summary = Samples(config(), "cpu").summarise(text_rows(["x" * 100_000]), pa.array(["code"]))
    assert summary["text"].to_pylist() == ["x" * 16 * 32]


def test_a_seed_of_its_own(divided):
    found = []
    for seed in (0, 1):
        build(config(proxy_seed=seed, train_rows=20), mixed())
        found.append(divided["train"])
    assert found[0] != found[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_uid_is_learned_from_and_measured_on(divided, seed):
    texts = [f"text {i % 150}" for i in range(300)]  # every one twice, often in two groups
    rng = np.random.default_rng(seed)
    rows, labels = text_rows(texts), pa.array([KINDS[k] for k in rng.integers(0, 3, 300)])
    assert build(config(validation_rows=10, proxy_seed=seed), (rows, labels)).learned == list(KINDS)
    held = {text for part in divided["held"] for text in part}
    train = {text for part in divided["train"] for text in part}
    assert not held & train and len(held | train) == 150
    for part in (*divided["held"], *divided["train"]):
        assert len(set(part)) == len(part)
    assert [len(part) for part in divided["held"]] == [10] * 3


def test_of_a_uid_with_several_texts_the_first_is_taken_whatever_the_order(divided):
    captions = [f"caption {i}" for i in range(60)]
    rows = pa.table({"row": np.arange(60), "caption": captions, "uid": uids(i // 2 for i in range(60))})
    settings, labels = config(proxy=LanguageMixProxy(text="caption")), pa.array(["code"] * 60)
    build(settings, (rows, labels), names=["code"])
    found = dict(divided)
    order = pa.array(np.arange(60)[::-1])
    build(settings, *cuts(rows.take(order), labels, 17), names=["code"])
    assert divided == found
    firsts = {min(captions[i], captions[i + 1]) for i in range(0, 60, 2)}
    assert {text for part in (*found["train"], *found["held"]) for text in part} == firsts


def test_rows_without_text_are_not_in_the_sample():
    texts = ["one", None, "", "two", "bad"]
    rows = text_rows(texts)
    raw = pa.array([t.encode() if t != "bad" else b"\xff\xfe" for t in ("one", "x", "", "two", "bad")], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    samples = Samples(config(), "cpu")
    labels = pa.array(["code"] * 5)
    assert sorted(samples.summarise(rows, labels)["text"].to_pylist()) == ["bad", "one", "two"]
    summary = samples.summarise(rows.set_column(1, "text", broken), labels)
    assert sorted(summary["text"].to_pylist()) == ["one", "two", "x"]


def test_pairs_without_an_embedding_are_not_in_the_sample():
    rows, labels = pair_rows(10)
    column = rows["text_embedding"].to_pylist()
    column[3], column[4] = None, np.full(12, np.nan, "<f2").tobytes()
    field = rows.schema.field("text_embedding")
    broken = rows.set_column(rows.schema.names.index("text_embedding"), field, pa.array(column, field.type))
    assert Samples(config(proxy=PairProxy()), "cpu").summarise(broken, labels).num_rows == 28


def test_groups_with_too_few_rows_are_left_out_and_named(divided):
    rows = text_rows([f"text {i}" for i in range(28)] + ["", None])
    labels = pa.array(["many"] * 20 + ["few"] * 7 + ["one"] + ["none", "none"])
    built = build(config(), (rows, labels), names=["few", "many", "none", "one", "other"])
    assert built.learned == ["many"] and len(divided["held"][0]) == 5 and len(divided["train"][0]) == 15
    assert built.told == [
        f"`groups`: nothing is learned of {name!r}, which has {n} distinct usable rows in the sample; it takes 8"
        for name, n in (("few", 7), ("none", 0), ("one", 1), ("other", 0))
    ]


def test_a_group_that_is_all_held_out_elsewhere_is_left_out_and_named(divided):
    shared = [f"text {i}" for i in range(8)]
    rows, labels = text_rows(shared * 2), pa.array(["a"] * 8 + ["b"] * 8)
    assert build(config(validation_rows=2), (rows, labels), names=["a", "b"]).learned == ["a", "b"]
    built = build(config(train_rows=2, validation_rows=6), (rows, labels), names=["a", "b"])
    assert built.learned == ["a", "b"] and [len(part) for part in divided["held"]] == [6, 6]
    less = text_rows([*shared, *shared, *(f"more {i}" for i in range(60))])
    labels = pa.array(["a"] * 8 + ["b"] * 68)
    built = build(config(train_rows=2, validation_rows=66), (less, labels), names=["a", "b"])
    assert built.learned == ["b"] and len(divided["held"][0]) == 66
    assert built.told == [
        "`groups`: nothing is learned of 'a', which has 8 distinct usable rows in the sample: "
        "other groups, or its own loss, are measured on all of them"
    ]


def test_where_no_group_has_rows_there_is_no_proxy():
    rows = text_rows(["", None])
    for shards in ([], [(rows, pa.array(["a", "a"]))], [(rows.slice(0, 0), pa.array([], pa.string()))]):
        built = build(config(), *shards, names=["a"])
        assert built.proxy is None and built.learned == [] and len(built.told) == 1


def test_very_small_settings_are_enough_for_a_step():
    rows, labels = mixed()
    built = build(config(train_rows=2, validation_rows=1), (rows, labels))
    assert built.learned == list(KINDS)
    before = built.proxy.losses()
    built.proxy.train(np.full(3, 1 / 3), 2)
    assert (built.proxy.losses() != before).all()


def test_the_last_row_that_a_full_group_has_may_still_find_an_earlier_text(divided):
    captions = [f"caption {i:02d}" for i in range(60)]
    rows = pa.table({"row": np.arange(60), "caption": captions, "uid": uids(i // 2 for i in range(60))})
    settings = config(proxy=LanguageMixProxy(text="caption"), train_rows=6, validation_rows=2)
    order = pa.array([*range(1, 60, 2), *range(0, 60, 2)])  # all the later texts first
    build(settings, *cuts(rows.take(order), pa.array(["code"] * 60), *range(1, 60)), names=["code"])
    found = [text for part in (*divided["train"], *divided["held"]) for text in part]
    assert len(found) == 8 and all(int(text[-2:]) % 2 == 0 for text in found)
