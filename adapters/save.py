"""One adapter into adapters.yaml, or out of it, in one step: nothing else in the file changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adapters.edit import NotEditable, one_line, put, remove
from adapters.load import load, with_adapters
from adapters.schema import ConfigError, Stack
from adapters.sections import Adapter


def save_adapter(file: Path, name: str, adapter: Adapter) -> None:
    """Write the adapter's entry, or what differs of it.

    `adapter.path` is as the file has it: where it is relative, then to the file and not to the current folder.
    Raises ConfigError, and leaves the file alone, where it cannot be.
    """
    before = load(file)
    old, new = before.adapters.get(name), _as_written(adapter)
    if old == adapter:
        return
    wanted = with_adapters(before, {**before.adapters, name: adapter})

    def edit(text: str) -> str:
        place = ("adapters", name)
        return merge(text, place, _as_written(old), new) if old else put(text, place, new, levels=1)

    rewrite(file, edit, wanted, f"put there by hand: adapters.{name}: {one_line(new)}")


def drop_adapter(file: Path, name: str) -> None:
    """Remove the adapter's entry, with the comments that belong to it.

    Raises ConfigError, and leaves the file alone, where it cannot be: the last one, and one that a key
    or a library names.
    """
    before = load(file)
    if name not in before.adapters:
        raise before.error("adapters", f'no adapter "{name}"; there are {", ".join(before.adapters)}')
    left = {other: adapter for other, adapter in before.adapters.items() if other != name}
    if not left:
        raise before.error(f"adapters.{name}", "the last one, and a stack needs one; add another first")
    for key, client in before.router.keys.items():
        if name in (client.adapters or ()):
            raise before.error(f"router.keys.{key}.adapters", f'names "{name}"; take it out there first')
    for model, lag in before.lag.items():
        for library, members in lag.members(left).items():
            if name in members:
                raise before.error(f"lag.{model}.{lag.key(library)}", f'names "{name}"; take it out there first')
    rewrite(
        file,
        lambda text: remove(text, ("adapters", name)),
        with_adapters(before, left),
        f"take out by hand: adapters.{name}",
    )


def merge(text: str, path: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The section at `path`, which says `old`, made to say `new`: what is equal is not touched."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            text = merge(text, (*path, key), old[key], value)
        elif key not in old or value != old[key]:
            text = put(text, (*path, key), value)
    for key in old:
        if key not in new:
            text = remove(text, (*path, key))
    return text


def check_writable(file: Path, why: str) -> None:
    """Before the work rather than after it. Raises ConfigError, with `why` it matters."""
    target = file.resolve()
    if not (os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
        raise ConfigError(f"{file}: cannot be written, and {why}")


def seen_from(file: Path, path: str) -> str:
    """A folder at or below the file's own, as the file would name it; anything else as it is."""
    folder, parent = Path(path), file.resolve().parent
    return f"./{folder.relative_to(parent)}" if folder.is_absolute() and folder.is_relative_to(parent) else path


def rewrite(file: Path, edit: Callable[[str], str], wanted: Stack, by_hand: str) -> None:
    """Edit a stack's file in one step, so that it loads to `wanted`.

    Raises ConfigError, and leaves the file alone, where that cannot be; `by_hand` says what to do instead.
    """
    target = file.resolve()
    try:
        before = target.read_bytes()
        with _draft(target, edit(before.decode()).encode()) as draft:
            if not _same(draft, wanted):
                raise NotEditable
            if target.read_bytes() != before:
                raise ConfigError(f"{file}: somebody else has changed it just now; nothing was written, try again")
            draft.replace(target)
    except (NotEditable, yaml.YAMLError):  # the latter where an edit made it something else
        raise ConfigError(f"{file}: cannot be edited safely; {by_hand}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; it is as it was") from None


@contextlib.contextmanager
def _draft(target: Path, data: bytes) -> Iterator[Path]:
    """Beside the file, on the disk, with the file's mode."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        shutil.copymode(target, draft)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _same(draft: Path, wanted: Stack) -> bool:
    """Does the loader read from the new file what was meant, and all else as before?"""
    try:
        found = load(draft)
    except ConfigError:
        return False
    return found.model_dump(exclude={"file"}) == wanted.model_dump(exclude={"file"})


def _as_written(adapter: Adapter) -> dict[str, Any]:
    """The keys of its entry, `path` first."""
    return adapter.model_dump(mode="json", exclude_defaults=True)
