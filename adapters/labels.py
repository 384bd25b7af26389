"""What a classifier reads of an adapter: its label, or what the adapter's own files say of it (issue 3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapters.fields import ClassifierName
from adapters.schema import ConfigError, Ref, Stack, path_key, split

MANIFEST, CARD = "manifest.json", "README.md"

DATA_FREE: ClassifierName = "spectral"
"""The classifier that reads no label."""

TECHNICAL = re.compile(
    r"base_model:.*|license:.*|region:.*|arxiv:.*|dataset:.*|lora|qlora|peft|adapter|adapters|transformers|"
    r"safetensors|trl|sft|unsloth|axolotl|text-generation.*|conversational|generated_from_trainer|"
    r"(llama|mistral|gemma|qwen|gpt|phi)[\w.-]*|[a-z]{2}",
    re.IGNORECASE,
)
"""Tags of a model card that say how an adapter was made, or in which language, and not what it is about."""

FILLER = re.compile(
    r"v?\d+(\.\d+)*[km]?|q|a|qa|qna|chat|chats|data|dataset|datasets|instruct|instruction|instructions|sft|"
    r"train|training|test|mini|small|large|full|clean|cleaned|en|english|alpaca|sharegpt|hf",
    re.IGNORECASE,
)
"""Words of a dataset's name that say nothing about its subject."""


@dataclass(frozen=True)
class Label:
    """An adapter's topics as words, and the file or key that they come from."""

    text: str
    source: str


def labels(stack: Stack) -> dict[str, Label]:
    """Every adapter's label. Raises ConfigError for the first that has none anywhere."""
    return {name: label(stack, name) for name in stack.adapters}


def label(stack: Stack, name: str) -> Label:
    """An adapter's label: its own, or else from its manifest, its README's front matter, or its dataset's name.

    One with versions is looked for in its path first, then in each version; that label is every version's.
    Raises ConfigError when none of them says what the adapter is about, unless no classifier of the stack asks.
    """
    given = stack.adapters[name].label
    if given is not None:
        return Label(given, "adapters.yaml")
    looked = []
    for place in _places(stack, name):
        if found := next(_read(_files_of(place)), None):
            return found
        looked.append(str(place.folder or f"{place} (as far as the hub's cache on this machine holds it)"))
    if stack.router.classifier == (DATA_FREE,):
        return Label(split(name)[0], f"its name, as {DATA_FREE} reads none")
    there = ", ".join(looked)
    key = f"adapters.{split(name)[0]}.label"
    raise stack.error(key, f"missing, and neither {MANIFEST} nor {CARD} in {there} says what it is about")


def _places(stack: Stack, name: str) -> Iterator[Ref]:
    """What an adapter's versions are in, and then each of them: the same whether the stack is expanded or not."""
    adapter, version = split(name)
    path = stack.adapters[name].path
    yield stack.ref(path[: -len(f"@{version}")] if version else path, path_key(adapter))
    versions = stack.expanded()
    yield from (versions.adapter_ref(part) for part in versions.adapters if part.startswith(f"{adapter}@"))


def _read(file: Callable[[str], Path | None]) -> Iterator[Label]:
    manifest = _json(file(MANIFEST))
    if text := _words(manifest.get("label")):
        yield Label(text, MANIFEST)
    card = _front_matter(file(CARD))
    if text := _words(card.get("label")):
        yield Label(text, f"{CARD}, label")
    if text := ", ".join(tag for tag in _strings(card.get("tags")) if not TECHNICAL.fullmatch(tag)):
        yield Label(text, f"{CARD}, tags")
    datasets = [*_strings(manifest.get("dataset")), *_strings(card.get("datasets"))]
    if text := ", ".join(dict.fromkeys(filter(None, map(_subject, datasets)))):
        yield Label(text, f"the name of its dataset, {', '.join(datasets)}")


def _files_of(reference: Ref) -> Callable[[str], Path | None]:
    """Of the hub only what lies on this machine already: reading a stack never asks the network."""
    if folder := reference.folder:
        return lambda name: folder / name

    def find(name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache  # takes 0.3 s, and few stacks need it

        found = try_to_load_from_cache(reference.name, name, revision=reference.revision)
        return Path(found) if isinstance(found, str) else None

    return find


def _json(file: Path | None) -> dict[str, Any]:
    if file is None or not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    return data if isinstance(data, dict) else {}


def _front_matter(file: Path | None) -> dict[str, Any]:
    """The YAML between the first two lines of dashes of a model card; {} where there is none that can be read."""
    if file is None or not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError):  # the latter for what looks like a date and is none
        return {}
    return data if isinstance(data, dict) else {}


def _strings(value: object) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [item.strip() for item in listed if isinstance(item, str) and item.strip()]


def _words(value: object) -> str:
    return value.strip() if isinstance(value, str) and re.search(r"\w", value) else ""


def _subject(dataset: str) -> str:
    """ "dzunggg/legal-qa-v1" is about "legal"."""
    words = re.split(r"[-_.\s]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", dataset.rpartition("/")[2]))
    return " ".join(word.lower() for word in words if word and not FILLER.fullmatch(word))
