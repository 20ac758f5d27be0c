"""From YAML, presets, forms and `--set` to a validated configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from configs.credentials import masked
from configs.curate import Curate, Preset
from configs.errors import ConfigError
from configs.section import Section, models

Model = TypeVar("Model", bound=Section)
PRESETS = Path(__file__).parent / "presets"


def parse(text: str, what: str) -> dict[str, Any]:
    """A YAML mapping, read with the safe loader."""
    try:
        value = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not YAML: {_problem(error)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is a {type(value).__name__}; it must be a mapping of section names to settings")
    return value


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself: the library's own message quotes it, secrets and all."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return type(error).__name__
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"


def preset(name: str) -> dict[str, Any]:
    """The preset of that name."""
    if name not in get_args(Preset):
        raise ConfigError(f"`preset` is {name!r}; known presets: {', '.join(get_args(Preset))}")
    return parse((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}")


def read(path: str | Path) -> dict[str, Any]:
    """The configuration file at `path`."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path} is not a file; name a YAML configuration (presets to copy: {PRESETS})")
    try:
        return parse(file.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top, mapping by mapping; another `kind` replaces its section, a list its list."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        if both and value.get("kind", old.get("kind")) == old.get("kind"):  # type: ignore[union-attr]
            result[key] = merged(old, value)  # type: ignore[arg-type]
        else:
            result[key] = value
    return result


def assign(config: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`config` with `section.key=value` settings; values are YAML, `select.0.threshold=0.9` reaches into lists."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(
                f"`--set {masked(setting)}`; it must be section.key=value, as in --set sample.batch_size=64"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"`--set {path}=…`: the value is not YAML: {_problem(error)}") from None
        config = _put(config, path.split("."), value, path)
    return config


def _put(node: Any, keys: list[str], value: Any, setting: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(f"`--set {setting}=…`: {key!r} is no position in a list of {len(node)}")
        return [_put(item, rest, value, setting) if i == int(key) else item for i, item in enumerate(node)]
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"`--set {setting}=…`: there is a value where {key!r} should be a section")
    inner = dict(node or {})
    return inner | {key: _put(inner.get(key), rest, value, setting)}


def validate(values: dict[str, Any]) -> Curate:
    """The configuration of a run.

    Raises:
        ConfigError: One line a fault: the field, the value, what is allowed.
    """
    return checked(Curate, values)


def checked(model: type[Model], values: dict[str, Any]) -> Model:
    """`values` as a configuration of another kind of run; else as `validate`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_fault(fault) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None  # pydantic's own message repeats what was given


def _fault(fault: Any) -> str:
    where = ".".join(_location(fault["loc"])) or "configuration"
    if fault["type"] == "extra_forbidden":
        return f"`{where}` is no setting; look for a typing error (`mixwright settings` lists them)"
    if fault["type"] == "missing":
        return f"`{where}` is missing"
    if fault["type"] == "union_tag_not_found":
        return f"`{where}.kind` is missing"
    if fault["type"] == "union_tag_invalid":
        known = fault["ctx"]["expected_tags"].replace("'", "")
        return f"`{where}.kind` is {masked(repr(fault['ctx']['tag']))}; it must be one of {known}"
    if fault["type"] == "value_error":
        return f"`{where}`: {fault['ctx']['error']}"
    allowed = f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
    if fault["loc"][:1] == ("storage",):  # a secret may stand in the wrong place there
        return f"`{where}`: {allowed}"
    return f"`{where}` is {masked(repr(fault['input']))}: {allowed}"


NESTED = ("groups", "proportions", "proxy", "logits")
"""Settings within a section that are unions themselves."""


def _location(loc: tuple[int | str, ...]) -> list[str]:
    """The path as the user wrote it: pydantic puts a union's `kind` between a section and its field."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["input"]:  # `one` or `several` stands there too
        parts = parts[:1] + parts[2:]
        at = 2 if parts[1:2] and parts[1].isdigit() else 1
    else:
        at = {"embed": 1, "annotate": 1, "mix": 1, "sample": 1, "select": 2}.get(parts[0] if parts else "", len(parts))
    parts = parts[:at] + parts[at + 1 :]
    tags = [i + 1 for i, part in enumerate(parts) if part in NESTED]
    return [part for i, part in enumerate(parts) if i not in tags]


def described(model: Any = Curate, prefix: str = "") -> list[tuple[str, str, str]]:
    """Every setting as `(path, default, description)`, for people."""
    rows = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inside = models(field.annotation)
        default = "required" if field.is_required() else str(field.get_default())
        if inside:
            rows.append((path, "", field.description or (inside[0].__doc__ or "").split("\n")[0]))
            for inner in inside:
                kind = inner.model_fields.get("kind")
                label = f"{path}[{kind.default}]." if kind is not None and len(inside) > 1 else f"{path}."
                rows += described(inner, label)
        else:
            rows.append((path, default, field.description or ""))
    return rows
