"""The API: a page a name, a table of names a module, and a front page, written from the package."""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from public import PACKAGE, public_names
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer

import torch_geometric_diff

INDEX = """# API

Every public name with its signature, shapes, defaults and errors, and an example that the tests
run. These names are at the top, `from torch_geometric_diff import ...`; each is imported when it is
first used:

{front}

By topic:

{topics}

```{{toctree}}
:hidden:

layers
{pages}
```
"""
# of PyG and scikit-learn, documented there
HIDDEN = {"message", "message_and_aggregate", "aggregate", "edge_update", "explain"}
GROUPS = {  # of the page of a module, by what the names are
    "Layers and models": lambda value: _is(value, "torch.nn.modules.module", "Module"),
    "Classes": inspect.isclass,
    "Functions": callable,
}


def _is(value: Any, module: str, name: str) -> bool:
    bases = value.__mro__ if inspect.isclass(value) else ()
    return any((base.__module__, base.__name__) == (module, name) for base in bases)


def homes() -> dict[str, str]:
    """The module of every public name, by its full name."""
    return {
        f"{module}.{name}": module for module, names in public_names().items() for name in names
    }


def sentence(value: Any) -> str:
    """The first sentence of a docstring, as Markdown."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":\w+:`~?\.?([^`<]*)(?: <[^`]*>)?`", lambda m: f"`{m[1].split('.')[-1]}`", text)
    text = re.sub(r"`([^`<]+) <(https?[^`>]+)>`_+", r"[\1](\2)", text).replace("``", "`")
    text = re.split(r"(?<=\.)\s+(?=[A-Z])|,? where ", text)[0].rstrip(":,.")
    return text.replace("|", r"\|") + "."


def table(names: list[str]) -> str:
    """The names, given in full, with a link and a sentence each."""
    lines = ["| | |", "| --- | --- |"]
    for full in names:
        module, _, name = full.rpartition(".")
        value = getattr(import_module(module), name)
        lines.append(f"| [`{name}`]({full}.md) | {sentence(value)} |")
    return "\n".join(lines)


def members(cls: type) -> Iterator[str]:
    """What a class of the package offers, of its own and of bases that have no page."""
    pages = [getattr(import_module(m), full.rpartition(".")[2]) for full, m in homes().items()]
    for name in (name for name in dir(cls) if not name.startswith("_") and name not in HIDDEN):
        home = next(base for base in cls.__mro__ if name in vars(base))
        full = f"{home.__module__}.{home.__name__}"
        public = home is not cls and home in pages
        own = full.startswith(PACKAGE) and not public
        if own and _is_method(cls, name) and inspect.getdoc(vars(home)[name]):
            yield name


def entry(module: str, name: str) -> str:
    """The page of one name."""
    value = getattr(import_module(module), name)
    front = name in torch_geometric_diff.__all__
    text = f"# {name}\n\n`from {PACKAGE if front else module} import {name}`\n\n"
    if inspect.isclass(value):
        directive = f".. autoclass:: {module}.{name}\n"
        if found := [*members(value)]:
            directive += f"   :members: {', '.join(found)}\n"
    else:
        directive = f".. autofunction:: {module}.{name}\n"
    return f"{text}```{{eval-rst}}\n{directive}```\n"


def _is_method(cls: type, name: str) -> bool:
    """Methods and properties; fields are in the list of attributes."""
    value = inspect.getattr_static(cls, name)
    kinds = (property, classmethod, staticmethod)
    return isinstance(value, kinds) or inspect.isfunction(value)


def page(module: str, names: list[str]) -> str:
    """The page of one module: what it is for, and its names by kind."""
    title = "accelerate" if module == PACKAGE else module.removeprefix(PACKAGE + ".")
    doc = "" if module == PACKAGE else (inspect.getdoc(import_module(module)) or "").strip()
    text = f"# {title}\n\n{doc}\n\n"
    left = [f"{module}.{name}" for name in names]
    for group, belongs in GROUPS.items():
        found = [f for f in left if belongs(getattr(import_module(module), f.rpartition(".")[2]))]
        left = [full for full in left if full not in found]
        if found:
            text += f"## {group}\n\n{table(found)}\n\n"
    pages = "\n".join(f"{module}.{name}" for name in names)
    return f"{text}```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    found = {}
    modules = public_names()
    where = {full.rpartition(".")[2]: full for full in homes()}
    for module, names in modules.items():
        found[module] = page(module, names)
        found |= {f"{module}.{name}": entry(module, name) for name in names}
    front = [
        where[name]
        for name in sorted(torch_geometric_diff.__all__, key=str.lower)
        if name != "__version__"
    ]
    topics = [
        "| | |",
        "| --- | --- |",
        "| [Which layer takes what](layers.md) | A table of the layers. |",
    ]
    for module, names in modules.items():
        title = found[module].partition("\n")[0].removeprefix("# ")
        listed = ", ".join(f"[`{name}`]({module}.{name}.md)" for name in names)
        topics.append(f"| [{title}]({module}.md) | {listed} |")
    found["index"] = INDEX.format(
        front=table(front), topics="\n".join(topics), pages="\n".join(modules)
    )
    return found


def write(app: Sphinx) -> None:
    """Write the pages that changed."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    written = pages()
    for old in folder.glob("*.md"):
        if old.stem not in written and old.stem != "layers":
            old.unlink()
    for name, text in written.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def one_signature(analyze: Callable[[ModuleAnalyzer], None]) -> Callable[[ModuleAnalyzer], None]:
    """Read a module, and forget overloads: a function is shown with all that it takes."""

    def forgetful(self: ModuleAnalyzer) -> None:
        analyze(self)
        self.overloads = {}

    return forgetful


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before anything is read."""
    ModuleAnalyzer.analyze = one_signature(ModuleAnalyzer.analyze)  # type: ignore[method-assign]
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
