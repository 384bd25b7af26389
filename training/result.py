"""`Run`: what a training was and what came of it; run.json holds it, and the model card tells it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from record.origin import Origin
from training.count import Counted
from training.data.counts import Counts
from training.manifest import HeldOut
from training.recipe import Recipe

RUN = "run.json"


@dataclass(frozen=True)
class Run:
    """`losses` are those of every step, in nats per answer token; `overlong` are left out of `counts.train`.

    `decides` is all that the weights depend on (`training.plan.Plan.decides`), `said` the comparison in one line.
    """

    recipe: Recipe
    label: str
    base: str
    targets: tuple[str, ...]
    parameters: Counted
    counts: Counts
    overlong: int
    data: str
    steps: int
    seconds: float
    losses: tuple[float, ...]
    held_out_losses: tuple[tuple[int, float], ...]
    comparison: HeldOut
    said: str
    decides: dict[str, Any]
    made_with: Origin

    @property
    def trained(self) -> int:
        """Answers that it learnt from."""
        return self.counts.train - self.overlong

    def write(self, folder: Path) -> None:
        """run.json."""
        own = {
            **asdict(self),
            "recipe": _without_folders(self.recipe.model_dump(mode="json", exclude={"file"})),
            "comparison": self.comparison.model_dump(mode="json"),
        }
        text = json.dumps(own, indent=1, ensure_ascii=False)
        (folder / RUN).write_text(f"{text}\n", encoding="utf-8")


def _without_folders(value: Any) -> Any:
    """Where things lie on this machine is nobody else's business."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
