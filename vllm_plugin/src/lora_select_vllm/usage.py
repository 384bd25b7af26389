"""What LAG chose, for people: by request, by layer, and for a prompt that nobody answers (spectral routing)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from tokenizers.decoders import DecodeStream
from vllm import SamplingParams
from vllm.engine.protocol import EngineClient
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest

from lora_select_vllm.frontend import Finished, answers
from lora_select_vllm.loaded import Adapters
from lora_select_vllm.residency import LAYERS, USED

PATIENCE = 8
"""Tokens without text after which a decoder starts anew: the longest character has four, and what is no character
costs it time with the square of its length."""

Used = Mapping[str, Any]
"""`Trace.of`."""


class Usage:
    """Asks the workers; all ranks of a layer choose alike, so the first one's word is enough."""

    def __init__(self, engine: EngineClient, adapters: Adapters) -> None:
        self._engine, self._adapters = engine, adapters

    async def of(self, request: str, by_layer: bool) -> dict[str, Any]:
        """An answer's choices, each with its adapters' shares and its tokens, and where it is wanted with those of
        each layer. Raises HTTPException 404."""
        found, used, layers = await self._used(request, by_layer)
        if not found or None in used:
            raise HTTPException(404, f"{request} is no answer of a virtual adapter that is over, or too long ago")
        tokenizer = self._engine.get_tokenizer()
        return {"choices": await asyncio.to_thread(_choices, found, used, tokenizer, layers if by_layer else [])}

    async def layers(self) -> dict[str, Any]:
        """Tokens per adapter in every projection, since the start."""
        told = (await self._engine.collective_rpc(LAYERS))[0]
        layers = [{"layer": layer, "tokens": tokens} for layer, tokens in told["layers"].items()]
        return {"adapters": told["names"], "layers": layers}

    async def spectral(
        self, text: str | None, tokens: list[int] | None, adapters: Sequence[str] | None
    ) -> dict[str, Any]:
        """One prefill of the base: per adapter, the share of tokens and projections that would choose it
        (`votes`), and its mean share of the scores there (`scores`). Raises HTTPException.
        """
        if (text is None) == (tokens is None):
            raise HTTPException(400, 'give either "text" or "prompt_token_ids"')
        if tokens is None:
            tokens = list(self._engine.get_tokenizer().encode(text))
        async with self._adapters.observing(adapters) as observer:
            used = await self._observed(tokens, observer)
        asked = sum(used["votes"]) or 1
        return {"tokens": len(tokens)} | {
            told: {name: one / asked for name, one in zip(used["names"], used[kind], strict=True) if name}
            for told, kind in (("votes", "votes"), ("scores", "shares"))
        }

    async def _observed(self, tokens: list[int], observer: LoRARequest) -> Used:
        request = f"spectral-{uuid4().hex}"
        # A cache of its own: what comes from a cache is not computed, and so not scored.
        prompt = TokensPrompt(prompt_token_ids=tokens, cache_salt=request)
        once = SamplingParams(max_tokens=1, temperature=0)
        try:
            async for _ in self._engine.generate(prompt, once, request, lora_request=observer):
                pass
        except ValueError as error:  # longer than the engine takes, or empty
            raise HTTPException(400, str(error)) from None
        _, used, _ = await self._used(request)
        if not used or used[0] is None:
            raise HTTPException(503, "the engine has no room for what it saw of this prompt; ask again")
        return used[0]

    async def _used(
        self, request: str, by_layer: bool = False
    ) -> tuple[list[Finished], list[Used | None], list[str]]:
        """All choices of an answer, what each used, and the names of the model's layers."""
        found = answers(self._engine.output_processor).of(request)
        asked = {one.internal: one.before_answer if by_layer else None for one in found}
        told = (await self._engine.collective_rpc(USED, args=(asked,)))[0]
        return found, told["requests"], told["layers"]


def _choices(
    found: Sequence[Finished], used: Sequence[Used], tokenizer: Any, layers: Sequence[str]
) -> list[dict[str, Any]]:
    choices = [_choice(one, each, tokenizer) for one, each in zip(found, used, strict=True)]
    return [_by_layer(one, each, layers) for one, each in zip(choices, used, strict=True)] if layers else choices


def _choice(one: Finished, used: Used, tokenizer: Any) -> dict[str, Any]:
    """Of an answer's token, what chose at the position before it, which computed it."""
    texts, total, names = list(_texts(tokenizer, one.prompt + one.answer)), sum(used["votes"]), used["names"]
    shares = {name: votes / max(1, total) for name, votes in zip(names, used["votes"], strict=True) if name}

    def told(text: str, at: int) -> dict[str, Any]:
        """At a position, of whose choice nothing is known where the prefix cache had it."""
        place = used["chosen"][at] if 0 <= at < len(used["chosen"]) else -1
        adapter, share = (None, None) if place < 0 else (names[place], round(used["share"][at], 4))
        return {"text": text, "adapter": adapter, "share": share}

    prompt, answer = texts[: len(one.prompt)], texts[len(one.prompt) :]
    return {
        "adapters": dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        "prompt": [told(text, at) for at, text in enumerate(prompt)],
        "tokens": [told(text, at) for at, text in enumerate(answer, one.before_answer)],
    }


def _by_layer(choice: dict[str, Any], used: Used, layers: Sequence[str]) -> dict[str, Any]:
    """A choice with the shares of each layer: of the whole answer, and of every token, None where a long one's are
    not told."""
    tokens, names = choice["tokens"], used["names"]
    votes = used["layers"][: len(tokens)]
    told = [[_shares(names, layer) for layer in token] for token in votes]
    told += [None] * (len(tokens) - len(told))
    whole = [
        [sum(place) for place in zip(*(token[at] for token in votes), strict=True)] for at in range(len(layers))
    ]
    return choice | {
        "layers": [
            {"layer": layer, "adapters": _shares(names, each)} for layer, each in zip(layers, whole, strict=True)
        ],
        "tokens": [token | {"layers": each} for token, each in zip(tokens, told, strict=True)],
    }


def _shares(names: Sequence[str], votes: Sequence[int]) -> dict[str, float]:
    """Of those that have any."""
    asked = sum(votes)
    # An answer without tokens has no votes at all.
    return {name: round(one / asked, 4) for name, one in zip(names, votes, strict=False) if one}


def _texts(tokenizer: Any, ids: Sequence[int]) -> Iterator[str]:
    """What each token adds to the text; a character of several tokens is the last one's."""
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is None:  # not one of Hugging Face's fast ones
        yield from (tokenizer.decode([each]) for each in ids)
        return
    stream, silent = DecodeStream(skip_special_tokens=False), 0
    for each in ids:
        text = stream.step(backend, each) or ""
        silent = 0 if text else silent + 1
        if silent >= PATIENCE:
            stream, silent = DecodeStream(skip_special_tokens=False), 0
        yield text
