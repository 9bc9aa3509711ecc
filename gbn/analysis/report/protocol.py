"""An experiment's README as HTML: question and protocol."""

import re
from pathlib import Path


def readme(experiment: str | Path | None) -> str:
    """Return the text of ``experiments/<name>/README.md``; empty if there is none."""
    if experiment is None:
        return ""
    path = Path(experiment)
    path = (path.parent if path.suffix else path) / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def html(markdown: str) -> str:
    """Render CommonMark with tables as HTML, with raw HTML shown as text and repository links without their target.

    The page leaves the repository, where a relative link would lead nowhere.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"\A\s*# .*\n", "", markdown))
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open" and not str(child.attrs.get("href", "")).startswith("https://"):
                child.attrs = {}
            if child.type == "image":  # a browser would fetch it
                child.type, child.tag, child.content = "text", "", child.content or "image"
        if token.type == "heading_open" or token.type == "heading_close":
            token.tag = f"h{min(6, int(token.tag[1:]) + 2)}"
    return str(parser.renderer.render(tokens, parser.options, {}))


def question(markdown: str) -> str:
    """Return the paragraph that opens with **Question.** or **Claim under test.**, as plain text, or ""."""
    match = re.search(
        r"^\*\*(?:Question|Claim under test)\.\*\*\s*(.+?)(?:\n\s*\n|\Z)", markdown, re.S | re.M
    )
    if not match:
        return ""
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", match[1])
    return re.sub(r"\s+", " ", text.replace("`", "")).strip()
