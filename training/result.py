"""`Run`: what a training was and what came of it; run.json holds it, and the model card tells it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters import ConfigError
from record.origin import Gpu, Machine, Origin
from training.count import Counted
from training.data.counts import Counts
from training.manifest import HeldOut
from training.recipe import PATHS, Recipe

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

    @classmethod
    def read(cls, folder: Path) -> Run:
        """A folder's run.json. Raises ConfigError where it is not one that `write` has made."""
        file = folder / RUN
        try:
            own = json.loads(file.read_text(encoding="utf-8"))
            machine = {
                **own["made_with"]["machine"],
                "gpus": tuple(Gpu(**it) for it in own["made_with"]["machine"]["gpus"]),
            }
            types = {
                "recipe": Recipe(file=file, **own["recipe"]),
                "targets": tuple(own["targets"]),
                "parameters": Counted(**own["parameters"]),
                "counts": Counts(**{**own["counts"], "changed": tuple(own["counts"]["changed"])}),
                "losses": tuple(own["losses"]),
                "held_out_losses": tuple((step, loss) for step, loss in own["held_out_losses"]),
                "comparison": HeldOut(**own["comparison"]),
                "made_with": Origin(**{**own["made_with"], "machine": Machine(**machine)}),
            }
            return cls(**{**own, **types})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: is no record of a training: {error}; --overwrite trains anew") from None

    def write(self, folder: Path) -> None:
        """run.json."""
        own = {
            **asdict(self),
            "recipe": _without_folders(self.recipe.model_dump(mode="json", exclude={"file"})),
            "comparison": self.comparison.model_dump(mode="json"),
        }
        text = json.dumps(own, indent=1, ensure_ascii=False)
        (folder / RUN).write_text(f"{text}\n", encoding="utf-8")


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """Where things lie on this machine is nobody else's business."""
    for section, key in PATHS:
        part = recipe.get(section) if section else recipe
        if part and part.get(key) and Path(part[key]).is_absolute():
            part[key] = Path(part[key]).name
    return recipe
