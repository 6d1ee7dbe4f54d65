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
    """The title and text of a script, and what it prints; draws its picture."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        namespace = runpy.run_path(str(script))
        namespace["main"]().savefig(picture, dpi=110)
    title, _, text = (namespace["__doc__"] or script.stem).strip().partition("\n")
    return title.rstrip("."), text.strip(), printed.getvalue().rstrip()


def write(app: Sphinx) -> None:
    """Run the scripts that changed since their page was written."""
    scripts = sorted((Path(app.srcdir).parent / "examples").glob("*.py"))
    folder = Path(app.srcdir) / "gallery"
    folder.mkdir(exist_ok=True)
    titles = {}
    for script in scripts:
        target, picture = folder / f"{script.stem}.md", folder / f"{script.stem}.png"
        code = script.read_text()
        if not target.exists() or target.stat().st_mtime < script.stat().st_mtime:
            title, text, printed = run(script, picture)
            target.write_text(
                f"# {title}\n\n{text}\n\n![{title}]({picture.name})\n\n"
                f"```text\n{printed}\n```\n\n`examples/{script.name}`:\n\n```python\n{code}```\n"
            )
        titles[script.stem] = target.read_text().partition("\n")[0].removeprefix("# ")
    entries = [f"## [{t}]({n}.md)\n\n[![{t}]({n}.png)]({n}.md)\n" for n, t in titles.items()]
    text = INDEX.format(pages="\n".join(titles), entries="\n".join(entries))
    (folder / "index.md").write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run the scripts before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
