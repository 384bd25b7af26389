"""Gradio without what this page never uses: it starts in half the time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

STUBS = "gradio.component_meta"
AGENTS = "mcp"


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """While it lasts, `import gradio` writes no type stubs into its own package, for which it parses all of its
    components, and does without `mcp`, its server for agents, as where that is not installed."""
    finder = _Finder()
    agents = sys.modules.get(AGENTS)
    sys.meta_path.insert(0, finder)
    sys.modules[AGENTS] = agents  # type: ignore[assignment]  # None: an import of it fails
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if agents is None:
            del sys.modules[AGENTS]


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = _nothing  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == STUBS else None
        if spec and spec.origin:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def _nothing(*_: object) -> None:
    pass
