"""What LAG chose, for people: by request, by layer, and for a prompt that nobody answers (spectral routing)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from tokenizers.decoders import DecodeStream
from vllm import SamplingParams
from vllm.engine.protocol import EngineClient
from vllm.inputs import TokensPrompt

from lora_select_vllm.frontend import Finished, finished
from lora_select_vllm.loaded import Adapters
from lora_select_vllm.residency import LAYERS, USED

Used = Mapping[str, Any]
"""`Trace.of`."""


class Usage:
    """Asks the workers; all ranks of a layer choose alike, so the first one's word is enough."""

    def __init__(self, engine: EngineClient, adapters: Adapters) -> None:
        self._engine, self._adapters = engine, adapters

    async def of(self, request: str) -> dict[str, Any]:
        """An answer's choices, each with its adapters' shares and its tokens. Raises HTTPException 404."""
        found = finished(self._engine.output_processor, request)
        used = (await self._engine.collective_rpc(USED, args=([one.internal for one in found],)))[0]
        if not found or None in used:
            raise HTTPException(404, f"{request} is no answer of a virtual adapter that is over, or too long ago")
        tokenizer = self._engine.get_tokenizer()
        return {"choices": [_choice(one, each, tokenizer) for one, each in zip(found, used, strict=True)]}

    async def layers(self) -> dict[str, Any]:
        """Tokens per adapter in every projection, since the start."""
        told = (await self._engine.collective_rpc(LAYERS))[0]
        layers = [
            {
                "layer": layer,
                "tokens": {name: count for name, count in zip(told["names"], counts, strict=True) if name},
            }
            for layer, counts in told["layers"].items()
        ]
        return {"adapters": [name for name in told["names"] if name], "layers": layers}

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
        observer = await self._adapters.observer(adapters)
        request = f"spectral-{uuid4().hex}"
        # A cache of its own: what comes from a cache is not computed, and so not scored.
        prompt = TokensPrompt(prompt_token_ids=tokens, cache_salt=request)
        once = SamplingParams(max_tokens=1, temperature=0)
        try:
            async for _ in self._engine.generate(prompt, once, request, lora_request=observer):
                pass
        except ValueError as error:  # longer than the engine takes, or empty
            raise HTTPException(400, str(error)) from None
        found = finished(self._engine.output_processor, request)
        used = (await self._engine.collective_rpc(USED, args=([one.internal for one in found],)))[0][0]
        return {"tokens": len(tokens)} | _means(used)


def _means(used: Used) -> dict[str, Any]:
    rows = [
        (votes, shares) for votes, shares in zip(used["votes"], used["shares"], strict=True) if votes is not None
    ]
    names = used["names"][: len(rows[0][0])]
    asked = sum(sum(votes) for votes, _ in rows) or 1
    return {
        "votes": {name: sum(votes[at] for votes, _ in rows) / asked for at, name in enumerate(names) if name},
        "scores": {name: sum(shares[at] for _, shares in rows) / asked for at, name in enumerate(names) if name},
    }


def _choice(one: Finished, used: Used, tokenizer: Any) -> dict[str, Any]:
    """Of an answer's token, what chose at the position before it, which computed it."""
    ids, votes = one.prompt + one.answer, used["votes"]
    texts, length = list(_texts(tokenizer, ids)), len(one.prompt)
    chosen = [_majority(used["names"], votes[at]) if at < len(votes) else None for at in range(len(ids))]
    total = [sum(column) for column in zip(*(row for row in votes if row is not None), strict=True)]
    shares = {name: count / max(1, sum(total)) for name, count in zip(used["names"], total, strict=False) if name}
    return {
        "adapters": dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        "prompt": [{"text": texts[at]} | (chosen[at] or {}) for at in range(length)],
        "tokens": [{"text": texts[at]} | (chosen[at - 1] or {}) for at in range(length, len(ids))],
    }


def _majority(names: Sequence[str], votes: Sequence[int] | None) -> dict[str, Any] | None:
    """None where nothing was counted: the prefix cache had it."""
    if votes is None or not any(votes):
        return None
    best = max(range(len(votes)), key=votes.__getitem__)
    return {"adapter": names[best], "share": round(votes[best] / sum(votes), 4)}


def _texts(tokenizer: Any, ids: Sequence[int]) -> Iterator[str]:
    """What each token adds to the text; a character of several tokens is the last one's."""
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is None:  # not one of Hugging Face's fast ones
        yield from (tokenizer.decode([each]) for each in ids)
        return
    stream = DecodeStream(skip_special_tokens=False)
    yield from (stream.step(backend, each) or "" for each in ids)
