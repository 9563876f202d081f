"""What the site needs beyond plain Markdown; MkDocs calls these functions while it builds."""

import re

# In the repository a file name stands behind the language: ```toml my-detector.toml. Here it becomes a title.
NAMED = re.compile(r"^```(\w+) ([^\s{}]+)$", re.M)


def on_page_markdown(markdown, **_):
    """Named blocks in the form that the site's Markdown understands."""
    return NAMED.sub(r'```\1 title="\2"', markdown)
