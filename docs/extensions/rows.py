"""Pages of every result row, written from ``benchmarks/results`` when the pages are built."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests read this without Sphinx
    from sphinx.application import Sphinx


PAGES = {  # name: title, what is said, the tables of benchmarks.readme
    "speed": (
        "Speed, every case",
        "Time as a multiple of ours, two cores; `python -m benchmarks.speed --suite NAME`.",
        ("suites", "knn", "memory"),
    ),
    "ablations": (
        "What each part does",
        "On Cora, one thing of the published setting changed at a time, five splits each, so that\n"
        "small differences mean little: `python -m benchmarks.ablations --num_splits 5`.",
        ("ablations",),
    ),
    "development": (
        "Cora with the splits of GRAND",
        "1,360 nodes validate: `python -m benchmarks.table --datasets cora --split development`.",
        ("development",),
    ),
    "ogb": (
        "Graphs in OGB's layout",
        "Stochastic block models with a split by time, of ogbn-arxiv's size and of 20,000 nodes,\n"
        "with features that are mostly noise (`sbm`) and with better features and a fifth of the\n"
        "labels at random (`noisy`): `python -m benchmarks.make_ogb --shape arxiv --kind plain\n"
        "--out DIR/sbm-arxiv`, `python -m benchmarks.ogb --dataset DIR/sbm-arxiv --model\n"
        "diffused-mlp --num_inits 10`; peers with `--hidden 64 --dropout 0.2 --max_epochs 60`.",
        ("ogb",),
    ),
    "fewshot": (
        "Few-shot classification",
        "5 way, 15 queries a class (unbalanced: 75 in all), 10,000 tasks where nothing else is\n"
        "said, mean and 95 % interval in percent, seconds of one core per 1,000 tasks:\n"
        "`python -m fewshot.train --dataset tiny --backbone conv4 --features FILE --shot 1\n"
        "--method diffusion`.",
        ("fewshot",),
    ),
    "graphs": (
        "NodeClassifier on other graphs",
        "Percent; a number in brackets says on how many splits a model ran. The first table is of\n"
        "graphs that no search has seen, the second of those that the defaults of version 0.2.0\n"
        "were made on; differences over the same splits are in the first.",
        ("unseen", "tuning"),
    ),
}
INDEX = """# Result rows

Every measured row of the repository in tables: `benchmarks/results` and `fewshot/results`.

```{{toctree}}

{pages}
```
"""


def write(app: "Sphinx") -> None:
    """Write the pages that changed."""
    from benchmarks.readme import TABLES

    folder = Path(app.srcdir) / "rows"
    folder.mkdir(exist_ok=True)
    texts = {"index": INDEX.format(pages="\n".join(PAGES))}
    for name, (title, said, tables) in PAGES.items():
        texts[name] = "\n\n".join((f"# {title}", said, *(TABLES[table]() for table in tables)))
    for name, text in texts.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text + "\n":
            path.write_text(text + "\n")


def setup(app: "Sphinx") -> dict[str, bool]:
    """Write the pages before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
