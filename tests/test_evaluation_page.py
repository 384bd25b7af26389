"""report.html: whatever models and data say stays words, and the page needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation.page import FILE, Headline, Section, Table, write_page
from record.drawing import canvas
from tests.browser import CHROMIUM, LAPTOP, PHONE, browsing

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus=alert(1) x='",
    "</td></tr></table></section><h1>free</h1>",
    "</style><style>*{display:none}</style>",
    "</title><base href=//evil.example>",
    "<!-- --><![CDATA[ ]]>&amp;&lt;b&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "<iframe srcdoc='<b>x</b>'>",
]
PICTURE = "some.png"
VOID = {"meta", "link", "img"}


@dataclass
class Read(HTMLParser):
    """A page, as a parser sees it; fails where an element is not closed in its turn."""

    tags: Counter[str] = field(default_factory=Counter)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    words: str = ""
    style: str = ""
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags[-1:] == ["style"]:
            self.style += data
        else:
            self.words += data

    @classmethod
    def of(cls, file: Path) -> Read:
        found = cls()
        found.feed(file.read_text(encoding="utf-8"))
        found.close()
        assert not found.open_tags
        return found


def page(folder: Path, word: str) -> Path:
    """One that says `word` wherever it can say something."""
    with canvas(folder / PICTURE, 10, 3) as figure:
        figure.subplots().plot([1, 2, 3])
    wide = Table([word] * 12, [[word] * 12, ["1.0"] * 12], note=word)
    long = Table(["text", "score"], [[word * 40, "0.1"], ["", "-"]])
    sections = [
        Section(word, f"{word}\n\n{word}", PICTURE, word, wide),
        Section(word, folded=True, table=long),
        Section("plain"),
        Section("more", text=word),
    ]
    about = {word: word, "nested": {word: [word, 1.5, True]}, "data": [{"file": word}] * 30}
    write_page(folder, word, [Headline(word, word, word)], sections, about)
    return folder / FILE


@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_becomes_html(tmp_path: Path, word: str) -> None:
    plain = Read.of(page(tmp_path, "word"))
    hostile = Read.of(page(tmp_path, word))
    assert hostile.tags == plain.tags
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [
        (tag, name) for tag, name, _ in plain.attributes
    ]
    assert hostile.style == plain.style
    assert hostile.words.count(word) >= plain.words.count("word") > 30


def test_a_page_is_all_there_is(tmp_path: Path) -> None:
    read = Read.of(page(tmp_path, "word"))
    assert not {"script", "iframe", "object", "base", "form"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    links = [(tag, value) for tag, name, value in read.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:", "#")) for _, value in links)
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {value[1:] for _, value in links if value.startswith("#")} == set(ids)
    assert "url(" not in read.style
    assert "@import" not in read.style


def test_what_no_file_can_hold_is_marked(tmp_path: Path) -> None:
    words = Read.of(page(tmp_path, "a\x00b\ud800c\x1b[31m\r\nd")).words
    assert "a\ufffdb\ufffdc\ufffd[31m" in words
    assert not set(words) & {"\x00", "\x1b", "\ud800"}


def test_columns_of_numbers_are_told_from_words(tmp_path: Path) -> None:
    rows = [["a", "0.913 [0.887, 0.969]", "-", "+3", "5 %", "x"], ["b", "-", "·", "−3", "12 ms", "1"]]  # noqa: RUF001
    write_page(tmp_path, "t", [], [Section("s", table=Table(list("abcdef"), rows))], {})
    kinds = [value for tag, name, value in Read.of(tmp_path / FILE).attributes if (tag, name) == ("td", "class")]
    assert kinds == ["number", "number", "number", "number", "word"] * 2


def test_a_long_list_about_the_run_is_cut_short(tmp_path: Path) -> None:
    words = Read.of(page(tmp_path, "word")).words
    assert words.count("file: word") == 20
    assert "... and 10 more" in words


def test_a_ragged_table_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_page(tmp_path, "t", [], [Section("s", table=Table(["a", "b"], [["1"]]))], {})


def test_a_picture_has_the_size_of_its_letters(tmp_path: Path) -> None:
    sizes = {name: value for tag, name, value in Read.of(page(tmp_path, "word")).attributes if tag == "img"}
    assert (sizes["width"], sizes["height"], sizes["class"]) == ("960", "288", "broad")


@pytest.mark.skipif(not CHROMIUM, reason="Debian's chromium is not installed")
def test_in_a_browser_it_fits_laptop_and_phone_in_light_and_dark(tmp_path: Path) -> None:
    file = page(tmp_path, HOSTILE[1] + " and words")
    looks: list[dict[str, Any]] = [
        {**look, "color_scheme": scheme} for look in (LAPTOP, PHONE) for scheme in ("light", "dark")
    ]
    wrong: list[str] = []
    papers: set[str] = set()
    with browsing() as browser:
        for look in looks:
            context = browser.new_context(**look)
            shown = context.new_page()
            shown.on("console", lambda message: wrong.append(message.text))
            shown.on("pageerror", lambda error: wrong.append(str(error)))
            shown.on("dialog", lambda dialog: wrong.append(dialog.message))
            shown.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
            shown.goto(file.as_uri())
            shown.locator("summary").click()
            assert shown.locator("details table").is_visible()
            assert shown.evaluate("document.documentElement.scrollWidth") <= look["viewport"]["width"]
            assert shown.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            papers.add(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
            context.close()
    assert not wrong
    assert len(papers) == 2
