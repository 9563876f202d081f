"""The documentation site: it builds without warnings, loads nothing from the network, and says what is so."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nuebar.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
if not DOCS.is_dir() or not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the documents are not beside the tests", allow_module_level=True)
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)
SITE_PACKAGES = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python")


def shell_commands(text):
    """Every ``nuebar …`` of the shell blocks and of the marked words of a page, without comments."""
    for language, _, body in BLOCK.findall(text):
        if language != "sh":
            continue
        body = re.sub(r"<<'(\w+)'\n.*?^\1$", "", body.replace("\\\n", " "), flags=re.M | re.S)
        for line in body.splitlines():
            reader = shlex.shlex(line, posix=True, punctuation_chars=True)
            reader.whitespace_split = True
            words = []
            for word in [*reader, ";"]:
                if word[0] in ";&|<>":
                    if words and Path(words[0]).name == "nuebar":
                        yield words[1:]
                    words = []
                elif words or not re.fullmatch(r"\w+=\S*", word):
                    words.append(word)


COMMANDS = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)[:70]}")
    for page in PAGES
    for words in shell_commands(page.read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("cyclopts")
    from nuebar.commands import app

    return app


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_of_the_documents_exist(app, words):
    """Each is read as the command line reads it: name, options, choices, numbers. Files need not be there."""
    if "COMMAND" in words:
        pytest.skip("a placeholder")
    words = [word for word in words if word != "..."]
    _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound is not None


def test_options_in_sentences_exist(app):
    """A word such as `--off-ms` in running text is an option of some command."""
    known = set()

    def collect(one):
        for name in one:
            if name.startswith("-"):
                continue
            sub = one[name]
            if sub.default_command is not None:
                for argument in sub.assemble_argument_collection():
                    known.update(argument.names)
            collect(sub)

    collect(app)
    others = {"--strict", "--check", "--only"}  # of mkdocs, of benchmarks
    for page in DOCS.rglob("*.md"):
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        if page.name in ("results.md", "reproduced.md"):
            continue  # they quote the commands of records, which may be of an older version
        for option in re.findall(r"`(--[\w-]+)", text):
            assert option in known | others | {"--debug", "--help", "--version"}, f"{page.name}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_of_the_documents_is_python(page):
    for language, _, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(body, filename=str(page))


def test_python_of_the_start_page_runs(capsys):
    """One after the other, as a reader would type them."""
    scope = {}
    for language, _, body in BLOCK.findall((DOCS / "start.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(body, scope)
    assert scope["result"].valid
    assert "True converged" in capsys.readouterr().out
    assert scope["counts"]["signal"].sum() > 1e4


def test_python_of_a_new_systematic_runs(capsys):
    """The nuisance parameter of the page is constrained by its prior and by the counts."""
    (code,) = [
        body
        for language, name, body in BLOCK.findall((DOCS / "how-to" / "new-systematic.md").read_text(encoding="utf-8"))
        if language == "python" and not name
    ]
    scope = {}
    exec(code, scope)
    assert scope["found"].valid, scope["found"].reason
    assert 0 < scope["found"].errors[-1] < 0.01


def test_quoted_messages_are_those_that_come(capsys):
    """A text block that begins with ``$ nuebar`` shows what the command prints."""
    seen = 0
    for page in PAGES:
        for language, _, body in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language != "text" or not body.startswith("$ nuebar "):
                continue
            command, _, shown = body.partition("\n")
            with pytest.raises(SystemExit):
                main(shlex.split(command)[2:])
            told = capsys.readouterr()
            assert (told.out + told.err).strip() == shown.strip()
            seen += 1
    assert seen


# ---------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning of any kind fails."""
    for name in SITE_PACKAGES:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"the site needs {name}: pip install 'nuebar[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*?href=[\"']?((?:https?:)?//[^\"'\s>]+)",
    re.I,
)


def test_pages_load_nothing_from_the_network(site):
    """No script, style, font or picture has an address elsewhere."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        found = [a or b for a, b in LOADED.findall(page.read_text(encoding="utf-8"))]
        assert not found, f"{page.name}: {found[0]}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text), style.name


def test_links_inside_the_site_resolve(site):
    """Every page, picture and anchor that a page of the site names is there."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r"\b(?:id|name)=[\"']?([^\"'\s>]+)", text)) for path, text in pages.items()}
    for path, text in pages.items():
        if path.name == "404.html":
            continue  # it is served from any address
        for target in re.findall(r"\b(?:href|src)=[\"']?([^\"'\s>]+)", text):
            if re.match(r"[a-z]+:|//", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            if there.is_dir():
                there = there / "index.html"
            assert there.is_file(), f"{path.relative_to(site)}: {target}"
            if anchor and there in ids and not anchor.startswith("__"):
                assert anchor in ids[there], f"{path.relative_to(site)}: {target}"


def test_every_public_package_is_in_the_reference(site):
    """A class or function of each package has an anchor in the API pages."""
    api = "".join(path.read_text(encoding="utf-8") for path in (site / "api").rglob("*.html"))
    for name in (
        "nuebar.config.load_experiment",
        "nuebar.physics.oscillation.vacuum",
        "nuebar.stats.minimise.minimise",
        "nuebar.predict.spectrum.build_model",
        "nuebar.fit.spectrum_fit.SpectrumFit",
        "nuebar.tune.infer.infer",
        "nuebar.select.pairs.PairOptions",
        "nuebar.simulate.detector.DetectorModel",
        "nuebar.run.runner.run_stage",
        "nuebar.io.histograms.Histogram",
    ):
        assert f'id="{name}"' in api, name
