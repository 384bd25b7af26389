"""Edits of YAML text at the places that PyYAML's parser names: every character elsewhere stays where it is.

Writing the parsed file anew, even with a library that keeps comments, would fold, indent and space the rest of it
in its own way. An edit is no proof that the text now says what is meant: whoever edits loads the result again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

OPENED = re.compile(r"(?:(?:[&!]\S*|#[^\n]*)\s+)*\{")
COLON = re.compile(r"[ \t]*:")
COMMA_AFTER = re.compile(r"[ \t]*,(?:[ \t]+(?![ \t#]))?")
COMMA_BEFORE = re.compile(r",[ \t]*\Z")
COMMENT = re.compile(r"([ \t]*)#[^\n]*(?:\n|\Z)")
REST = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")


class NotEditable(Exception):
    """The text is written in a way that no edit here can change safely."""


def put(text: str, path: Sequence[str], value: object, levels: int = 0) -> str:
    """The text with the key at `path` set, and the sections on the way made where they are missing.

    What is new below a block is a block, down to the key and `levels` further; the rest is on one line. Raises
    NotEditable and yaml.YAMLError.
    """
    return _put(text, _root(text), path, value, levels)


def remove(text: str, path: Sequence[str]) -> str:
    """The text without the key at `path`, and without the comments that belong to it.

    Those are the lines directly above it in its column, what stands on its own lines, and the lines directly below
    that start further right. Raises NotEditable and yaml.YAMLError.
    """
    section = _find(text, path[:-1])
    if section is None or (entry := _entry(section, path[-1])) is None:
        raise NotEditable
    key, value = entry
    start, end = key.start_mark.index, max(key.end_mark.index, _end(text, value))
    if section.flow_style:
        start, end = _with_comma(text, start, end)
    line, column = text.rfind("\n", 0, start) + 1, key.start_mark.column
    if text[line:start].strip() in ("", "?") and REST.match(text, end):
        start, end = _above(text, line, column), _deeper(text, _next_line(text, end), column)
    elif not section.flow_style:
        raise NotEditable
    return text[:start] + text[end:]


def has(text: str, path: Sequence[str]) -> bool:
    """Is there a key at `path`? Raises yaml.YAMLError."""
    return _find(text, path) is not None


def one_line(value: object, flow: bool = True) -> str:
    """A value as YAML on one line; `flow` is for a place between braces, where more must be quoted."""
    wrapped = [value] if flow else value
    written: str = yaml.dump(
        wrapped, Dumper=_OneLine, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    line = written.partition("\n")[0]
    return line[1:-1] if flow else line


class _OneLine(yaml.SafeDumper):
    def choose_scalar_style(self) -> str:
        style = super().choose_scalar_style()
        return '"' if self.analysis and self.analysis.multiline else style


class _AsWritten(yaml.SafeLoader):
    """An alias is a place of its own here, and not the one that it stands for."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        alias = self.get_event()  # type: ignore[no-untyped-call]
        return yaml.ScalarNode("alias", f"*{alias.anchor}", alias.start_mark, alias.end_mark)


def _root(text: str) -> yaml.Node:
    root = yaml.compose(text, _AsWritten)
    if root is None:
        raise NotEditable
    return root


def _find(text: str, path: Sequence[str]) -> Any:
    node = _root(text)
    for key in path:
        if (entry := _entry(node, key)) is None:
            return None
        node = entry[1]
    return node


def _entry(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == key), None)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _put(text: str, section: yaml.Node, path: Sequence[str], value: object, levels: int) -> str:
    key, *rest = path
    if (entry := _entry(section, key)) is None:
        return _insert(text, section, _nested(path, value), len(rest) + levels)
    if not rest:
        return _replace(text, section, entry, value)
    if _is_null(entry[1]):
        return _fill(text, section, entry, _nested(rest, value), len(rest) - 1 + levels)
    return _put(text, entry[1], rest, value, levels)


def _nested(path: Sequence[str], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict), "a path names a key"
    return value


def _insert(text: str, section: yaml.Node, part: Mapping[str, Any], levels: int) -> str:
    """A new key at the end of a section, or at the start of one in braces."""
    if not isinstance(section, yaml.MappingNode):
        raise NotEditable
    if not section.flow_style:
        column = section.value[0][0].start_mark.column
        return _insert_lines(text, _end(text, section), _lines(part, column, _step(section), levels), column)
    if (opened := OPENED.match(text, section.start_mark.index)) is None:
        raise NotEditable
    inside = opened.end()
    comma = ", " if not text[inside].isspace() else ","
    return text[:inside] + one_line(part)[1:-1] + (comma if section.value else "") + text[inside:]


def _fill(text: str, section: Any, entry: tuple[yaml.Node, yaml.Node], part: Any, levels: int) -> str:
    """A section without keys: an explicit null makes room, and its line stays, with its comment."""
    if section.flow_style:
        return _replace(text, section, entry, part)
    key, null = entry
    text = text[: null.start_mark.index].rstrip(" ") + text[null.end_mark.index :]
    column = key.start_mark.column + 2
    return _insert_lines(text, key.end_mark.index, _lines(part, column, 2, levels), column)


def _replace(text: str, section: Any, entry: tuple[yaml.Node, Any], value: object) -> str:
    key, old = entry
    start, end = old.start_mark.index, old.end_mark.index
    new = one_line(value, section.flow_style)
    if isinstance(old, yaml.ScalarNode):
        if old.style in ("|", ">"):
            header, _, _ = text[start:end].partition("\n")
            comment = re.search(r"[ \t]+#.*", header.rstrip("\r"))
            new, end = new + (comment[0] if comment else ""), _end(text, old)
    elif not old.flow_style:
        if (colon := COLON.match(text, key.end_mark.index)) is None:
            raise NotEditable
        first = _next_line(text, colon.end())
        return f"{text[: colon.end()]} {new}{text[colon.end() : first]}{text[_next_line(text, _end(text, old)) :]}"
    space = " " if start == end else ""  # a null of no letters stands at the colon
    return text[:start] + space + new + text[end:]


def _with_comma(text: str, start: int, end: int) -> tuple[int, int]:
    """Of the two that an entry in braces may have on its line, the one behind it, or else the one before."""
    if comma := COMMA_AFTER.match(text, end):
        return start, comma.end()
    comma = COMMA_BEFORE.search(text[:start])
    return comma.start() if comma else start, end


def _lines(part: Mapping[str, Any], column: int, step: int, levels: int) -> Iterator[str]:
    for key, value in part.items():
        head = f"{' ' * column}{one_line(key)}:"
        if levels and isinstance(value, Mapping) and value:
            yield head
            yield from _lines(value, column + step, step, levels - 1)
        else:
            yield f"{head} {one_line(value, flow=False)}"


def _insert_lines(text: str, index: int, lines: Iterator[str], column: int) -> str:
    """After the line that holds `index`, and the comments that belong to it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    place = _deeper(text, _next_line(text, index), column)
    head = text[:place] + ("" if text[:place].endswith("\n") else newline)
    return head + "".join(line + newline for line in lines) + text[place:]


def _step(section: yaml.MappingNode) -> int:
    """How far the entries of a section indent their own keys."""
    for key, value in section.value:
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            return int(value.value[0][0].start_mark.column - key.start_mark.column)
    return 2


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's last word ends: a block's own end is where the next thing starts."""
    while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return len(text[: node.end_mark.index].rstrip())


def _next_line(text: str, index: int) -> int:
    return text.find("\n", index) + 1 or len(text)


def _deeper(text: str, index: int, column: int) -> int:
    """Behind the comment lines at `index` that start to the right of `column`."""
    while (line := COMMENT.match(text, index)) and len(line[1]) > column:
        index = line.end()
    return index


def _above(text: str, index: int, column: int) -> int:
    """The start of the comment lines directly above `index` that start in `column`."""
    while index and text.startswith(f"{' ' * column}#", start := text.rfind("\n", 0, index - 1) + 1):
        index = start
    return index
