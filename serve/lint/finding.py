"""What a check found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line about one key: an error stops the start, a note says what could not be checked."""

    key: str
    text: str
    error: bool = True


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Only those that stop the start."""
    return tuple(finding for finding in findings if finding.error)
