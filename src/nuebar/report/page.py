"""One HTML page that needs nothing else: what is on it as records, and the template that sets them.

A :class:`Page` is sections of blocks: paragraphs, tables, facts, pictures, text as it is. Everything in them is plain
text and is escaped; only an :class:`Explorer`, which nuebar writes itself, brings markup and a script. The page asks
the network for nothing, and says so to the browser in its content security policy.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from nuebar.errors import NuebarError

__all__ = [
    "LARGEST_BYTES",
    "Block",
    "Code",
    "Explorer",
    "Facts",
    "Live",
    "Notice",
    "Notices",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "clean",
    "render",
]

LARGEST_BYTES = 8_000_000
"""Of a page."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LEVELS: Mapping[str, str] = {"bad": "Problem", "look": "Look at this", "note": "Note", "ok": "In order"}
"""How serious a notice is, and the word for it."""

_LONGEST = 2000  # characters of one text from data
_LONGEST_OF_ALL = 200_000  # of a text on the page
_ROWS = 250  # of a table
_NOTICES = 100
_NAME = re.compile(r"[a-z][a-z0-9-]*")
# Controls, halves of surrogate pairs, and the marks that turn the direction of the text around them.
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_MIME = {"svg": "image/svg+xml", "png": "image/png"}


def clean(text: object, longest: int = _LONGEST) -> str:
    """A text from data without characters that no page can show, shortened if it is endless.

    Args:
        text: Anything with a text form.
        longest: Characters that are kept.
    """
    found = _ODD.sub("\ufffd", str(text))
    return found if len(found) <= longest else found[: longest - 1] + "…"


class Explorer(Protocol):
    """The live spectrum: markup and the script that moves it, both written by nuebar, never by data."""

    @property
    def html(self) -> str:
        """Markup of the inside of a section."""

    @property
    def script(self) -> str:
        """JavaScript without ``</script``."""


class Block(Protocol):
    """Something in a section; ``kind`` chooses how the template sets it."""

    @property
    def kind(self) -> str:
        """Name of the part of the template."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text as it is, folded under a title."""

    kind: ClassVar[str] = "code"
    title: str
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        caption: What to see.
        header: One name a column.
        rows: Cells, as many as there are columns; the first one names the row.
        words: Columns that are not numbers, beside the first.
        marked: Rows that ask for attention.
        groups: Row → heading above it.
        folded: Whether a reader must ask for it; it is printed all the same.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()
    groups: Mapping[int, str] = field(default_factory=dict)
    folded: bool = False

    def __post_init__(self) -> None:
        """Refuse ragged rows."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise NuebarError(f"table {self.caption!r}: expected {len(self.header)} cells in a row, got {len(row)}")

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The rows that fit on a page."""
        return self.rows[:_ROWS]

    @property
    def left_out(self) -> int:
        """How many do not."""
        return max(0, len(self.rows) - _ROWS)


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: Of lower-case letters, digits and hyphens; the page may be linked to here.
        data: The bytes of an SVG or PNG file.
        form: ``"svg"`` or ``"png"``.
        width_in: Natural width in inches.
        height_in: Natural height.
        alt: What the picture is, for those who cannot see it.
        caption: What to see in it.
        wide: Whether it takes the whole width of the page.
    """

    kind: ClassVar[str] = "picture"
    name: str
    data: bytes
    form: str
    width_in: float
    height_in: float
    alt: str
    caption: str
    wide: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no picture or no name."""
        if self.form not in _MIME or not _NAME.fullmatch(self.name):
            raise NuebarError(f"picture {self.name!r}: expected a name like fit-pulls, and svg or png, got {self.form}")

    @property
    def uri(self) -> str:
        """The bytes as a ``data:`` address."""
        return f"data:{_MIME[self.form]};base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height at 96 dots per inch."""
        return round(96 * self.width_in), round(96 * self.height_in)

    @property
    def least_px(self) -> int:
        """Width below which its words are too small to read; narrower screens scroll it."""
        return round(64 * self.width_in)


@dataclass(frozen=True)
class Notice:
    """Something that a stage says of its result.

    Attributes:
        level: A key of :data:`LEVELS`.
        stage: Who says it.
        text: A sentence.
    """

    level: str
    stage: str
    text: str

    def __post_init__(self) -> None:
        """Refuse a level that does not exist."""
        if self.level not in LEVELS:
            raise NuebarError(f"notice {self.text!r}: expected a level of {', '.join(LEVELS)}, got {self.level!r}")

    @property
    def word(self) -> str:
        """The level in words."""
        return LEVELS[self.level]


@dataclass(frozen=True)
class Notices:
    """Notices, the most serious first."""

    kind: ClassVar[str] = "notices"
    notices: Sequence[Notice]

    @property
    def shown(self) -> list[Notice]:
        """In the order of :data:`LEVELS`, those that fit on a page."""
        order = list(LEVELS)
        return sorted(self.notices, key=lambda n: order.index(n.level))[:_NOTICES]

    @property
    def left_out(self) -> int:
        """How many do not fit."""
        return max(0, len(self.notices) - _NOTICES)


@dataclass(frozen=True)
class Live:
    """The place of the explorer."""

    kind: ClassVar[str] = "live"
    explorer: Explorer


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Of lower-case letters, digits and hyphens; the page may be linked to here.
        title: Heading.
        blocks: What is in it.
        short: For the table of contents; the title by default.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    short: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no name."""
        if not _NAME.fullmatch(self.name):
            raise NuebarError(f"section {self.title!r}: expected a name like fit, got {self.name!r}")

    @property
    def grouped(self) -> list[list[Block]]:
        """The blocks, with neighbouring pictures together, so that they may stand side by side."""
        groups: list[list[Block]] = []
        for block in self.blocks:
            if groups and block.kind == "picture" and groups[-1][0].kind == "picture":
                groups[-1].append(block)
            else:
                groups.append([block])
        return groups


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes:
        title: Heading.
        lead: A sentence below it.
        sections: From top to bottom.
        footer: Last line.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML.

    Args:
        page: What is on it.

    Raises:
        NuebarError: jinja2 is not installed, the page is too large, or the explorer's script would end its element.
    """
    scripts = [b.explorer.script for s in page.sections for b in s.blocks if isinstance(b, Live)]
    for script in scripts:
        # An HTML parser looks for these two inside of scripts, whatever JavaScript makes of them.
        if re.search(r"</script|<!--", script, re.IGNORECASE):
            raise NuebarError("explorer: expected a script without '</script' and '<!--'; escape '<' as \\u003c in it")
    template = _environment().get_template("page.html")
    text: str = template.render(page=page, policy=POLICY, scripts=scripts)
    size = len(text.encode("utf-8"))
    if size > LARGEST_BYTES:
        raise NuebarError(
            f"page: expected at most {LARGEST_BYTES / 1e6:g} MB, got {size / 1e6:.1f}; leave pictures out"
        )
    return text


def _printable(value: Any) -> Any:
    """Every text of the page without what no page can show; markup of our own is left as it is."""
    return clean(value, _LONGEST_OF_ALL) if type(value) is str else value


def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise NuebarError(
            "the page needs jinja2, which is not installed; install it with: pip install 'nuebar[page]'"
        ) from error
    return Environment(
        loader=PackageLoader("nuebar.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
