"""`write_card(folder, run)`: README.md, an adapter's model card, made of its run and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from adapters.schema import HUB_ID
from record.origin import Machine
from training.manifest import Gain, HeldOut
from training.result import Run

CARD, PLOT = "README.md", "loss.png"
FEW = 100
"""With fewer held-out rows than these, a card says how few they are."""
MOST = 700.0
"""e to a higher power is no number."""


def write_card(folder: Path, run: Run) -> None:
    """What a reader needs to trust the adapter, and to serve it."""
    parts = (
        _front_matter(run),
        _what(run),
        _figures(run.comparison),
        _training(run),
        _serving(run),
        _limits(run),
    )
    text = "\n\n".join("\n".join(part) for part in parts)
    (folder / CARD).write_text(f"{text}\n", encoding="utf-8")


def _front_matter(run: Run) -> Iterator[str]:
    """What the hub reads, and adapters/labels.py."""
    hub = HUB_ID.fullmatch(run.counts.source)
    keys = {
        "base_model": run.base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": run.recipe.language,
        "tags": ["lora", run.recipe.domain],
        **({"datasets": [hub[1]]} if hub else {}),
        "label": run.label,
    }
    yield "---"
    yield _yaml(keys)
    yield "---"


def _what(run: Run) -> Iterator[str]:
    yield f"# {_text(run.recipe.name)}"
    yield ""
    yield (
        f"A LoRA adapter of {_code(run.base)} for the domain {_text(run.recipe.domain)}, trained on "
        f"{run.trained:,} answers of {_code(run.counts.source)}."
    )
    yield ""
    yield f"What a router reads of it: {_text(run.label)}."


def _figures(found: HeldOut) -> Iterator[str]:
    """Base beside adapter, and the curve."""
    yield "## Beside its base"
    yield ""
    yield f"On {found.rows:,} held-out rows of the same data ({found.tokens:,} tokens of answers):"
    yield ""
    yield from _table(
        ("", "base", "adapter", "the adapter's gain, 95 % interval"),
        [
            (
                "loss, nats per token",
                _figure(found.base.loss),
                _figure(found.adapter.loss),
                _difference(found.gain),
            ),
            ("perplexity", _figure(found.base.perplexity), _figure(found.adapter.perplexity), _ratio(found.gain)),
        ],
    )
    yield ""
    yield "There it is better than its base." if found.better else "**There it is no better than its base.**"
    yield ""
    yield f"![Loss over the steps of the training]({PLOT})"


def _training(run: Run) -> Iterator[str]:
    """Rows, settings and time, and what it was made with."""
    lora, made = run.decides["lora"], run.made_with
    settings = [f"{key} {_plain(value)}" for key, value in run.recipe.training if value is not None]
    yield "## How it was trained"
    yield ""
    rows = [
        (
            "LoRA",
            f"rank {lora['r']}, alpha {lora['lora_alpha']:g}, dropout {lora['lora_dropout']:g}, "
            f"on {_code(', '.join(run.targets))}",
        ),
        ("parameters", str(run.parameters)),
        ("rows", _rows(run)),
        ("settings", ", ".join(settings)),
        ("loss", f"{run.losses[0]:.3f} in the first of {run.steps:,} steps, {run.losses[-1]:.3f} in the last"),
        ("time", _time(run.seconds)),
        ("hardware", _hardware(made.machine)),
        ("versions", ", ".join(f"{name} {it}" for name, it in made.versions.items() if it != "not installed")),
        ("commit", made.commit + " and changes" * made.changed_since),
        ("command", _code(made.command)),
        ("date", made.date),
        ("digest of the data", run.data),
    ]
    yield from _table(("", ""), [row for row in rows if row[1]])


def _hardware(machine: Machine) -> str:
    gpus = [f"{gpu.name} with {gpu.memory_gb:g} GB" for gpu in machine.gpus]
    return ", ".join([*gpus, f"{machine.cores} cores of {machine.cpu}", f"{machine.memory_gb:g} GB of memory"])


def _rows(run: Run) -> str:
    counts = run.counts
    left_out = {
        "empty": counts.empty,
        "duplicated": counts.duplicates,
        "too long": run.overlong,
        "not to be learnt": counts.untaught,
        "not chosen by the recipe": counts.filtered + counts.unsampled,
    }
    named = ", ".join(f"{number:,} {kind}" for kind, number in left_out.items() if number)
    kept = f"{counts.rows:,} read: {run.trained:,} answers trained on, {counts.held_out:,} held out"
    return f"{kept}; left out: {named}" if named else kept


def _serving(run: Run) -> Iterator[str]:
    """As an entry of adapters.yaml."""
    recipe = run.recipe.model_dump(mode="json", include={"tags", "system_prompt", "sampling"}, exclude_none=True)
    folder = f"path/to/{run.recipe.name}"
    adapter = {"path": folder, **{key: value for key, value in recipe.items() if value}}
    yield "## How to serve it"
    yield ""
    yield (
        f"In the adapters.yaml of a stack with the base {_code(run.base)} and the chat template of its "
        "training (its label is read from this folder):"
    )
    yield ""
    yield "```yaml"
    yield _yaml({"adapters": {run.recipe.name: adapter}})
    yield "```"
    yield ""
    yield f"Into a stack that runs: {_code(f'python -m serve add {run.recipe.name} {folder}')}."


def _limits(run: Run) -> Iterator[str]:
    """Only what the run itself tells."""
    settings, found = run.recipe.training, run.comparison
    yield "## Limits"
    yield ""
    if not found.better:
        yield "- Nothing here speaks for serving it: on held-out rows it is no better than its base."
    if found.rows < FEW:
        yield f"- The figures are of {found.rows} rows only."
    yield "- They tell how well answers of this data are foreseen, not whether an answer is true. For this card no"
    yield "  person has rated any."
    if settings.quantization:
        yield f"- Base and adapter were measured with the base in {settings.quantization}, as it was trained."
    yield f"- It has seen nothing longer than {settings.max_length:,} tokens, prompt and answer together."
    yield "- The licences of the base and of the data hold for it, too; this card does not know them."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        line = " | ".join(cell.replace("|", "\\|") for cell in cells)
        yield f"| {line} |"


def _yaml(keys: Mapping[str, object]) -> str:
    """With letters of any language as they are, unless PyYAML would then read something else (U+0085)."""
    text, escaped = (
        yaml.safe_dump(keys, sort_keys=False, allow_unicode=readable, width=110) for readable in (True, False)
    )
    return (text if yaml.safe_load(text) == keys else escaped).rstrip("\n")


def _text(words: str) -> str:
    """In one line, and without what Markdown would read."""
    line = " ".join(words.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>#" else sign for sign in line)


def _code(words: str) -> str:
    line = " ".join(words.split()).replace("`", "'")
    return f"`{line}`"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _figure(number: float | None) -> str:
    return "no number" if number is None else f"{number:.4g}"


def _difference(gain: Gain) -> str:
    if gain.value is None or gain.low is None or gain.high is None:
        return "no number"
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _ratio(gain: Gain) -> str:
    """Of perplexities."""
    if gain.value is None or gain.low is None or gain.high is None:
        return "no number"
    value, low, high = (math.exp(min(nats, MOST)) for nats in (gain.value, gain.low, gain.high))
    return f"{value:.3g} times lower ({low:.3g} to {high:.3g})"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
