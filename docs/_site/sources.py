"""Links from pages to scripts and other files of the repository lead to a page that shows the file."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)(?=[)#])")
LANGUAGES = {".py": "python", ".md": "markdown", ".yml": "yaml", ".toml": "toml"}


def outside(page: str, target: str) -> str | None:
    """Give the path in the repository of a link that leaves the folder of the pages."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith(("docs/", "..")) else path


def shown_at(path: str) -> str:
    """Give the page that shows a file."""
    return f"source/{path}.md"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file to which some page links."""
    root = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        for found in LINK.finditer(page.content_string):
            path = outside(page.src_uri, found[2])
            if path is None or not (root / path).is_file() or shown_at(path) in files.src_uris:
                continue  # a link to what is not there is left as it is: the strict build finds it
            language = LANGUAGES.get(Path(path).suffix, "text")
            text = (root / path).read_text()
            content = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n`````{language}\n{text}\n`````\n"
            files.append(File.generated(config, shown_at(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn those links to the pages that were added."""

    def turn(found: re.Match[str]) -> str:
        path = outside(page.file.src_uri, found[2])
        if path is None or shown_at(path) not in files.src_uris:
            return found[0]
        return found[1] + posixpath.relpath(shown_at(path), posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(turn, markdown)
