"""From adapters.yaml to a Stack, or to one line that says what is wrong and what would be valid."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from adapters.fields import Name
from adapters.schema import ConfigError, Stack
from adapters.sections import Adapter

Model = type[BaseModel]

UNIONS = {("engine", "args"): 3, ("router", "model"): 2}
"""How many steps of an error's place are the file's: behind a union stand the types that were tried."""

SECRET = {("router", "keys"), ("router", "admin_key"), ("router", "limits_storage")}
"""Where somebody may have written a key or a password, which is not shown again."""


def load(path: str | Path, advice: str = "; give one with --config") -> Stack:
    """Read and validate a stack. Raises ConfigError in one line; touches no model and no network."""
    file = Path(path)
    data = read_yaml(file, Stack, advice)
    # A section whose keys are all commented out reads as null: its defaults are meant.
    return checked(file, {key: part for key, part in data.items() if part is not None})


def read_yaml(file: Path, root: Model, advice: str = "") -> dict[str, Any]:
    """A file's mapping, to become a `root`. Raises ConfigError in one line, with `advice` where it is missing."""
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file{advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{file}: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a mapping with the keys {', '.join(_keys(root))}")
    if "file" in data:
        raise ConfigError(_unknown(file, ("file",), root))
    return data


def checked(file: Path, parts: Mapping[str, Any]) -> Stack:
    """The stack of these sections. Raises ConfigError in one line, as if `file` said them."""
    try:
        return Stack(**{**parts, "file": file})
    except ValidationError as error:
        raise ConfigError(explain(file, error)) from None


def with_adapters(stack: Stack, adapters: Mapping[str, Adapter]) -> Stack:
    """The stack with these adapters instead of its own.

    Raises ConfigError in the loader's own words for what its file could not say.
    """
    return checked(stack.file, {**dict(stack), "adapters": adapters})


def named_adapter(fields: dict[str, Any]) -> tuple[str, Adapter]:
    """One adapter as the admin routes are given it: its `name`, and the keys that it has in adapters.yaml.

    Raises ConfigError in one line.
    """
    try:
        named = _Named(**fields)
    except ValidationError as error:
        raise ConfigError(explain(Path("the request"), error, _Named)) from None
    return named.name, Adapter(**named.model_dump(exclude={"name"}))


class _Named(Adapter):
    name: Name


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win in silence; here that is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # what looks like a date, or a number, and is none
            problem = f"{error}; if it is text, write it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key.value}" stands twice', problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _keys(part: Model) -> list[str]:
    return [key for key in part.model_fields if key != "file"]


def explain(file: Path, error: ValidationError, root: Model = Stack) -> str:
    """The first thing that is wrong, in one line: file, key, what would be valid, what was got."""
    found = error.errors(include_url=False)
    # Of a union, the type that the value seems meant for says more than "should be a string".
    first = next(
        (each for each in found if each["type"] != "string_type" or isinstance(each["input"], str)), found[0]
    )
    if first["type"] == "missing":  # perhaps it is there, misspelt: that is the error to tell
        beside = (
            each for each in found if each["type"] == "extra_forbidden" and each["loc"][:-1] == first["loc"][:-1]
        )
        first = next(beside, first)
    where = tuple(str(step) for step in first["loc"] if step != "[key]")
    if first["type"] == "extra_forbidden":
        return _unknown(file, where, root)
    where = where[: next((depth for key, depth in UNIONS.items() if where[: len(key)] == key), None)]
    if first["type"] == "missing":
        return f"{file}: {'.'.join(where)}: missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type" and (part := _part(where, root)):
        message = f"expected a mapping with the keys {', '.join(_keys(part))}"
    if not where:
        return f"{file}: {message}"
    if first["loc"][-1] == "[key]" and first["type"] == "literal_error":
        key = str(first["input"])
        where = where if where[-1] == key else (*where, key)
        return f"{file}: {'.'.join(where)}: unknown key; {_near(key, _quoted(message))}"
    if first["type"] == "value_error":
        return f"{file}: {'.'.join(where)}.{message}"
    got = "" if where[:2] in SECRET else f" (got {first['input']!r})"
    return f"{file}: {'.'.join(where)}: {message}{got}"


def _unknown(file: Path, where: tuple[str, ...], root: Model = Stack) -> str:
    part = _part(where[:-1], root) or root
    return f"{file}: {'.'.join(where)}: unknown key; {_near(where[-1], _keys(part))}"


def _near(word: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(word, valid, n=1)
    return f'did you mean "{near[0]}"?' if near else f"valid here: {', '.join(valid)}"


def _quoted(message: str) -> list[str]:
    """The words of pydantic's "Input should be 'a', 'b' or 'c'"."""
    return message.split("'")[1::2]


def _part(where: tuple[str, ...], root: Model) -> Model | None:
    """The section that a path through the file leads to; a mapping's own keys are steps of the path too."""
    part = root
    in_mapping = False
    for step in where:
        if in_mapping:
            in_mapping = False
            continue
        hint = part.model_fields[step].annotation if step in part.model_fields else None
        if (found := _model(hint)) is None:
            return None
        in_mapping, part = found is not hint, found
    return part


def _model(hint: Any) -> Model | None:
    """The section that a key's type holds, directly or as a mapping's values."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    found = (_model(argument) for argument in typing.get_args(hint))
    return next((model for model in found if model), None)
