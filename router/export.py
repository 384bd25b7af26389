"""`python -m router.export WEIGHTS OUT.onnx`: MiniLM as an int8 graph, pooling inside; needs torch, once."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import warnings
from pathlib import Path

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""all-MiniLM-L6-v2's published model.safetensors: the packager is unknown, the file is not."""


def export(weights: Path, out: Path) -> None:
    """Write `out` in one step. Raises ValueError when the weights are not the published ones."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel
    from transformers.utils import logging

    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{weights}/model.safetensors has sha256 {digest}, expected {WEIGHTS_SHA256}")
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(weights, attn_implementation="eager").eval()

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        """Mean over the text's tokens, scaled to length 1."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean, dim=-1)

    out.parent.mkdir(parents=True, exist_ok=True)
    example = torch.ones(2, 8, dtype=torch.int64)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full, small = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
        axes = {0: "text", 1: "token"}
        torch.onnx.export(
            Pooled(), (example, example), str(full), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["vectors"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "vectors": {0: "text"}},
        )  # fmt: skip
        quantize_dynamic(full, small, weight_type=QuantType.QInt8)
        small.replace(out)


if __name__ == "__main__":
    try:
        export(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        sys.exit(str(error))
