"""Tags narrow the candidates; on the wire, by header and by metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters import Adapter
from router.errors import BadRequest
from router.tags import Tags
from tests.conftest import LEGAL, Wire, chat, wired


def adapter(**tags: Any) -> Adapter:
    return Adapter(path="some/x", label="x", tags=tags)


TAGS = Tags(
    {
        "patient": adapter(audience="patient", team="care"),
        "student": adapter(audience="student"),
        "both": adapter(audience=["patient", "student"]),
        "legal": adapter(),
    }
)
EVERYONE = ("patient", "student", "both", "legal")


@pytest.mark.parametrize(
    ("metadata", "header", "left"),
    [
        (None, None, EVERYONE),
        ({}, b"", EVERYONE),
        ({"audience": "patient"}, None, ("patient", "both")),
        (None, b"audience=student", ("student", "both")),
        (None, b" audience = patient , team=care ", ("patient",)),
        ({"audience": "student"}, b"audience=patient", ("patient", "both")),
        ({"audience": "student"}, b"team=care", ()),
        ({"user_id": "7", "nested": {"audience": "x"}}, None, EVERYONE),
        ("audience=patient", None, EVERYONE),
    ],
)
def test_only_those_that_carry_every_tag_remain(
    metadata: Any, header: bytes | None, left: tuple[str, ...]
) -> None:
    assert TAGS.narrow(EVERYONE, TAGS.wanted(metadata, header)) == left


@pytest.mark.parametrize(
    ("metadata", "header", "says", "param"),
    [
        (
            {"audience": "doctor"},
            None,
            'unknown value "doctor" of the tag "audience"; there are patient, student',
            "metadata.audience",
        ),
        ({"audience": ["patient"]}, None, "unknown value \"['patient']\"", "metadata.audience"),
        ({"audience": None}, None, 'unknown value "None"', "metadata.audience"),
        (None, b"audience", 'unknown value "" of the tag', "x-lora-select-tags"),
        (None, b"audience=\xe9", 'unknown value "é"', "x-lora-select-tags"),
        (None, b"colour=red", 'unknown tag "colour"; there are audience, team', "x-lora-select-tags"),
    ],
)
def test_an_unknown_value_is_told_with_the_known_ones(
    metadata: Any, header: bytes | None, says: str, param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        TAGS.wanted(metadata, header)
    assert says in caught.value.message
    assert (caught.value.param, caught.value.code) == (param, "unknown_tag")


def test_a_stack_without_tags_says_so() -> None:
    with pytest.raises(BadRequest, match="none: no adapter of this stack is tagged"):
        Tags({"legal": adapter()}).wanted(None, b"audience=patient")


# --- on the wire ------------------------------------------------------------------------------------------------

HEART = "Which symptoms does a heart attack have, and how is it treated?"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    label = "medicine, health, symptoms, diseases and treatments"
    adapters = {
        name: {"label": label, "tags": {"audience": name}} for name in ("patient", "student", "researcher")
    }
    with wired(tmp_path_factory.mktemp("clinic"), adapters) as one:
        yield one


@pytest.mark.parametrize("audience", ["patient", "student"])
@pytest.mark.parametrize("by", ["header", "metadata"])
def test_the_audiences_adapter_answers(clinic: Wire, audience: str, by: str) -> None:
    tags = {"x_lora_select_tags": f"audience={audience}"} if by == "header" else {}
    body = chat(HEART) if by == "header" else chat(HEART, metadata={"audience": audience, "ticket": "7"})
    status, _, headers = clinic.post(body=body, **tags)
    assert (status, headers["x-lora-select-adapter"]) == (200, audience)
    assert headers["x-lora-select-reason"] == "only-candidate"
    assert clinic.engine.seen[-1] == body | {"model": audience}, "metadata goes on to the engine as it is"


def test_the_models_tell_their_tags(clinic: Wire) -> None:
    _, listed, _ = clinic.get("/v1/models")
    tags = {model["id"]: model["lora_select"]["tags"] for model in listed["data"]}
    assert tags["student"] == {"audience": ["student"]}
    assert (tags["auto"], tags["base"]) == ({}, {})


def test_what_is_no_subject_of_the_audiences_goes_to_the_base(clinic: Wire) -> None:
    _, _, headers = clinic.post(body=chat(LEGAL), x_lora_select_tags="audience=patient")
    assert headers["x-lora-select-adapter"] == "base"


def test_an_unknown_audience_is_a_400_that_lists_the_known_ones(clinic: Wire) -> None:
    for path in ("/v1/chat/completions", "/route"):
        status, body, _ = clinic.post(path, chat(HEART), x_lora_select_tags="audience=doctor")
        assert (status, body["error"]["param"]) == (400, "x-lora-select-tags")
        assert "patient, researcher, student" in body["error"]["message"]


def test_a_dry_run_is_narrowed_too(clinic: Wire) -> None:
    _, body, _ = clinic.post("/route", {"text": HEART, "metadata": {"audience": "researcher"}})
    assert (body["model"], body["reason"], set(body["scores"])) == (
        "researcher",
        "only-candidate",
        {"researcher", "base"},
    )


def test_a_named_adapter_needs_no_tags(clinic: Wire) -> None:
    _, _, headers = clinic.post(body=chat(HEART, model="legal"), x_lora_select_tags="audience=patient")
    assert headers["x-lora-select-adapter"] == "legal"
