"""Rows to examples: which column is the question, which the answer, and what of their text is not meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters import ConfigError
from training.data.conversation import Found, conversation, taught
from training.data.example import Example
from training.data.habits import Habits, find_habits
from training.data.sources import Row, Table
from training.recipe import Column, Recipe

Roles = Mapping[Column, str]
"""Which column of the table plays which role."""

SHAPES: tuple[Roles, ...] = (
    {"messages": "messages"},
    {"question": "instruction", "input": "input", "answer": "output"},
    {"question": "question", "answer": "answer"},
    {"question": "prompt", "answer": "completion"},
    {"question": "prompt", "answer": "response"},
)
"""What is recognised without `data.columns`, the first that fits; `input` may be missing."""


@dataclass(frozen=True)
class Reader:
    """Examples of a table's rows."""

    table: Table
    roles: Roles
    habits: Habits
    system: str | None

    def row(self, index: int) -> Found:
        """Raises ConfigError, with the row's place, for a cell that is no text or no conversation."""
        row = self.table.rows[index]
        system = self._text(row, "system", index) or self.system
        if "messages" in self.roles:
            return self._conversation(row, system, index)
        question = self.habits.question(self._text(row, "question", index), self._text(row, "input", index))
        answer = self.habits.answer(self._text(row, "answer", index))
        if not question or not answer:
            return Found(empty=1)
        return Found((Example.ask(question, answer, system),))

    def _conversation(self, row: Row, system: str | None, index: int) -> Found:
        column = self.roles["messages"]
        return taught(conversation(row.get(column), f"{self.table.place(index)}: {column}"), system)

    def _text(self, row: Row, role: Column, index: int) -> str:
        cell = row.get(self.roles[role]) if role in self.roles else None
        if isinstance(cell, str):
            return cell.strip()
        if cell is None:
            return ""
        problem = f"expected text (got {str(cell)[:40]!r})"
        raise ConfigError(f"{self.table.place(index)}: {self.roles[role]}: {problem}")


def open_reader(recipe: Recipe, table: Table) -> Reader:
    """By `data.columns`, else by the columns that are there. Raises ConfigError, which names those."""
    roles = _given(recipe, table) if recipe.data.columns else _recognised(recipe, table)
    return Reader(table, roles, find_habits(table, roles), recipe.system_prompt)


def _given(recipe: Recipe, table: Table) -> Roles:
    roles = recipe.data.columns
    asked = "question" in roles or "input" in roles
    if ("messages" in roles) == (asked or "answer" in roles) or asked != ("answer" in roles):
        raise recipe.error("data.columns", "give question (or input) and answer, or messages alone")
    for role, column in roles.items():
        if column not in table.columns:
            raise recipe.error(
                f"data.columns.{role}", f"{table.name} has no column {column!r}, it has {_names(table)}"
            )
    return roles


def _recognised(recipe: Recipe, table: Table) -> Roles:
    for shape in SHAPES:
        if all(column in table.columns for role, column in shape.items() if role != "input"):
            extra: dict[Column, str] = {} if "messages" in shape else {"system": "system"}
            return {role: column for role, column in {**shape, **extra}.items() if column in table.columns}
    known = "; ".join(" and ".join(shape.values()) for shape in SHAPES)
    example = ", ".join(
        f"{role}: {column}" for role, column in zip(("question", "answer"), table.columns, strict=False)
    )
    raise recipe.error(
        "data.columns",
        f"{table.name} has the columns {_names(table)}; say which is what, such as {{{example}}} "
        f"(known without: {known})",
    )


def _names(table: Table) -> str:
    return ", ".join(table.columns)
