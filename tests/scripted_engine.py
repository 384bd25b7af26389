"""An engine that scores by a rule, for the choices and errors of the classifiers that ask the served base."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.asgi import Receive, Scope, Send


@dataclass
class ScriptedEngine:
    """Has vLLM's two routes; says yes where a text holds a word of the question, and is biased towards taxes.

    And the plugin's: of the scores, an adapter of the `library` gets a part for each of its words that a text
    holds, beside one for nothing. A word is a token, and so is any other character; with `characters`, every
    character is.
    """

    limit: int = 512
    delay_s: float = 0.0
    characters: bool = False
    failing: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    words: list[str] = field(default_factory=lambda: ["<s>"])
    library: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Entry point of ASGI."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await asyncio.sleep(self.delay_s)
        status, content = self.failing.get(scope["path"], (200, b""))
        content = content or orjson.dumps(self.answer(scope["path"], orjson.loads(body)))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": content})

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What vLLM would say."""
        if path == "/lora_select/spectral":
            return self.spectral(body["prompt_token_ids"])
        assert body["model"] == "base"
        if path == "/tokenize":
            split = re.findall(r"." if self.characters else r" ?\w+|.", body["prompt"], re.S)
            return {"tokens": [0, *map(self.token, split)], "max_model_len": self.limit}
        assert [self.words[token] for token in body["label_token_ids"]] == [" yes", " no"]
        prompts = ["".join(self.words[token] for token in body["query"] + item) for item in body["items"]]
        scores = [{"index": index, "score": self.yes(prompt)} for index, prompt in enumerate(prompts)]
        return {"data": scores[::-1]}

    def spectral(self, tokens: list[int]) -> dict[str, Any]:
        assert len(tokens) < self.limit
        held = [self.words[token].strip() for token in tokens]
        parts = {name: 1 + sum(map(held.count, words.split())) for name, words in self.library.items()}
        scores = {name: part / sum(parts.values()) for name, part in parts.items()}
        return {"tokens": len(tokens), "votes": scores, "scores": scores}

    def yes(self, prompt: str) -> float:
        text, question = prompt.split("Question: Is this text about ")
        held = set(re.findall(r"\w+", text)) & set(re.findall(r"\w+", question.split("?")[0]))
        return 1 / (1 + math.exp(1 - 4 * bool(held) - 6 * ("taxes" in question)))

    def token(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)
