"""Rules of the tree: who may import whom, what an import may cost, and that the documents say what is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"adapters", "serve", "router", "ui", "training", "evaluation", "benchmarks", "record", "demo"}
MAY_IMPORT = {
    "adapters": set(),
    "serve": {"adapters"},
    "router": {"adapters"},
    "ui": {"adapters"},
    "training": {"adapters", "record", "serve.lint"},
    "evaluation": {"adapters", "router", "record"},
    "benchmarks": {"record", "adapters", "demo.corpus", "evaluation.routing.rows", "router.classify.encoder"},
    "record": set(),
    "demo": {"adapters", "training", "serve", "record"},
}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("folder", sorted(OURS))
def test_arrows(folder: str) -> None:
    assert modules(folder)
    for file in modules(folder):
        for name in imports(file):
            may = (f"{allowed}." for allowed in (folder, *MAY_IMPORT[folder]))
            assert f"{name}.".startswith(tuple(may)), f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    "module",
    [
        "router.app",
        "router.__main__",
        "serve.__main__",
        "evaluation.__main__",
        "benchmarks",
        "record.origin",
        "record.drawing",
        "training.__main__",
        "ui.parts.badge",
        "adapters",
    ],
)
def test_importing_a_process_loads_nothing_heavy(module: str) -> None:
    heavy = "torch transformers vllm gradio peft trl"
    script = (
        f"import sys, {module}; sys.exit(' '.join(name for name in {heavy.split()!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"import {module} loads {done.stderr}"


def documents() -> str:
    return "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    )


def test_documented_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", documents())) | set(re.findall(r"^make ([a-z]+)", documents(), re.M))
    assert {"demo", "test", "check"} <= named <= targets
    for module, command in set(
        re.findall(r"python -m (serve|router|ui|demo|training|evaluation)(?: ([a-z]+))?", documents())
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"python -m {module} --help"
        assert command in done.stdout, f"python -m {module} {command} is documented and unknown"


def test_documented_files_exist() -> None:
    for name in set(re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))):
        assert (ROOT / name).exists(), f"README.md links to {name}"


def test_documented_headers_and_keys_exist() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in modules("router"))
    for header in set(re.findall(r"x-lora-select-[a-z-]+[a-z]", documents())):
        assert header in code, f"{header} is documented and never sent"
    reference = (ROOT / "adapters.yaml").read_text(encoding="utf-8")
    for section, key in set(re.findall(r"`(base|engine|router|ui)\.([a-z_]+)`", documents())):
        assert re.search(rf"^  (# )?{key}:", reference, re.MULTILINE), f"{section}.{key} is documented and unknown"
