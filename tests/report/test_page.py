"""The page: texts stay texts, nothing comes from the network, and a phone needs no sideways scroll."""

import importlib.util
import re
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nuebar.errors import NuebarError
from nuebar.report.page import (
    LARGEST_BYTES,
    LEVELS,
    Code,
    Facts,
    Live,
    Notice,
    Notices,
    Page,
    Picture,
    Section,
    Table,
    Text,
    clean,
    render,
)

pytest.importorskip("jinja2", reason="the page needs jinja2")

ATTACKS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\" autofocus onfocus=alert(3) x='",
    "</title></style><svg onload=alert(4)>",
    "{{ 7*7 }}{% include '/etc/passwd' %}",
    "&lt;b&gt; &amp; -->",
    "javascript:alert(5)",
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="10" height="10"/></svg>'
VOID = {"meta", "link", "img", "br", "hr"}


def beside(name):
    spec = importlib.util.spec_from_file_location(f"page_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


browser = beside("browser")


class Parsed(HTMLParser):
    """Elements, attributes and texts of a page, and whether every element is closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID and tag not in ("rect",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())


@dataclass(frozen=True)
class Part:
    html: str = "<p id='moves'>still</p>"
    script: str = "document.getElementById('moves').textContent = 'moved';"


def picture(text="words", **changes):
    fields = {
        "name": "a-b",
        "data": SVG,
        "form": "svg",
        "width_in": 5.2,
        "height_in": 4.0,
        "alt": text,
        "caption": text,
    }
    return Picture(**(fields | changes))


def page_with(text):
    """Every place of a page that holds a text from data."""
    table = Table(text, [text, text], [[text, text], ["row", text]], frozenset({1}), frozenset({1}), {0: text})
    blocks = [
        Text(text), Facts([(text, text)]), table, Code(text, text), picture(text), picture(text, name="c", wide=True),
        Notices([Notice(level, text, text) for level in LEVELS]),
        Table(text, [text], [[text]], folded=True),
    ]  # fmt: skip
    return Page(text, text, [Section("one", text, blocks, short=text), Section("two", text, [])], footer=text)


# ---------------------------------------------------------------- texts are texts


@pytest.mark.parametrize("text", ATTACKS)
def test_texts_come_back_as_they_were_and_bring_no_markup(text):
    word = "w" * len(text)
    quiet, attacked = (Parsed(render(page_with(t))) for t in (word, text))
    assert attacked.tags == quiet.tags, "a text became an element"
    assert [a[:2] for a in attacked.attributes] == [a[:2] for a in quiet.attributes], "a text became an attribute"
    assert not attacked.open
    assert "script" not in attacked.tags
    assert not [a for a in attacked.attributes if a[1].startswith("on")]
    assert attacked.texts.count(text) == quiet.texts.count(word) > 15
    assert [a[2] for a in attacked.attributes if a[1] == "alt"] == [text] * 2


def test_no_address_leads_out_of_the_page():
    parsed = Parsed(render(page_with("https://example.org/a.png")))
    for tag, name, value in parsed.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert value.startswith(("#", "data:")), f"<{tag} {name}={value}>"
    policy = next(v for t, n, v in parsed.attributes if n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_every_link_of_the_contents_leads_to_a_section():
    parsed = Parsed(render(page_with("words")))
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    links = [value[1:] for tag, name, value in parsed.attributes if tag == "a" and name == "href"]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    assert {"one", "two"} <= set(links)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b\x1b[2J", "a\ufffdb\ufffd[2J"),
        ("\u202eexe.txt\u2066", "\ufffdexe.txt\ufffd"),
        ("half \ud83d", "half \ufffd"),
        ("line\nline\ttab", "line\nline\ttab"),
        ("ν̄e ≥ ¹³⁷Cs 中", "ν̄e ≥ ¹³⁷Cs 中"),
        (7, "7"),
    ],
)
def test_characters_that_no_page_can_show_are_replaced(text, shown):
    assert clean(text) == shown
    assert clean(clean(text)) == clean(text)


def test_endless_texts_are_cut():
    assert clean("x" * 5000, 100) == "x" * 99 + "…"
    assert clean("x" * 100, 100) == "x" * 100


def test_odd_characters_reach_no_file_and_break_none():
    text = render(page_with("a\x00\ud800\u202e<"))
    assert text.encode("utf-8")
    assert not re.search("[\x00\ud800\u202e]", text)


# ---------------------------------------------------------------- what is refused, what is left out


def test_a_script_that_would_end_its_element_is_refused():
    for bad in ("x = '</script>'", "x = '</SCRIPT '", "y = '<!--'"):
        with pytest.raises(NuebarError, match="explorer"):
            render(Page("t", "l", [Section("s", "t", [Live(Part(script=bad))])]))
    text = render(Page("t", "l", [Section("s", "t", [Live(Part())])]))
    assert text.count("<script>") == 1
    assert Part().script in text


def test_a_page_that_is_too_large_is_refused():
    with pytest.raises(NuebarError, match="8 MB"):
        render(Page("t", "l", [Section("s", "t", [picture(data=bytes(LARGEST_BYTES))])]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table("c", ["a", "b"], [["one"]]),
        lambda: Notice("loud", "fit", "text"),
        lambda: picture(form="pdf"),
        lambda: picture(name='x" onload="'),
        lambda: Section("Two words", "t", []),
    ],
)
def test_wrong_parts_are_refused_with_a_sentence(make):
    with pytest.raises(NuebarError, match="expected"):
        make()


def test_the_most_serious_notice_comes_first_and_endless_lists_end():
    notices = [
        Notice("ok", "a", "fine"),
        Notice("look", "b", "hm"),
        Notice("bad", "c", "no"),
        Notice("look", "d", "hm 2"),
    ]
    assert [n.stage for n in Notices(notices).shown] == ["c", "b", "d", "a"]
    many = Notices([Notice("ok", "a", str(k)) for k in range(300)] + [Notice("bad", "z", "no")])
    assert many.shown[0].stage == "z"
    assert many.left_out == 201
    table = Table("c", ["a"], [[str(k)] for k in range(400)])
    text = render(Page("t", "l", [Section("s", "t", [table, many])]))
    assert "150 more rows are in report.json" in text
    assert "201 more notices are in report.json" in text


def test_neighbouring_pictures_stand_together():
    section = Section("s", "t", [Text("a"), picture(name="p"), picture(name="q"), Text("b"), picture(name="r")])
    assert [[b.kind for b in group] for group in section.grouped] == [["text"], ["picture"] * 2, ["text"], ["picture"]]
    assert Section("s", "t", []).grouped == []


def test_the_same_page_has_the_same_bytes():
    assert render(page_with("words")) == render(page_with("words"))


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def running():
    with browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    wide = Table("wide", [f"column {k}" for k in range(14)], [["0.12345 ± 0.00012"] * 14] * 3)
    word = "x" * 400
    blocks = [wide, picture(name="small"), picture(name="large", width_in=12.0, wide=True), Text(word)]
    blocks += [
        Facts([(word, word)]),
        Code("code", word),
        Notices([Notice("look", "s", word)]),
        *page_with(ATTACKS[1]).sections[0].blocks[:4],
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(
        render(Page(ATTACKS[0], word, [Section("s", word, blocks), Section("live", "t", [Live(Part())])])), "utf-8"
    )
    return path


@pytest.mark.parametrize(("width", "dark"), [(320, False), (390, True), (820, False), (1400, True)])
def test_a_browser_is_quiet_asks_for_nothing_and_needs_no_sideways_scroll(running, file, width, dark):
    with browser.open_page(file, width=width, height=844, running=running, dark=dark, touch=width < 500) as opened:
        assert opened.complaints == []
        assert opened.outside == []
        found = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert found[0] <= found[1]
        assert opened.page.inner_text("#moves") == "moved"
        assert opened.page.title() == ATTACKS[0]
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == dark
        table = opened.page.evaluate(
            "(() => {const t = document.querySelector('.table'); return [t.scrollWidth, t.clientWidth]})()"
        )
        assert table[0] >= table[1]
        if width < 500:
            assert table[0] > table[1], "the wide table does not scroll inside of itself"


def test_the_policy_of_the_page_stops_requests(running, file):
    with browser.open_page(file, running=running) as opened:
        stopped = opened.page.evaluate(
            """() => new Promise(done => {
                document.addEventListener('securitypolicyviolation', e => done(e.violatedDirective));
                const image = new Image(); image.src = 'https://nuebar.invalid/x.png';
                setTimeout(() => done('nothing was stopped'), 3000);
            })"""
        )
        assert stopped == "img-src"
        assert opened.outside == [u for u in opened.failed if u not in opened.url]


def test_a_page_is_printed_in_light_colours_without_what_a_screen_needs(running, file):
    with browser.open_page(file, running=running, dark=True) as opened:
        data = opened.page.pdf(prefer_css_page_size=True)
        assert data.startswith(b"%PDF")
        opened.page.emulate_media(media="print", color_scheme="dark")
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        ink = opened.page.evaluate("getComputedStyle(document.body).color")
        assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 200
        assert opened.page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert opened.page.evaluate("document.querySelector('.fold .table, .table').clientHeight") > 0
