"""`python -m benchmarks.report`: the tables and plots of benchmarks/README.md, from the results that are there.

Between `<!-- results NAME -->` and `<!-- end -->` stands what results/NAME.json says; all else is written by hand.
The document names its benchmark, whose report.py lays it out: `tables(document)` for a terminal,
`summary(document)` for the README where that is too much for it, `plot(document, file)` where there is a plot.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.document import Row, read
from record.origin import ROOT

README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- results ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Exit code 0: README and plots are written."""
    before = README.read_text(encoding="utf-8")
    for name in names(before):
        document = found(name)
        drawing = document and layout(document)
        if document and drawing and hasattr(drawing, "plot"):
            try:
                drawing.plot(document, picture(name))
            except (LookupError, ValueError) as error:  # a part of a run; its tables are made all the same
                print(f"{name}: no plot: {error}", file=sys.stderr)
        print(f"{name}: {_when(document) if document else 'not yet run'}")
    README.write_text(rendered(before), encoding="utf-8")
    return 0


def names(readme: str) -> list[str]:
    """The results that a README has places for."""
    return [place[2] for place in PLACE.finditer(readme)]


def rendered(readme: str) -> str:
    """The same with every place filled anew."""
    return PLACE.sub(lambda place: place[1] + "\n".join(_lines(place[2])) + "\n" + place[3], readme)


def found(name: str) -> dict[str, Any]:
    """A result's document; {}: not yet run. Raises BenchmarkError."""
    return read(RESULTS / f"{name}.json")


def layout(document: Mapping[str, Any]) -> ModuleType:
    """The module that knows how a document is shown."""
    return import_module(f"benchmarks.{document['benchmark']}.report")


def picture(name: str) -> Path:
    """Where a result's plot goes."""
    return RESULTS / f"{name}.png"


def markdown(lines: Iterable[str]) -> Iterator[str]:
    """A terminal's lines: tables become tables, indented lines a list, others paragraphs."""
    split = (part for line in lines for part in ([line] if isinstance(line, Row) else line.split("\n")))
    for is_table, group in groupby(split, key=lambda line: isinstance(line, Row)):
        if is_table:
            head, *rows = (row.cells for row in group if isinstance(row, Row))
            yield from ("", _row(head), "|" + "---|" * len(head), *map(_row, rows), "")
        else:
            yield from _prose(line for line in group if line.strip())


def _prose(lines: Iterable[str]) -> Iterator[str]:
    for is_list, group in groupby(lines, key=lambda line: line.startswith(" ")):
        yield ""
        for line in group:
            yield from (f"- {' '.join(line.split())}",) if is_list else (line, "")
        if is_list:
            yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _lines(name: str) -> Iterator[str]:
    document = found(name)
    if not document:
        yield f"Not yet run: there is no results/{name}.json."
        return
    machine, shown = document["machine"], layout(document)
    gpus = "".join(f", {gpu['name']} ({gpu['memory_gb']} GB)" for gpu in machine.get("gpus", ()))
    versions = ", ".join(f"{package} {version}" for package, version in document["versions"].items())
    yield f"`{document['command']}`, {_when(document)}, {document['took_s'] / 60:.0f} minutes."
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB{gpus}; {versions}."
    yield f"Load average before: {document['load_before']:.2g}. Medians of rounds, [lowest..highest];"
    yield f"[all figures](results/{name}.json)."
    yield ""
    yield from _squeezed(markdown(getattr(shown, "summary", shown.tables)(document)))
    if hasattr(shown, "plot"):
        what = (shown.plot.__doc__ or name).split("\n")[0].rstrip(".")
        yield from ("", f"![{what}](results/{picture(name).name})")


def _squeezed(lines: Iterable[str]) -> Iterator[str]:
    """Never two empty lines in a row, none at either end."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return iter(kept[:-1] if kept and not kept[-1] else kept)


def _when(document: Mapping[str, Any]) -> str:
    changed = ", with changes" if document["changed_since"] else ""
    return f"{document['date'][:10]}, commit {document['commit'][:12]}{changed}"


if __name__ == "__main__":
    sys.exit(main())
