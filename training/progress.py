"""One tqdm bar per training, with loss and rate in it, in place of the libraries' own output."""

from __future__ import annotations

from typing import Any

import transformers
from tqdm import tqdm  # type: ignore[import-untyped]


class Progress(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Draws the bar; the Trainer's own would print a dictionary at each logging step."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: Any = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Open the bar, where a resumed training stands."""
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.label, unit="step", mininterval=0.5
        )

    def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Advance by one optimizer step."""
        if self.bar is not None:
            self.bar.update()

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Show the newest losses."""
        self.shown |= {
            name: f"{logs[key]:.3f}" for key, name in (("loss", "loss"), ("eval_loss", "held_out")) if key in logs
        }
        if self.bar is not None:
            self.bar.set_postfix(self.shown, refresh=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar, however the training ended: what is printed next starts on a line of its own."""
        if self.bar is not None:
            self.bar.close()
