"""Run the tutorials and write docs/tutorials/*.md with what they print and draw.

    python examples/render.py [first-fit | selection-to-fit] ...

The scripts are in percent format: `# %% [markdown]` begins text, `# %%` code. The pages are kept in the
repository, so that the site builds without running anything; a test notices when a script and its page differ.
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = {"first-fit": "tutorial_fit.py", "selection-to-fit": "tutorial_selection_to_fit.py"}
NOTE = "<!-- Written by examples/render.py from examples/{script}; do not edit it. -->"


def cells(text):
    """("text" or "code", content) of every cell of a script."""
    out = []
    for block in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = block.partition("\n")
        if "[markdown]" in head:
            out.append(("text", "\n".join(re.sub(r"^# ?", "", line) for line in body.strip().splitlines())))
        else:
            out.append(("code", body.strip("\n")))
    return out


def picture(path, folder, name, figures):
    """A picture copied to the figures of the site, as Markdown."""
    target = figures / f"tutorial-{name}-{'-'.join(path.relative_to(folder).parts)}"
    shutil.copyfile(path, target)
    return f"![{path.stem.replace('-', ' ')}](../figures/{target.name})"


def rendered(name, script, figures):
    """The page of a tutorial; it is run in a folder of its own."""
    parts, scope = [], {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        try:
            for kind, body in cells((ROOT / "examples" / script).read_text(encoding="utf-8")):
                if kind == "text":
                    parts.append(body)
                    continue
                parts.append(f"```python\n{body}\n```")
                known, said = set(Path(work).rglob("*.png")), io.StringIO()
                with contextlib.redirect_stdout(said):
                    exec(compile(body, script, "exec"), scope)
                if said.getvalue().strip():
                    parts.append(f"```text\n{said.getvalue().rstrip()}\n```")
                new = sorted(set(Path(work).rglob("*.png")) - known)
                parts += [picture(path, Path(work) / scope["OUT"], name, figures) for path in new]
        finally:
            os.chdir(before)
    title, *rest = parts
    heading, _, introduction = title.partition("\n")
    return "\n\n".join([heading, NOTE.format(script=script), introduction.strip(), *rest]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TUTORIALS)}; all by default")
    names = parser.parse_args().names or list(TUTORIALS)
    figures = ROOT / "docs" / "figures"
    for name in names:
        page = ROOT / "docs" / "tutorials" / f"{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(rendered(name, TUTORIALS[name], figures), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: written", file=sys.stderr)


if __name__ == "__main__":
    main()
