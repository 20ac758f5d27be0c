"""How object stores are reached. Secrets are named here, never written: `env:NAME` is read where the work is done."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from configs.errors import CredentialsError, PlaceError
from configs.section import Section

PACKAGES = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
"""Protocol -> the package that speaks it, and the extra that installs the package."""


def _reference(value: Any) -> Any:
    if value is None or (isinstance(value, str) and re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value)):
        return value
    # No word of what was given: this text reaches logs and states of runs.
    raise CredentialsError(
        "it must be env:NAME, the name of an environment variable that holds the secret; a secret itself is never "
        "written into a configuration, which is kept with every mix. If one was, replace it"
    )


def _method_or_reference(value: Any) -> Any:
    return value if value in ("anon", "google_default", "cloud") else _reference(value)


Secret = Annotated[str | None, BeforeValidator(_reference)]
Endpoint = Annotated[str | None, Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")]


class S3(Section):
    """Amazon S3 and what speaks its protocol. What is left out comes from the usual environment or instance role."""

    endpoint_url: Endpoint = Field(None, description="Address of another service of the same protocol; null: Amazon.")
    region: str | None = Field(None, description="Region of the buckets.")
    profile: str | None = Field(None, description="Profile in ~/.aws to take credentials from.")
    anon: bool = Field(False, description="Send no credentials: for public buckets.")
    key: Secret = Field(None, description="Access key id, as env:NAME.")
    secret: Secret = Field(None, description="Secret access key, as env:NAME.")
    token: Secret = Field(None, description="Session token, as env:NAME.")

    @model_validator(mode="after")
    def _one_way_in(self) -> S3:
        if (self.key is None) != (self.secret is None):
            raise ValueError("`key` and `secret` go together; give both or neither")
        ways = [name for name in ("anon", "profile", "key") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"`{'` and `'.join(ways)}` exclude each other; keep one")
        return self

    def options(self) -> dict[str, Any]:
        """What s3fs takes; secrets are read from the environment now."""
        found: dict[str, Any] = {"endpoint_url": self.endpoint_url, "profile": self.profile, "anon": self.anon or None}
        found |= {"client_kwargs": {"region_name": self.region} if self.region else None}
        found |= {name: _read(f"storage.s3.{name}", getattr(self, name)) for name in ("key", "secret", "token")}
        return {name: value for name, value in found.items() if value is not None}


class GS(Section):
    """Google Cloud Storage. What is left out comes from the usual environment or instance role."""

    endpoint_url: Endpoint = Field(None, description="Address of another service of the same protocol; null: Google.")
    project: str | None = Field(None, description="Project.")
    token: Annotated[str | None, BeforeValidator(_method_or_reference)] = Field(
        None,
        description="`anon`, `google_default`, `cloud` (the machine's own account), or env:NAME of a variable that "
        "holds an access token, a service account's JSON, or the path of a file with that JSON.",
    )

    def options(self) -> dict[str, Any]:
        """What gcsfs takes; secrets are read from the environment now."""
        token: Any = _read("storage.gs.token", self.token)
        if token and token.startswith("{"):
            try:
                token = json.loads(token)
            except ValueError:
                raise CredentialsError(
                    f"`storage.gs.token` is {self.token}; what {self.token} holds is not JSON"
                ) from None
        found = {"endpoint_url": self.endpoint_url, "project": self.project, "token": token}
        return {name: value for name, value in found.items() if value is not None}


class Storage(Section):
    """How object stores are reached; changes no byte of the output."""

    s3: S3 | None = Field(None, description="s3:// URLs; null: the usual environment or instance role.")
    gs: GS | None = Field(None, description="gs:// URLs; null: the usual environment or instance role.")

    def options(self) -> dict[str, dict[str, Any]]:
        """Protocol -> options of its fsspec file system, secrets among them: to be used at once, never kept or sent.

        Raises:
            CredentialsError: An environment variable is not set here.
        """
        sections: dict[Literal["s3", "gs"], S3 | GS | None] = {"s3": self.s3, "gs": self.gs}
        return {protocol: section.options() for protocol, section in sections.items() if section}


def _read(setting: str, reference: str | None) -> str | None:
    """The value behind `env:NAME`; other text as it is."""
    if reference is None or not reference.startswith("env:"):
        return reference
    name = reference.removeprefix("env:")
    # Secrets that come from files often end in a line break, which no request header may hold.
    value = os.environ.get(name, "").strip()
    if not value:
        raise CredentialsError(
            f"`{setting}` is {reference}, but the environment variable {name} is not set where the work is done; "
            f"set it there, or leave `{setting}` out to use the usual credentials"
        )
    return value


def urls(value: Any, setting: str = "") -> Iterator[tuple[str, str]]:
    """Every URL in a section, with the setting that holds it: `("input.path", "s3://…")`."""
    if isinstance(value, Section):
        for name in type(value).model_fields:
            yield from urls(getattr(value, name), f"{setting}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from urls(item, f"{setting}.{number}")
    elif isinstance(value, str) and "://" in value:
        yield setting, value


def require_packages(config: Section) -> None:
    """Raise PlaceError if a URL in `config` needs a package that is not installed."""
    for setting, url in urls(config):
        for part in url.split("::"):
            package, extra = PACKAGES.get(part.partition("://")[0], (None, None))
            if package and find_spec(package) is None:
                raise PlaceError(f"`{setting}` is {url!r}; install the extra: pip install 'mixwright[{extra}]'")
