"""Everything public says what it is: Google docstrings that agree with the signatures."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import nuebar

SOURCE = Path(nuebar.__file__).parent
PACKAGES = ("physics", "stats", "predict", "fit", "tune", "select", "simulate", "run", "io")
SHORT = "evaluator.py"  # cut out for those who have no nuebar, to be read in one go; evaluate() says what goes in
FILES = sorted(path for package in PACKAGES for path in (SOURCE / package).rglob("*.py") if path.name != SHORT)
SECTIONS = (
    "Args",
    "Returns",
    "Yields",
    "Raises",
    "Attributes",
    "Note",
    "Notes",
    "Example",
    "Examples",
    "Source",
    "Sources",
)


def sections(text):
    """Section → its lines, of a Google docstring."""
    out, current = {}, None
    for line in inspect.cleandoc(text).splitlines():
        head = re.fullmatch(r"(\w+):", line)
        if head and head[1] in SECTIONS:
            current = out.setdefault(head[1], [])
        elif current is not None:
            current.append(line)
    return out


def entries(lines):
    """Names of the entries of a section: ``name: ...``, ``name (type): ...``."""
    return [
        m[1] for line in lines if (m := re.match(r"\s{1,4}(\*{0,2}\w+)(?: \([^)]*\))?:", line)) and line[4:5] != " "
    ]


def parameters(node):
    """Names of the arguments, without self and cls."""
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args)]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    if names and names[0] in ("self", "cls") and not static:
        names = names[1:]
    more = [x.arg for x in (a.vararg, a.kwarg) if x is not None]
    return [*names, *(x.arg for x in a.kwonlyargs), *more]


def own(node):
    """Statements of a function, not of functions inside it."""
    stack = list(node.body)
    while stack:
        one = stack.pop()
        yield one
        if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(one))


def raises_directly(node):
    """Whether the body has ``raise NuebarError(...)``."""
    calls = [x.exc for x in own(node) if isinstance(x, ast.Raise) and isinstance(x.exc, ast.Call)]
    return any(ast.unparse(call.func) == "NuebarError" for call in calls)


def decorated(node, *names):
    words = {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}
    return bool(words & set(names))


def complaints_of_function(node, method, protocol):
    """What is wrong with the docstring of a public function."""
    text = ast.get_docstring(node)
    if decorated(node, "overload"):
        return []
    if text is None:
        return ["has no docstring"]
    found, out = sections(text), []
    takes = parameters(node)
    told = [name.lstrip("*") for name in entries(found.get("Args", ()))]
    unknown = [name for name in told if name not in takes]
    if unknown:
        out.append(f"Args: {', '.join(unknown)} not in the signature")
    if told and [t for t in takes if t not in told]:
        out.append(f"Args: {', '.join(t for t in takes if t not in told)} missing")
    # One line that says all is a docstring too: short functions need no list of arguments.
    long = len(takes) > 3 and not protocol
    refers = re.search(r"\bsee\b|:func:|:meth:|:class:|arguments are|as for|`", text.partition("\n")[0] + text, re.I)
    if long and not told and not refers and not method:
        out.append("Args missing")
    if told and not protocol:
        returned = [x for x in own(node) if isinstance(x, ast.Return) and x.value is not None]
        gives = [x for x in returned if not (isinstance(x.value, ast.Constant) and x.value.value is None)]
        summary = text.partition("\n")[0]
        if gives and not {"Returns", "Yields"} & set(found) and not SAYS_RETURN.search(summary):
            out.append("Returns missing")
    if raises_directly(node) and told and "Raises" not in found:
        out.append("Raises missing")
    return out


# A first line that is a noun phrase, or says what comes out, needs no section of its own.
SAYS_RETURN = re.compile(
    r"^(?!(?:Run|Write|Draw|Train|Fit|Select|Simulate|Read|Load|Build|Make|Find|Compute|Score|Sample|Search|Measure)\b)"
)


def exported(tree):
    """The names of ``__all__``; None where a module has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(x) == "__all__" for x in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def public(nodes):
    return [x for x in nodes if not x.name.startswith("_")]


def offenders(path):
    """(line, name, complaint) of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is None:
        yield 1, path.stem, "the module has no docstring"
    listed = exported(tree)
    for node in tree.body:
        if listed is not None and getattr(node, "name", None) not in listed:
            continue
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            for what in complaints_of_function(node, method=False, protocol=False):
                yield node.lineno, node.name, what
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            protocol = any(ast.unparse(b).startswith("Protocol") for b in node.bases)
            text = ast.get_docstring(node)
            if text is None:
                yield node.lineno, node.name, "has no docstring"
            fields = {x.target.id for x in node.body if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)}
            told = entries(sections(text or "").get("Attributes", ()))
            made = {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute) and ast.unparse(x.value) == "self"}
            named = {x.name for x in node.body if isinstance(x, ast.FunctionDef)}
            wrong = [name for name in told if name not in fields | made | named and node.bases == []]
            if wrong:
                yield node.lineno, node.name, f"Attributes: {', '.join(wrong)} not in the class"
            for method in public(x for x in node.body if isinstance(x, ast.FunctionDef)):
                for what in complaints_of_function(method, method=True, protocol=protocol):
                    yield method.lineno, f"{node.name}.{method.name}", what


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_docstrings(path):
    found = [f"{path.relative_to(SOURCE)}:{line}: {name}: {what}" for line, name, what in offenders(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ('def f(a):\n    pass\n', "has no docstring"),
        ('def f(a):\n    """Do.\n\n    Args:\n        b: What.\n    """\n', "b not in the signature"),
        ('def f(a, b):\n    """Do.\n\n    Args:\n        a: What.\n    """\n', "b missing"),
        ('def f(a):\n    """Make it.\n\n    Args:\n        a: What.\n    """\n    return a\n', "Returns missing"),
        ('def f(a):\n    """Do.\n\n    Args:\n        a: X.\n    """\n    raise NuebarError("")\n', "Raises missing"),
        ('class A:\n    """It.\n\n    Attributes:\n        x: What.\n    """\n\n    y: int\n', "x not in the class"),
    ],
)  # fmt: skip
def test_the_check_sees(tmp_path, code, complaint):
    """Each kind of mistake is found, and the mended text is not complained of."""
    path = tmp_path / "example.py"
    path.write_text('"""Example."""\n' + code, encoding="utf-8")
    assert any(complaint in what for *_, what in offenders(path))
