"""The gallery: every script under ``examples/`` is run, and its page shows what came out."""

import contextlib
import io
import runpy
from pathlib import Path

from sphinx.application import Sphinx

INDEX = """# Gallery

Scripts of at most sixty lines, run when these pages were built. Each is a file of `examples/`:
`python -m examples.NAME` prints the same and writes the picture.

```{{toctree}}
:hidden:

{pages}
```

{entries}
"""


def run(script: Path, picture: Path) -> tuple[str, str, str]:
    """The title and text of a script, and what it prints; draws its picture if it makes one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        namespace = runpy.run_path(str(script))
        if "main" in namespace:
            namespace["main"]().savefig(picture, dpi=110)
    title, _, text = (namespace["__doc__"] or script.stem).strip().partition("\n")
    return title.rstrip("."), text.strip(), printed.getvalue().rstrip()


def page(script: Path, picture: Path) -> str:
    """The page of a script."""
    title, text, printed = run(script, picture)
    drawn = f"![{title}]({picture.name})\n\n" if picture.exists() else ""
    return (
        f"# {title}\n\n{text}\n\n{drawn}```text\n{printed}\n```\n\n"
        f"`examples/{script.name}`:\n\n```python\n{script.read_text()}```\n"
    )


def write(app: Sphinx) -> None:
    """Run the scripts that changed since their page was written."""
    scripts = sorted((Path(app.srcdir).parent / "examples").glob("*.py"))
    folder = Path(app.srcdir) / "gallery"
    folder.mkdir(exist_ok=True)
    entries = {}
    for script in scripts:
        target, picture = folder / f"{script.stem}.md", folder / f"{script.stem}.png"
        if not target.exists() or target.stat().st_mtime < script.stat().st_mtime:
            target.write_text(page(script, picture))
        title = target.read_text().partition("\n")[0].removeprefix("# ")
        entries[script.stem] = f"## [{title}]({target.name})\n"
        if picture.exists():
            entries[script.stem] += f"\n[![{title}]({picture.name})]({target.name})\n"
    for old in folder.glob("*.md"):
        if old.stem not in entries:
            old.unlink()
    text = INDEX.format(pages="\n".join(entries), entries="\n".join(entries.values()))
    (folder / "index.md").write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run the scripts before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
