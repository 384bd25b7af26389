"""`gguf(adapter, base, out) -> Gguf`: an adapter for llama.cpp, by the converter in llama.cpp's own sources."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from adapters import ConfigError
from training.errors import Stopped

FOLDER, CONVERTER = "LLAMA_CPP", "convert_lora_to_gguf.py"
"""The environment variable that names a copy of llama.cpp, and the script in it."""

BELOW = ("", "vendor/llama.cpp")
"""Where the script lies in llama.cpp's sources, and in those of llama-cpp-python."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NO_GGUF = "--gguf: GGUF is not available"
HOW = (
    f"set {FOLDER} to a checkout of llama.cpp, or to the unpacked sources of llama-cpp-python "
    "(pip download --no-deps --no-binary llama-cpp-python llama-cpp-python)"
)


@dataclass(frozen=True)
class Gguf:
    """What a GGUF file of an adapter says of itself; `modules` counts the pairs of A and B."""

    architecture: str
    alpha: float
    ranks: tuple[int, ...]
    modules: int


def find_converter() -> Path:
    """The script, in the folder that LLAMA_CPP names or else on PATH. Raises ConfigError with what to do."""
    if named := os.environ.get(FOLDER):
        for below in BELOW:
            if (script := Path(named).expanduser() / below / CONVERTER).is_file():
                return script
        raise ConfigError(f"{NO_GGUF}: {FOLDER}={named} holds no {CONVERTER}; {HOW}")
    if found := shutil.which(CONVERTER):
        return Path(found)
    raise ConfigError(f"{NO_GGUF}: no Python package installs llama.cpp's {CONVERTER}; {HOW}")


def check_convertible(lora: Mapping[str, Any]) -> None:
    """Raise ConfigError for an adapter_config.json that the converter, or the format, would get wrong."""
    if lora.get("fan_in_fan_out"):
        # The converter's GPT-2 class turns the weights of a Conv1D around, and an adapter's with them, which PEFT
        # stores the right way round already: A and B change places, and in a square module nothing shows it.
        raise ConfigError(f"{NO_GGUF}: llama.cpp's converter swaps A and B where the base is a GPT-2; use --merge")
    if lora.get("alpha_pattern") or (lora.get("use_rslora") and lora.get("rank_pattern")):
        raise ConfigError(
            f"{NO_GGUF}: the format has one alpha for all modules; train without patterns or use --merge"
        )


def gguf(adapter: Path, base: Mapping[str, Any], out: Path, converter: Path | None = None) -> Gguf:
    """Write the file `out`; `base` is the content of the base's config.json, and nothing else of it is needed.

    Raises ConfigError where it cannot be done, as the two checks above do, and Stopped where the converter fails.
    """
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    check_convertible(config)
    script = converter or find_converter()
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    with tempfile.TemporaryDirectory() as scratch:
        plain = _plain(adapter, config, Path(scratch))
        sources = Path(scratch) / "base"
        sources.mkdir()
        (sources / "config.json").write_text(json.dumps(base), encoding="utf-8")
        options = ("--base", str(sources), "--outtype", "f32", "--outfile", str(part), str(plain))
        done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        why = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise Stopped(f"{out}: llama.cpp's converter failed: {why}; the adapter is in {adapter}")
    part.rename(out)
    return read_gguf(out)


def _plain(adapter: Path, config: Mapping[str, Any], scratch: Path) -> Path:
    """The adapter as llama.cpp scales it, by alpha over r; rsLoRA's is alpha over the root of r."""
    if not config.get("use_rslora"):
        return adapter
    plain = scratch / adapter.name  # the file's general.name is made from it
    plain.mkdir()
    changed = {**config, "use_rslora": False, "lora_alpha": config["lora_alpha"] * math.sqrt(config["r"])}
    (plain / CONFIG).write_text(json.dumps(changed), encoding="utf-8")
    (plain / WEIGHTS).symlink_to((adapter / WEIGHTS).resolve())
    return plain


def read_gguf(file: Path) -> Gguf:
    """What is in the file, as any reader of GGUF would find it."""
    reader = GGUFReader(file)
    first = [tensor for tensor in reader.tensors if tensor.name.endswith(".lora_a")]
    said = {key: field.contents() for key, field in reader.fields.items()}
    return Gguf(
        architecture=said["general.architecture"],
        alpha=said["adapter.lora.alpha"],
        ranks=tuple(sorted({int(tensor.shape[1]) for tensor in first})),
        modules=len(first),
    )
