"""The pages of the API, one a module, from the names that it offers."""

import inspect
from importlib import import_module
from pathlib import Path

from public import PACKAGE, public_names
from sphinx.application import Sphinx

from torch_geometric_diff.ops._matrix import SparseMatrix

INDEX = """# API

Every public name with its shapes, defaults and errors, and an example that the tests run. The
names {front}
are at hand at the top, `from torch_geometric_diff import ...`; each is imported when it is first
used.

```{{toctree}}
:maxdepth: 2

{pages}
```
"""


# of PyG and scikit-learn, documented there
HIDDEN = (
    "message, message_and_aggregate, set_fit_request, set_score_request, "
    "set_predict_request, set_predict_proba_request"
)


def page(module: str, names: list[str]) -> str:
    """One module."""
    text = f"# {module.removeprefix(PACKAGE + '.')}\n\n"
    text += f"{(inspect.getdoc(import_module(module)) or '').strip()}\n\n"
    names_and_kinds = [(name, getattr(import_module(module), name)) for name in names]
    text += "".join(f"- {{any}}`{module}.{name}`\n" for name in names) + "\n"
    for name, value in names_and_kinds:
        kind = "autoclass" if inspect.isclass(value) else "autofunction"
        text += f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: {module}.{name}\n"
        if kind == "autoclass":
            text += f"   :members:\n   :exclude-members: {HIDDEN}\n"
            if value.__mro__[1] is SparseMatrix:  # no public name
                text += "   :inherited-members:\n"
        text += "```\n\n"
    return text


def write(app: Sphinx) -> None:
    """Write the pages that changed."""
    import torch_geometric_diff

    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {module: page(module, names) for module, names in public_names().items()}
    front = ", ".join(f"`{name}`" for name in torch_geometric_diff.__all__)
    pages["index"] = INDEX.format(front=front, pages="\n".join(pages))
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
