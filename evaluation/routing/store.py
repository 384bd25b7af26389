"""Fitted scalars into adapters.yaml: a few characters change, every other one stays where it is.

The text is edited at the places that PyYAML's parser names. Writing the parsed file anew, even with a library that
keeps comments, would fold, indent and space the rest of it in its own way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from adapters import Calibration, ClassifierName, ConfigError, Stack, load

PLACE = ("router", "calibration")


def check_writable(file: Path) -> None:
    """Before the work rather than after it. Raises ConfigError."""
    target = file.resolve()
    if not (os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
        raise ConfigError(f"{file}: cannot be written, and --fit stores what it finds there")


def store(file: Path, calibrations: Mapping[ClassifierName, Calibration]) -> None:
    """Into the stack's file, in one step. Raises ConfigError, and leaves the file alone, where it cannot be."""
    target = file.resolve()
    before = load(target)
    text = target.read_bytes().decode()
    unsafe = ConfigError(f"{file}: cannot be edited safely; put there by hand: {by_hand(calibrations)}")
    try:
        for name, calibration in calibrations.items():
            text = edited(text, name, calibration)
    except yaml.YAMLError:  # an edit made it something else
        raise unsafe from None
    merged = {**before.router.calibration, **calibrations}
    wanted = before.model_copy(update={"router": before.router.model_copy(update={"calibration": merged})})
    try:
        handle, draft_name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        draft = Path(draft_name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(text.encode())
                out.flush()
                os.fsync(out.fileno())
            shutil.copymode(target, draft)
            if not _same(draft, wanted):
                raise unsafe
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; it is as it was") from None


def edited(text: str, name: str, calibration: Calibration) -> str:
    """The file's text with one classifier's scalars set."""
    scalars = {"temperature": f"{calibration.temperature:g}", "threshold": f"{calibration.threshold:g}"}
    if _find(text, (*PLACE, name)) is None:
        return _put(text, (*PLACE, name), f"{{{', '.join(f'{key}: {value}' for key, value in scalars.items())}}}")
    for key, value in scalars.items():
        text = _put(text, (*PLACE, name, key), value)
    return text


def _put(text: str, path: Sequence[str], value: str) -> str:
    """Set the deepest key of `path`, and make the sections on the way that are not there yet."""
    node, column = _root(text), 0
    for depth, key in enumerate(path):
        entry = _entry(node, key)
        if entry is None:
            return _insert(text, node, column, path[depth:], value)
        column, node = entry[0].start_mark.column + 2, entry[1]
        if _is_null(node) and depth + 1 < len(path):
            # A section without keys: an explicit null makes room, and its line stays, with its comment.
            text = text[: node.start_mark.index].rstrip(" ") + text[node.end_mark.index :]
            return _insert_lines(text, entry[0].end_mark.index, column, path[depth + 1 :], value)
    start, end = node.start_mark.index, node.end_mark.index
    space = " " if start == end else ""  # a null of no letters stands at the colon
    return text[:start] + space + value + text[end:]


def _insert(text: str, node: yaml.Node, column: int, path: Sequence[str], value: str) -> str:
    """A new key at the end of a section, or at the start of one in braces."""
    assert isinstance(node, yaml.MappingNode)
    if node.flow_style:
        start = node.start_mark.index + 1
        flow = value
        for key in reversed(path[1:]):
            flow = f"{{{key}: {flow}}}"
        return f"{text[:start]}{path[0]}: {flow}{', ' if node.value else ''}{text[start:]}"
    last: yaml.Node = node
    while isinstance(last, yaml.MappingNode | yaml.SequenceNode) and last.value and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    column = node.value[0][0].start_mark.column if node.value else column
    return _insert_lines(text, len(text[: last.end_mark.index].rstrip()), column, path, value)


def _insert_lines(text: str, index: int, column: int, path: Sequence[str], value: str) -> str:
    """After the line that holds `index`."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"{' ' * (column + 2 * depth)}{key}:" for depth, key in enumerate(path)]
    end = text.find("\n", index) + 1
    head, tail = (text[:end], text[end:]) if end else (text + newline, "")
    return head + newline.join(lines) + f" {value}{newline}" + tail


def _find(text: str, path: Sequence[str]) -> yaml.Node | None:
    node = _root(text)
    for key in path:
        entry = _entry(node, key)
        if entry is None:
            return None
        node = entry[1]
    return node


def _root(text: str) -> yaml.Node:
    root = yaml.compose(text, yaml.SafeLoader)
    assert root is not None, "a stack that loads is not empty"
    return root


def _entry(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == key), None)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _same(draft: Path, wanted: Stack) -> bool:
    """Does the loader read from the new file what was meant, and all else as before?"""
    try:
        found = load(draft)
    except ConfigError:
        return False
    return found.model_dump(exclude={"file"}) == wanted.model_dump(exclude={"file"})


def by_hand(calibrations: Mapping[ClassifierName, Calibration]) -> str:
    """The scalars as one writes them."""
    parts = (
        f"{name}: {{temperature: {c.temperature:g}, threshold: {c.threshold:g}}}"
        for name, c in calibrations.items()
    )
    return f"router.calibration: {{{', '.join(parts)}}}"
