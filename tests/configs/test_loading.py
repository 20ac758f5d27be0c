import pytest

from configs import loading
from configs.curate import Curate


@pytest.mark.parametrize("name", ["demo", "image-text", "text-only", "plain"])
def test_presets_are_valid(name):
    assert isinstance(loading.validate(loading.preset(name)), Curate)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inptu": {}}, "`inptu` is no setting"),
        (
            {"embed": {"kind": "open_clip", "precision": "fp99"}},
            "`embed.precision` is 'fp99': input should be 'fp32', 'bf16' or",
        ),
        ({"select": [{"kind": "threshold"}]}, "give exactly one of them"),
        (
            {"select": [{"kind": "nearby"}]},
            "`select.0.kind` is 'nearby'; it must be one of exact_duplicates, threshold, minhash, ",
        ),
        ({"mix": {"budget": 0}}, "`mix.budget` is 0: input should be greater than or equal to 1"),
        (
            {"sample": {"kind": "iid", "batch_size": 10, "world_size": 4}},
            "must be a multiple of `world_size`, which is 4",
        ),
        ({"sample": {"kind": "cabs_dm", "minimum": 11}}, "`minimum` is 11; it must not exceed `maximum`, which is 10"),
        ({"name": "../up"}, "`name` is '../up'"),
        ({"input": {"path": "x", "image": None, "text": None}}, "name one column at least"),
    ],
)
def test_refusals_name_the_field_the_value_and_what_is_allowed(values, said):
    with pytest.raises(loading.ConfigError) as refused:
        loading.validate({"input": {"path": "x"}} | values)
    assert said in str(refused.value)


def test_a_missing_section_is_named():
    with pytest.raises(loading.ConfigError, match="`input` is missing"):
        loading.validate({})


def test_settings_reach_sections_and_lists():
    base = {"select": [{"kind": "threshold", "minimum": 1}], "sample": {"kind": "iid"}}
    got = loading.assign(base, ["select.0.minimum=0.5", "sample.batch_size=8", "embed=null", "a.b=[1, 2]"])
    assert got == {"select": [{"kind": "threshold", "minimum": 0.5}], "sample": {"kind": "iid", "batch_size": 8}} | {
        "embed": None,
        "a": {"b": [1, 2]},
    }
    assert base["select"][0]["minimum"] == 1
    for wrong in ("nothing", "select.3.x=1", "sample.kind.deeper=1", "a=[1"):
        with pytest.raises(loading.ConfigError, match="--set"):
            loading.assign(base, [wrong])


def test_another_kind_replaces_its_section():
    assert loading.merged({"s": {"kind": "a", "x": 1}}, {"s": {"kind": "b"}}) == {"s": {"kind": "b"}}
    assert loading.merged({"s": {"kind": "a", "x": 1}}, {"s": {"y": 2}}) == {"s": {"kind": "a", "x": 1, "y": 2}}


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(loading.ConfigError, match="is not a file"):
        loading.read(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(loading.ConfigError, match="is a list; it must be a mapping"):
        loading.read(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(loading.ConfigError, match="is not YAML"):
        loading.read(tmp_path / "bad.yaml")


def test_yaml_cannot_build_objects(tmp_path):
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(loading.ConfigError, match="is not YAML"):
        loading.read(tmp_path / "evil.yaml")


def test_every_setting_is_described():
    rows = loading.described()
    assert len(rows) > 50
    assert [path for path, _, meaning in rows if not meaning and not path.endswith(".kind")] == []
