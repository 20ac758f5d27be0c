import json

import pytest

from configs.credentials import masked, refuse
from configs.errors import CredentialsError
from configs.loading import ConfigError, validate
from configs.storage import Storage, urls


def test_sections_become_options(monkeypatch):
    monkeypatch.setenv("MY_KEY", "key")
    monkeypatch.setenv("MY_SECRET", "secret\n")  # as it comes from a file
    s3 = {"endpoint_url": "https://minio.example:9000", "region": "eu-central-1", "key": "env:MY_KEY"}
    gs = {"project": "p", "token": "google_default"}
    assert Storage.model_validate({"s3": s3 | {"secret": "env:MY_SECRET"}, "gs": gs}).options() == {
        "s3": {
            "endpoint_url": "https://minio.example:9000",
            "client_kwargs": {"region_name": "eu-central-1"},
            "key": "key",
            "secret": "secret",
        },
        "gs": gs,
    }
    assert Storage().options() == {} and Storage.model_validate({"gs": {}, "s3": {}}).options() == {"gs": {}, "s3": {}}
    assert Storage.model_validate({"s3": {"profile": "work"}}).options() == {"s3": {"profile": "work"}}
    assert Storage.model_validate({"s3": {"anon": True}}).options() == {"s3": {"anon": True}}


@pytest.mark.parametrize(
    ("value", "token"),
    [("ya29.token", "ya29.token"), ("/run/account.json", "/run/account.json"), ('{"type": "x"}', {"type": "x"})],
)
def test_a_token_is_text_a_path_or_json(monkeypatch, value, token):
    monkeypatch.setenv("T", value)
    assert Storage.model_validate({"gs": {"token": "env:T"}}).options()["gs"]["token"] == token


def test_a_token_that_is_broken_json_is_not_repeated(monkeypatch):
    monkeypatch.setenv("T", '{"private_key": "hunter2",')
    with pytest.raises(CredentialsError, match="`storage.gs.token` is env:T; what env:T holds is not JSON") as refused:
        Storage.model_validate({"gs": {"token": "env:T"}}).options()
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_variable_that_is_not_set_is_named(monkeypatch, value):
    monkeypatch.delenv("K", raising=False)
    if value is not None:
        monkeypatch.setenv("K", value)
    storage = Storage.model_validate({"s3": {"key": "env:K", "secret": "env:S"}})
    with pytest.raises(CredentialsError) as refused:
        storage.options()
    assert str(refused.value) == (
        "`storage.s3.key` is env:K, but the environment variable K is not set where the work is done; set it there, or "
        "leave `storage.s3.key` out to use the usual credentials"
    )


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"s3": {"key": "env:K"}}, "`storage.s3`: `key` and `secret` go together"),
        ({"s3": {"anon": True, "profile": "x"}}, "`anon` and `profile` exclude each other"),
        (
            {"s3": {"key": "AKIA", "secret": "env:S"}},
            "`storage.s3.key`: it must be env:NAME, the name of an environment",
        ),
        ({"s3": {"key": "env:", "secret": "env:S"}}, "`storage.s3.key`: it must be env:NAME"),
        ({"s3": {"key": 12345, "secret": "env:S"}}, "`storage.s3.key`: it must be env:NAME"),
        ({"gs": {"token": "browser"}}, "`storage.gs.token`: it must be env:NAME"),
        ({"s3": {"endpoint_url": "minio:9000"}}, "`storage.s3.endpoint_url`: string should match pattern"),
        ({"s3": {"client_kwargs": {}}}, "`storage.s3.client_kwargs` is no setting"),
    ],
)
def test_refusals_name_the_setting_and_what_is_allowed(section, said):
    with pytest.raises(ConfigError) as refused:
        validate({"input": {"path": "x"}, "storage": section})
    assert said in str(refused.value)


GOOD = [
    "s3://bucket/a@b/c:d?.parquet",
    "s3://bucket/key=value/*.parquet",
    "http://host:9000/a",
    "https://[::1]:9000/a",
    "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/name/in",
    "simplecache::s3://bucket/in",
    "zip://a.zip::s3://bucket/in.zip",
    "file:///data/a",
    "hf://datasets/org/name@revision/data",
    "/data/a@b:c",
    "org/name",
    "gs://bucket/x?generation=12",
]
BAD = [
    "s3://me@bucket/x",
    "s3://me:pass@bucket/x",
    "s3://me:pa/ss@bucket/x",
    "s3://me:pa/ss",
    "sftp://me:pass@host:22/x",
    "simplecache::s3://me:pass@bucket/x",
    "https://h/x?a=1&X-Amz-Signature=pass",
    "https://h/x?sig=pass&se=1",
    "https://h/x?ACCESS_TOKEN=pass",
]


@pytest.mark.parametrize("url", GOOD)
def test_urls_without_credentials_pass_unchanged(url):
    refuse(url)
    assert masked(url) == url and masked(f"cannot read {url}: NoSuchKey: x") == f"cannot read {url}: NoSuchKey: x"


@pytest.mark.parametrize("url", BAD)
def test_urls_with_credentials_are_refused_and_masked(url):
    for value in (url, ["x", url]):
        with pytest.raises(CredentialsError) as refused:
            refuse(value)
        assert "pass" not in str(refused.value).replace("password", "") and "env:NAME" in str(refused.value)
    for text in (url, f"cannot read {url}: X", json.dumps({"a": url}), repr([url])):
        assert "pass" not in masked(text) and "me" not in masked(text).replace("name", "").split("://")[-1][:3]


def test_every_url_of_a_configuration_is_found_with_its_setting():
    config = validate(
        {
            "input": [{"name": "a", "path": "s3://b/1"}, {"name": "c", "path": "gs://b/2"}],
            "store": "s3://b/store",
            "annotate": {"kind": "captions", "vocabulary": "s3://b/words.txt"},
        }
    )
    assert dict(urls(config)) == {
        "input.0.path": "s3://b/1",
        "input.1.path": "gs://b/2",
        "store": "s3://b/store",
        "annotate.vocabulary": "s3://b/words.txt",
    }
