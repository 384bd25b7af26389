"""An adapter's files as they are when it is loaded: a copy under a name of its own, NAME@VERSION.

vLLM reads an evicted adapter from its path again, and keys its prefix cache by name and path. Were that the user's
own folder, files that are replaced in place would change an adapter in the middle of its requests, and the cache
would answer for the old one (vllm#42125).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from adapters import Ref
from serve.life.loader import DIGITS
from serve.lint.files import CONFIG, PICKLES, WEIGHTS

FILES = (CONFIG, WEIGHTS, *PICKLES)
CHUNK = 1 << 20
PART = ".part"
"""Ends the name of a copy that is not whole."""


def snapshot(reference: Ref, name: str, into: Path) -> Path:
    """Copy an adapter's files to `into`/NAME@VERSION, the version being the copy's SHA-256. Raises OSError."""
    folder = reference.folder or _downloaded(reference)
    part = into / f"{name}{PART}"
    forget(part)
    part.mkdir(parents=True)
    try:
        for file in FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, part / file)
    except OSError:  # a full disk is to have its room again
        forget(part)
        raise
    copy = into / f"{name}@{_digest(part)}"
    if copy.is_dir():
        shutil.rmtree(part)
    else:
        part.rename(copy)
    return copy


def forget(copy: Path) -> None:
    """Remove a copy; what cannot be removed is left."""
    shutil.rmtree(copy, ignore_errors=True)


def _downloaded(reference: Ref) -> Path:
    from huggingface_hub import snapshot_download  # takes 0.3 s, and not every stack has a hub id

    return Path(snapshot_download(reference.name, revision=reference.revision, allow_patterns=list(FILES)))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in FILES:
        if (folder / name).is_file():
            digest.update(name.encode())
            with (folder / name).open("rb") as file:
                while part := file.read(CHUNK):
                    digest.update(part)
    return digest.hexdigest()[:DIGITS]
