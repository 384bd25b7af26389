"""`python -m router.classify.export WEIGHTS OUT.onnx [SHA256]`: an encoder as an int8 graph; needs torch, once."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""all-MiniLM-L6-v2's published model.safetensors: the packager is unknown, the file is not."""

RECIPE = "int8c"
"""Names how a graph is made, so that one made otherwise is not taken for it.

One scale per output channel: MiniLM's vectors then have a cosine of 0.995 to their float32 ones, and 0.963 with
one per matrix, at the same speed.
"""


def export(weights: Path, out: Path, sha256: str = "") -> None:
    """Write `out` in one step. Raises ValueError when the weights are not the expected ones or cannot be used."""
    if sha256:
        digest = hashlib.sha256((weights / WEIGHTS[0]).read_bytes()).hexdigest()
        if digest != sha256:
            raise ValueError(f"{weights}/{WEIGHTS[0]} has sha256 {digest}, expected {sha256}")

    from onnxruntime.quantization import QuantType, quantize_dynamic

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        full, small = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
        export_full(weights, full)
        quantize_dynamic(full, small, weight_type=QuantType.QInt8, per_channel=True)
        small.replace(out)


def export_full(weights: Path, out: Path) -> None:
    """The same graph in float32. Raises ValueError when the weights cannot be used."""
    by_first_token = pools_by_first_token(weights)

    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(weights, attn_implementation="eager").eval()

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        """The sentence's vector from its tokens', scaled to length 1."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = hidden[:, 0] if by_first_token else (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled, dim=-1)

    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "text", 1: "token"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled(), (example, example), str(out), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["vectors"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "vectors": {0: "text"}},
        )  # fmt: skip


def pools_by_first_token(weights: Path) -> bool:
    """What sentence-transformers' own file says; the mean over all tokens where there is none.

    Raises ValueError for any third way.
    """
    file = weights / "1_Pooling" / "config.json"
    if not file.is_file():
        return False
    config = json.loads(file.read_text(encoding="utf-8"))
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if modes not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise ValueError(
            f"{file} asks for {', '.join(modes) or 'no pooling'}; only the mean or the first token can be"
        )
    return modes == ["pooling_mode_cls_token"]


if __name__ == "__main__":
    try:
        export(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except (ValueError, OSError) as error:
        sys.exit(str(error))
