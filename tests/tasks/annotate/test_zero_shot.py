"""Zero-shot concepts: class embeddings as open_clip makes them, and what rows get of them."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.methods.annotate import ZeroShot
from configs.methods.embed import EmbeddingColumns, OpenClip
from tasks.annotate import zero_shot
from tasks.annotate.entries import encode_vocabulary
from tasks.annotate.numbers import read_numbers
from tasks.annotate.sidecar import SCHEMA
from tasks.annotate.thresholds import resolved
from tasks.annotate.zero_shot import ZeroShotAnnotator, mean_directions, sentences
from tasks.embed.encoder import load_encoder
from tasks.embed.vectors import field, pack

TOWER = OpenClip(model="ViT-S-32-alt", image_size=64, context_length=16, device="cpu")
AXES = np.eye(3, 4, dtype=np.float32)


def annotator(names, classes, **config):
    state = {"vocabulary": encode_vocabulary(names), "classes": classes, "logit_scale": np.array(10.0)}
    return ZeroShotAnnotator(ZeroShot(encoder=TOWER, **config), state)


def table(vectors, valid=None):
    vectors = np.asarray(vectors, np.float32)
    valid = np.ones(len(vectors), bool) if valid is None else np.asarray(valid)
    column = pack(vectors, valid)
    return pa.table({"image_embedding": column}, schema=pa.schema([field("image_embedding", vectors.shape[1])]))


def built(names, parts_of=zero_shot.PART_TEXTS, **config):
    """The state of some names, made in parts as the flow makes it."""
    settings = ZeroShot(encoder=TOWER, **config)
    method = ZeroShotAnnotator(settings, ZeroShotAnnotator(settings).from_text("\n".join(names)))
    return method.join(method.build(part) for part in range(method.parts()))


# ------------------------------------------------------------------------------------------------------------ rows
def test_hand_computed():
    rows = table([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 0, 1], [0, 0, -1, 0]])
    result = annotator(["cat", "dog", "owl"], AXES, top_k=2).run(rows)
    assert result.failures == [] and result.table.schema == SCHEMA
    # Of equal cosines the earlier concept goes first.
    assert result.table["concepts"].to_pylist() == [["cat", "dog"], ["dog", "cat"], ["cat", "dog"], ["cat", "dog"]]
    confidences = result.table["confidences"].to_pylist()
    assert confidences[0] == [1, 0] and confidences[2] == [0, 0] and confidences[3] == [0, 0]
    assert confidences[1] == pytest.approx([0.8, 0.6], abs=3e-4)


def test_a_threshold_leaves_out_of_the_best():
    rows = table([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 0, 1]])
    found = annotator(["cat", "dog", "owl"], AXES, top_k=2, threshold=0.7).run(rows).table
    assert found["concepts"].to_pylist() == [["cat"], ["dog"], []]
    assert [len(row) for row in found["confidences"].to_pylist()] == [1, 1, 0]
    reached = annotator(["cat", "dog", "owl"], AXES, threshold=1.0).run(rows).table
    assert reached["concepts"].to_pylist() == [["cat"], [], []]
    assert annotator(["cat", "dog"], AXES[:2], threshold=-1).run(rows).table["concepts"][2].as_py() == ["cat", "dog"]


def test_thresholds_of_single_concepts_hand_computed():
    rows = table([[0.6, 0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 0, 1], [0.7, 0.7, 0.7, 0]])
    names = ["cat", "dog", "owl"]

    def found(**config):
        return annotator(names, AXES, **config).run(rows).table["concepts"].to_pylist()

    # A concept that does not reach its own makes room for one further down.
    assert found(top_k=1) == [["dog"], ["cat"], ["cat"], ["cat"]]
    assert found(top_k=1, thresholds={"cat": 0.9}) == [["dog"], ["dog"], ["dog"], ["dog"]]
    assert found(top_k=1, thresholds={"cat": 0.9}, threshold=0.65) == [["dog"], [], [], ["dog"]]
    assert found(top_k=2, thresholds={"cat": -1, "dog": 0.75}, threshold=0.1) == [
        ["dog", "cat"],
        ["cat"],
        ["cat"],
        ["cat", "owl"],
    ]
    assert found(thresholds=dict.fromkeys(names, 1.0)) == [[], [], [], []]
    assert found(thresholds={}, threshold=0.65) == found(threshold=0.65)


@pytest.mark.parametrize("confidence", ["cosine", "softmax"])
def test_the_same_threshold_for_every_concept_is_the_threshold(confidence):
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(300)]
    classes = mean_directions(rng.standard_normal((300, 1, 16)).astype(np.float32))
    rows = table(mean_directions(rng.standard_normal((500, 1, 16)).astype(np.float32)), rng.random(500) > 0.1)
    level = 0.4 if confidence == "cosine" else 0.05
    one = annotator(names, classes, threshold=level, confidence=confidence).run(rows).table
    each = annotator(names, classes, thresholds=dict.fromkeys(names, level), confidence=confidence).run(rows).table
    assert one.equals(each) and 0 < sum(map(len, one["concepts"].drop_null().to_pylist())) < 5 * 450


def test_thresholds_of_a_file_are_those_of_a_mapping(tmp_path):
    file = tmp_path / "thresholds.txt"
    file.write_text("\ufeffcat\t0.5\n\n  dog \t -0.25\r\nfire truck\t1e-1\n", encoding="utf-8")
    assert read_numbers(str(file), "annotate.thresholds", -1, 1) == {"cat": 0.5, "dog": -0.25, "fire truck": 0.1}
    rows = table([[0.6, 0.8, 0, 0], [0, 1, 0, 0]])
    names = ["cat", "dog", "fire truck"]
    by_file = annotator(names, AXES, thresholds=str(file)).run(rows).table
    assert by_file.equals(
        annotator(names, AXES, thresholds=read_numbers(str(file), "annotate.thresholds", -1, 1)).run(rows).table
    )
    assert by_file["concepts"].to_pylist() == [["dog", "cat"], ["dog"]]
    file.write_text("\n")
    assert annotator(names, AXES, thresholds=str(file), threshold=0.7).run(rows).table["concepts"].to_pylist() == [
        ["dog"],
        ["dog"],
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat\t0.5\ndog 0.5", r"line 2: 'dog 0.5' is not a concept, one tab and a number"),
        ("cat\t0.5\t0.6", "line 1: .* is not a concept, one tab"),
        ("\n\t0.5", "line 2: .* is not a concept"),
        ("cat\thigh", r"line 1: 'high' is no number"),
        ("cat\t", "line 1: '' is no number"),
        ("cat\t1.5", r"line 1: the number of 'cat' is 1.5; it must be in \[-1, 1\]"),
        ("cat\tnan", "the number of 'cat' is nan"),
        ("cat\t0.5\n\ndog\t0\ncat\t0.5", "line 4: 'cat' was in line 1; keep one of them"),
    ],
)
def test_refusals_of_a_file_of_thresholds(tmp_path, text, says):
    file = tmp_path / "thresholds.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_numbers(str(file), "annotate.thresholds", -1, 1)


def test_thresholds_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match="`annotate.thresholds` is '.*none.txt'; there is no such file"):
        read_numbers(f"{tmp_path}/none.txt", "annotate.thresholds", -1, 1)
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9\t0.5")
    with pytest.raises(ConfigError, match="which is not UTF-8 text"):
        read_numbers(f"{tmp_path}/bytes.txt", "annotate.thresholds", -1, 1)


def test_thresholds_of_unknown_concepts_are_refused_with_those_that_are_most_like_them(tmp_path):
    (tmp_path / "words.txt").write_text("Traffic_Light\ntraffic light\ndog\nowl")
    section = ZeroShot(encoder=TOWER, vocabulary=f"{tmp_path}/words.txt", thresholds={"traffic ligt": 0.1, "dog": 0})
    says = r"not in the vocabulary: 'traffic ligt' \(did you mean 'traffic light' or 'Traffic_Light'\?\)$"
    for refusing in (lambda: resolved(section), ZeroShotAnnotator(section).check):
        with pytest.raises(ConfigError, match=says):
            refusing()
    with pytest.raises(ConfigError, match=r"'a'; 'b'; 'c'; and 2 more$"):
        annotator(["cat"], AXES[:1], thresholds=dict.fromkeys("abcde", 0.1)).run(table(AXES))
    # What counts is the concept, as `cleaning` leaves it.
    cleaned = section.model_copy(update={"cleaning": "names", "thresholds": {"Traffic_Light": 0.1}})
    with pytest.raises(ConfigError, match="'Traffic_Light'"):
        resolved(cleaned)
    assert resolved(cleaned.model_copy(update={"thresholds": {"traffic light": 0.1}})).thresholds
    built_in = ZeroShot(encoder=TOWER, vocabulary="imagenet-1k", thresholds={"daisies": 0.1})
    assert resolved(built_in).thresholds == {"daisies": 0.1}  # its list is read when there is work to do
    with pytest.raises(ConfigError, match="'daisies' .did you mean 'daisy'"):
        ZeroShotAnnotator(built_in).check()


def test_what_a_file_of_thresholds_says_is_part_of_the_sidecar_and_its_place_is_not(tmp_path):
    (tmp_path / "words.txt").write_text("cat\ndog")
    places = [tmp_path / "a.txt", tmp_path / "b.txt"]
    fields = []
    for place in places:
        place.write_text("cat\t0.5")
        section = ZeroShot(encoder=TOWER, vocabulary=f"{tmp_path}/words.txt", thresholds=str(place))
        fields.append(resolved(section).output_fields())
    inline = ZeroShot(encoder=TOWER, vocabulary=f"{tmp_path}/words.txt", thresholds={"cat": 0.5})
    assert fields[0] == fields[1] == resolved(inline).output_fields()
    places[1].write_text("cat\t0.25")
    assert resolved(section).output_fields() != fields[1]
    assert ZeroShotAnnotator(resolved(section)).depends_on() == ZeroShotAnnotator(ZeroShot(encoder=TOWER)).depends_on()


@pytest.mark.parametrize(("given", "scale"), [({}, 10.0), ({"logit_scale": 3.0}, 3.0)])
def test_softmax_is_over_the_whole_vocabulary_at_the_models_scale_or_the_users(given, scale):
    rows = table([[0.6, 0.8, 0, 0]])
    found = annotator(["cat", "dog", "owl"], AXES, top_k=2, confidence="softmax", **given).run(rows).table
    exact = np.exp(scale * np.array([0.6, 0.8, 0])) / np.exp(scale * np.array([0.6, 0.8, 0])).sum()
    assert found["concepts"].to_pylist() == [["dog", "cat"]]
    assert found["confidences"].to_pylist()[0] == pytest.approx(exact[[1, 0]], rel=5e-3)


def test_rows_without_an_embedding_stay_null_and_are_no_failure():
    rows = table([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], [True, False, True])
    result = annotator(["cat", "dog"], AXES[:2], top_k=1).run(rows)
    assert result.table["concepts"].to_pylist() == [["cat"], None, ["dog"]]
    assert result.table["confidences"].to_pylist() == [[1], None, [1]] and result.failures == []
    assert sum(len(chunk.values) for chunk in result.table["concepts"].chunks) == 2  # nothing below the null either
    nothing = annotator(["cat"], AXES[:1], threshold=-1).run(table(np.zeros((5, 4)), np.zeros(5, bool))).table
    assert nothing["concepts"].null_count == 5


def test_an_empty_shard_and_more_asked_for_than_there_are():
    assert annotator(["cat"], AXES[:1]).run(table(np.zeros((0, 4)))).table.equals(SCHEMA.empty_table())
    assert annotator(["cat"], AXES[:1], top_k=7).run(table(AXES)).table["concepts"].to_pylist() == [["cat"]] * 3


def test_the_same_bytes_however_the_column_is_cut():
    rng = np.random.default_rng(0)
    classes = mean_directions(rng.standard_normal((300, 1, 16)).astype(np.float32))
    rows = table(mean_directions(rng.standard_normal((2500, 1, 16)).astype(np.float32)), rng.random(2500) > 0.1)
    method = annotator([f"c{i}" for i in range(300)], classes, threshold=0.3)
    whole = method.run(rows).table
    cut = pa.concat_tables([rows.slice(0, 1), rows.slice(1, 1234), rows.slice(1235)])
    assert cut["image_embedding"].num_chunks == 3 and method.run(cut).table.equals(whole)
    assert np.array_equal(whole["concepts"].is_null(), rows["image_embedding"].is_null())
    assert method._nearest.rows < 2500  # several blocks
    assert len(whole) == 2500 and 0 < sum(map(len, whole["concepts"].drop_null().to_pylist())) < 5 * 2500


def test_embeddings_of_another_model_are_refused():
    with pytest.raises(
        ValueError, match=r"have 3 dimensions, texts of ViT-S-32-alt have 4; name in `annotate\.encoder`"
    ):
        annotator(["cat"], AXES[:1]).run(table(np.eye(3)))
    with pytest.raises(ValueError, match="have 3 dimensions, texts of ViT-S-32-alt have 256"):
        annotator(["cat"], AXES[:1]).accept(table(np.eye(3)).schema)


# ------------------------------------------------------------------------------------------------- class embeddings
def test_templates():
    assert len(sentences("openai")) == 80 and len(sentences("simple")) == 7
    assert "a bad photo of the {}." in sentences("simple") and set(sentences("simple")) <= set(sentences("openai"))
    assert all(template.count("{}") == 1 for template in sentences("openai"))
    assert sentences(["my {}"]) == ["my {}"]


def test_mean_of_directions_hand_computed():
    vectors = np.array([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], np.float32)
    assert mean_directions(vectors) == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0, 1]]))


@pytest.mark.parametrize("templates", ["simple", ["a {}", "{} on a {}".replace("{}", "thing", 1), "{}"]])
def test_class_embeddings_are_open_clips(templates):
    import open_clip

    names = ["dog", "traffic light", "{} {0}", "café"]
    encoder = load_encoder(TOWER, "cpu")
    shipped = [lambda name, t=template: t.replace("{}", name) for template in sentences(templates)]
    expected = open_clip.build_zero_shot_classifier(encoder._model, encoder._tokenizer, names, shipped, None).T
    state = built(names, templates=templates)
    assert state["classes"].dtype == np.float32
    assert np.abs(state["classes"] - expected.numpy()).max() < 1e-5
    assert float(state["logit_scale"]) == pytest.approx(encoder._model.logit_scale.exp().item())


def test_parts_cut_the_work_and_change_nothing_but_the_last_bits(monkeypatch):
    names = [f"thing number {i}" for i in range(23)]
    whole = built(names)
    assert len(whole["classes"]) == 23
    monkeypatch.setattr(zero_shot, "PART_TEXTS", 35)
    method = ZeroShotAnnotator(ZeroShot(encoder=TOWER), ZeroShotAnnotator(ZeroShot()).from_text("\n".join(names)))
    assert method.parts() == 5 and [len(method.build(part)["classes"]) for part in range(5)] == [5, 5, 5, 5, 3]
    parts = built(names)
    assert np.abs(parts["classes"] - whole["classes"]).max() < 1e-5
    assert built(names)["classes"].tobytes() == parts["classes"].tobytes()


def test_what_the_class_embeddings_depend_on(tmp_path):
    def facts(tower=None, **config):
        return ZeroShotAnnotator(ZeroShot(encoder=TOWER.model_copy(update=tower or {}), **config)).depends_on()

    for selection in ({"top_k": 3}, {"threshold": 0.2}, {"confidence": "softmax", "logit_scale": 9}):
        assert facts(**selection) == facts()
    for tower in (
        {"seed": 1},
        {"context_length": 20},
        {"model": "ViT-B-32"},
        {"precision": "bf16"},
        {"batch_size": 32},
    ):
        assert facts(tower) != facts()
    for templates in ("openai", ["{}"]):
        assert facts(templates=templates) != facts()
    checkpoint = tmp_path / "weights.safetensors"
    checkpoint.write_bytes(b"after one epoch")
    first = facts({"pretrained": str(checkpoint)})
    checkpoint.write_bytes(b"after two epochs")
    assert facts({"pretrained": str(checkpoint)})["weights"] != first["weights"] is not None


def test_selection_is_part_of_the_sidecar_and_places_are_not():
    fields = ZeroShot(encoder=TOWER, vocabulary="words.txt").output_fields()
    assert set(fields) == {"kind", "top_k", "threshold", "thresholds", "confidence", "logit_scale"}


def test_an_embedding_that_is_not_finite_is_named(monkeypatch):
    vectors = np.full((2, 4), np.nan, np.float32)
    monkeypatch.setattr(ZeroShotAnnotator, "_embed", lambda self, texts: vectors)
    with pytest.raises(ValueError, match="the embedding of 'cat' is not finite"):
        built(["cat", "dog"], templates=["{}"])


def test_random_weights_are_told():
    assert "random weights" in ZeroShotAnnotator(ZeroShot(encoder=TOWER)).notes[0]
    trained = (
        {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
        {"model": "hf-hub:org/name"},
        {"model": "pocket"},
    )
    for tower in trained:
        assert ZeroShotAnnotator(ZeroShot(encoder=OpenClip(**tower))).notes == []


# --------------------------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"templates": "best"}, "`templates` is 'best'; it must be simple, openai, or a list of sentences"),
        ({"templates": []}, r"`templates` is \[\]"),
        ({"templates": ["a photo"]}, r"each with one \{\}"),
        ({"templates": ["{} and {}"]}, r"each with one \{\}"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"thresholds": {"cat": 1.5}}, r"`thresholds` of 'cat' is 1.5; it must be a number in \[-1, 1\]"),
        ({"thresholds": {"cat": float("nan")}}, "`thresholds` of 'cat' is nan"),
        ({"thresholds": {"cat": True}}, "`thresholds` of 'cat' is True"),
        ({"thresholds": {"cat": "high"}}, "`thresholds` of 'cat' is 'high'"),
        ({"thresholds": {False: 0.1}}, "`thresholds` names False, which YAML takes for no text; put it in quotes"),
        ({"thresholds": [0.1]}, r"`thresholds` is \[0.1\]; it must be a mapping"),
        ({"logit_scale": 50.0}, "`logit_scale` is 50.0, which only `confidence` softmax has a use for"),
    ],
)
def test_refusals_of_the_configuration(fields, says):
    with pytest.raises(ValidationError, match=says):
        ZeroShot(**fields)


def test_the_model_is_that_of_embed_or_named():
    assert ZeroShot().behind(TOWER).encoder == TOWER
    columns = EmbeddingColumns(image="emb")
    assert ZeroShot(encoder=TOWER).behind(columns).encoder == TOWER
    with pytest.raises(ValueError, match="does not say which model made its columns; name it in `annotate.encoder`"):
        ZeroShot().behind(columns)
    with pytest.raises(ValueError, match="`embed` names the model already; leave it out"):
        ZeroShot(encoder=TOWER).behind(TOWER)
    with pytest.raises(ValueError, match="needs image embeddings; add the section `embed`"):
        ZeroShot().behind(None)
