"""Write graphs of what scikit-learn and installed packages bring along, and generated ones.

python -m benchmarks.make_graphs --out runs/graphs
python -m benchmarks.nodes --dataset runs/graphs/wine.npz --model node-classifier --num_splits 20
python -m benchmarks.make_graphs --kind tuning --out runs/tuning

Those of the kind ``unseen`` are reported, and no search of settings has seen them; those of
``tuning`` are what the defaults of NodeClassifier were made on. Tables of scikit-learn are
standardized, every row joined to its ten nearest; of the source files of a package (``scipy``,
``networkx``), words are parts of names in the code, an edge is an import, the class is the
subpackage; the others are stochastic block models: edges join nodes of one class, of different ones
or of each class and the next (``cycle``), and features of ``noise`` tell nothing. Tuning graphs are
of more kinds: points whose classes no plane parts, counts, categories; roles of nodes in the graph.
Graphs of the kind ``shapes`` have the nodes, edges, words and classes of two of Shchur's sets, in
the layout of his files: for times and memory, not for accuracy.
"""

import ast
import importlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Parser, command_line, refuse_unused, write_atomically
from benchmarks.common.cli import path

Arrays = dict[str, np.ndarray]
NEIGHBORS = 10
COMMON = 5  # files that hold a word
CLASSES = 20  # of a table, at most


def table(name: str) -> Arrays:
    """A table of scikit-learn, rows joined to the nearest."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    y = bunch.target
    if np.unique(y).size > CLASSES:  # a number: low, middle or high
        y = np.searchsorted(np.quantile(y, [1 / 3, 2 / 3]), y)
    return {"x": x, "edge_index": nearest(x), "y": y}


def points(name: str) -> Arrays:
    """Points that scikit-learn generates, joined to the nearest."""
    from sklearn import datasets

    x, y = {
        "moons": lambda: datasets.make_moons(600, noise=0.25, random_state=0),
        "classification": lambda: datasets.make_classification(
            800, 30, n_informative=8, n_classes=4, random_state=0
        ),
        "irrelevant": lambda: datasets.make_classification(
            1000, 80, n_informative=5, n_redundant=0, n_classes=3, random_state=1
        ),
        "circles": lambda: datasets.make_circles(600, noise=0.15, factor=0.5, random_state=0),
        "quantiles": lambda: datasets.make_gaussian_quantiles(
            n_samples=900, n_features=6, n_classes=3, random_state=0
        ),
        "blobs": lambda: datasets.make_blobs(
            900, 2, centers=9, cluster_std=1.5, random_state=0, center_box=(-8, 8)
        )[:2],
    }[name]()
    return {"x": x, "edge_index": nearest(x), "y": y}


def columns(kind: str, nodes: int = 1000) -> Arrays:
    """Columns as tables have them, rows joined to the nearest."""
    rng = np.random.default_rng(201)
    if kind == "exclusive":  # the class is whether two signs agree; six columns tell nothing
        x = rng.standard_normal((nodes, 8))
        y = (x[:, 0] * x[:, 1] > 0).astype(int)
    elif kind == "line":  # one column, classes in stretches of it
        x = 4 * rng.random((nodes, 1)) - 2
        y = np.floor(x[:, 0]).astype(int) % 2
    elif kind == "counts":  # of very different sizes
        y = np.arange(nodes) % 4
        rate = np.exp(rng.standard_normal((4, 12)) * 0.6 + rng.standard_normal(12) * 2)
        x = rng.poisson(rate[y] * rng.gamma(1.0, 1.0, (nodes, 1))).astype(float)
    else:  # eight columns of five categories each; the class is told by pairs of three of them
        values = rng.integers(0, 5, (nodes, 8))
        table = rng.standard_normal((3, 5, 5, 4))
        pairs = ((0, 1), (1, 2), (0, 2))
        score = sum(t[values[:, i], values[:, j]] for t, (i, j) in zip(table, pairs, strict=True))
        y = np.argmax(score, axis=1)
        x = np.eye(5)[values].reshape(nodes, -1)
    return {"x": x, "edge_index": nearest(x), "y": y}


def roles(kind: str, nodes: int = 800) -> Arrays:
    """Classes told by a node's place in the graph; features are the same for all.

    Of ``houses``: five nodes each, hung to a graph of preferential attachment, by their floor and
    that of the graph (as PyG's ExplainerDataset has them); of ``degrees``: how many edges a node of
    such a graph has; of ``triangles``: whether a node is in many triangles for its edges.
    """
    import networkx as nx

    rng = np.random.default_rng(202)
    if kind == "houses":
        graph = nx.barabasi_albert_graph(nodes // 2, 5, seed=0)
        role = [0] * graph.number_of_nodes()
        for _ in range(nodes // 10):
            n = graph.number_of_nodes()
            walls = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 0), (4, 1)]
            graph.add_edges_from([(n + a, n + b) for a, b in walls])
            graph.add_edge(n, int(rng.integers(0, nodes // 2)))
            role += [1, 1, 2, 2, 3]
        for _ in range(nodes // 10):
            a, b = rng.integers(0, graph.number_of_nodes(), 2)
            graph.add_edge(int(a), int(b))
        y = np.array(role)
    elif kind == "degrees":
        graph = nx.barabasi_albert_graph(nodes, 2, seed=0)
        graph.add_edges_from(rng.integers(0, nodes, (nodes, 2)).tolist())
        degree = np.array([d for _, d in sorted(graph.degree)])
        y = np.searchsorted(np.quantile(degree, [0.35, 0.7]), degree)
    else:
        graph = nx.random_clustered_graph(
            [(6, 0) if i % 2 else (2, 2) for i in range(nodes)], seed=0
        )
        y = np.arange(nodes) % 2
    edges = np.array([(a, b) for a, b, *_ in graph.edges]).T
    return {"x": np.ones((len(y), 1)), "edge_index": edges, "y": y}


def nearest(x: np.ndarray) -> np.ndarray:
    """Every row joined to the ten nearest."""
    from sklearn.neighbors import kneighbors_graph

    found = kneighbors_graph(x, NEIGHBORS).tocoo()
    return np.stack([found.row, found.col])


def sources(package: str) -> Arrays:
    """The source files of a package."""
    root = Path(str(importlib.import_module(package).__file__)).parent
    files = [file for file in sorted(root.rglob("*.py")) if file.parent != root]
    names = [(package, *file.relative_to(root).with_suffix("").parts) for file in files]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    module = {".".join(n for n in name if n != "__init__"): i for i, name in enumerate(names)}
    edges = [
        (i, module[found])
        for i, (name, tree) in enumerate(zip(names, trees, strict=True))
        for found in imports(tree, name, module)
    ]
    words = [Counter(words_of(tree)) for tree in trees]
    spread = Counter(word for found in words for word in found)
    column = {w: i for i, w in enumerate(sorted(w for w, n in spread.items() if n >= COMMON))}
    x = np.zeros((len(files), len(column)), dtype=np.float32)
    for row, found in zip(x, words, strict=True):
        row[[column[word] for word in found if word in column]] = 1
    _, y = np.unique([name[1] for name in names], return_inverse=True)
    return {"x": x, "edge_index": np.array(edges).T, "y": y}


def imports(tree: ast.AST, name: tuple[str, ...], module: dict[str, int]) -> list[str]:
    """The modules of the package that a file imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = name[: len(name) - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            whole = [f"{base}.{alias.name}" for alias in node.names]
            found += [each if each in module else base for each in whole]
    return [each for each in found if each in module]


def words_of(tree: ast.AST) -> set[str]:
    """The parts of the names in a file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    parts = {part for name in names for part in re.findall(r"[A-Za-z][a-z]+|[A-Z]+", name)}
    return {part.lower() for part in parts if len(part) > 2}


def blocks(
    seed: int,
    inside: float,
    separation: float,
    nodes: int = 1200,
    classes: int = 6,
    ahead: int | None = None,
    features: str = "gaussian",
    hubs: bool = False,
    unequal: bool = False,
) -> Arrays:
    """A stochastic block model of three edges a node.

    A share ``inside`` of the edges stays in a class; the others lead to any other one, or all to
    the one that is ``ahead`` by so many. ``separation`` is the distance of two class means in
    standard deviations of the features; ``words`` are features that are there or not, ``constant``
    ones tell nothing, and each node has one of its ``own``. With ``hubs`` few nodes have most of
    the edges; with ``unequal`` every class has about 0.65 times as many nodes as the one before.
    """
    rng = np.random.default_rng(seed)
    width, edges = 40, 3 * nodes
    y = rng.permutation(np.arange(nodes) % classes)
    by_class = np.argsort(y, kind="stable").reshape(classes, -1)
    source = rng.integers(0, nodes, edges)
    stays = rng.random(edges) < inside
    away = np.where(stays, 0, rng.integers(1, classes, edges) if ahead is None else ahead)
    size = nodes // classes
    within = rng.integers(0, size, edges)
    if hubs:
        within = within**3 // size**2
    target = by_class[(y[source] + away) % classes, within]
    means = rng.standard_normal((classes, width)) * separation / (2 * width) ** 0.5
    x = rng.standard_normal((nodes, width)) + means[y]
    forms = {
        "gaussian": x,
        "words": (x > 1).astype(float),
        "constant": np.ones((nodes, 1)),
        "own": np.eye(nodes),
    }
    edge_index = np.stack([source, target])
    if unequal:
        keep = rng.random(nodes) < 0.65**y
        number = np.cumsum(keep) - 1
        edge_index = number[edge_index[:, keep[edge_index].all(axis=0)]]
        return {"x": forms[features][keep], "edge_index": edge_index, "y": y[keep]}
    return {"x": forms[features], "edge_index": edge_index, "y": y}


def worded(
    nodes: int, edges: int, words: int, share: float, classes: int, homophily: float = 0.8
) -> Arrays:
    """A connected graph of exactly so many undirected edges and words, in Shchur's layout.

    A node has a ``share`` of all words, more often those of its class; few nodes have most edges,
    of which about a share ``homophily`` stays in a class.
    """
    from scipy import sparse

    rng = np.random.default_rng(301)
    y = rng.permutation(np.arange(nodes) % classes)
    by_class = [np.flatnonzero(y == c) for c in range(classes)]

    def neighbors(source: np.ndarray) -> np.ndarray:
        label = rng.integers(0, classes, len(source))
        label = np.where(rng.random(len(source)) < homophily, y[source], label)
        size = np.array([len(members) for members in by_class])[label]
        rank = (size * rng.random(len(source)) ** 2).astype(int)
        starts = np.cumsum([0, *map(len, by_class)])[:-1]
        return np.concatenate(by_class)[starts[label] + rank]

    first = rng.permutation(nodes)  # a tree, so that all is one component
    tree = first[1:], first[(rng.random(nodes - 1) * np.arange(1, nodes)).astype(int)]
    keys = np.minimum(*tree) * nodes + np.maximum(*tree)
    while len(keys) < edges:
        source = rng.integers(0, nodes, edges - len(keys))
        target = neighbors(source)
        own = np.minimum(source, target) * nodes + np.maximum(source, target)
        more = np.setdiff1d(own[source != target], keys)
        keys = np.concatenate([keys, more])
    pair = keys // nodes, keys % nodes
    adjacency = sparse.csr_matrix((np.ones(edges, np.float32), pair), (nodes, nodes))

    usual = (np.arange(words) + 10.0) ** -0.7
    rate = rng.permutation(usual) * np.exp(0.7 * rng.standard_normal((classes, words)))
    for _ in range(20):  # no word is in more than nine tenths of a class
        rate = np.minimum(rate * share / rate.mean(axis=1, keepdims=True), 0.9)
    rows = [
        sparse.csr_matrix(rng.random((len(part), words), np.float32) < rate[y[part]])
        for part in np.array_split(np.arange(nodes), -(-nodes * words // 2**24))
    ]
    x = sparse.vstack(rows).astype(np.float32)
    arrays: Arrays = {"labels": y}
    for name, matrix in (("adj", adjacency), ("attr", x)):
        arrays |= {
            f"{name}_data": matrix.data,
            f"{name}_indices": matrix.indices,
            f"{name}_indptr": matrix.indptr,
            f"{name}_shape": np.array(matrix.shape),
        }
    return arrays


UNSEEN: dict[str, Callable[[], Arrays]] = {
    "wine": lambda: table("wine"),
    "cancer": lambda: table("breast_cancer"),
    "scipy": lambda: sources("scipy"),
    "homophily": lambda: blocks(1, 0.7, 3.0),
    "heterophily": lambda: blocks(2, 0.05, 3.0),
    "noise": lambda: blocks(3, 0.7, 0.0),
    "cycle": lambda: blocks(4, 0.1, 2.5, classes=4, ahead=1, hubs=True),
    "diabetes": lambda: table("diabetes"),
    "networkx": lambda: sources("networkx"),
}
TUNING: dict[str, Callable[[], Arrays]] = {
    "inside": lambda: blocks(101, 0.75, 2.5),
    "inside-three": lambda: blocks(102, 0.65, 2.0, classes=3),
    "inside-words": lambda: blocks(103, 0.6, 4.0, features="words"),
    "inside-hubs": lambda: blocks(104, 0.6, 3.0, hubs=True),
    "inside-noise": lambda: blocks(105, 0.8, 0.0, classes=5),
    "inside-constant": lambda: blocks(106, 0.8, 0.0, classes=5, features="constant"),
    "other": lambda: blocks(107, 0.0, 4.0, classes=5),
    "other-words": lambda: blocks(108, 0.0, 4.5, classes=5, features="words"),
    "next": lambda: blocks(109, 0.0, 4.0, classes=5, ahead=1),
    "next-words": lambda: blocks(110, 0.1, 4.5, classes=4, ahead=1, features="words"),
    "next-hubs": lambda: blocks(111, 0.1, 3.0, ahead=2, hubs=True),
    "bipartite": lambda: blocks(112, 0.1, 2.0, classes=2),
    "chance": lambda: blocks(113, 0.2, 4.0, classes=5),
    "tiny": lambda: blocks(114, 0.85, 0.0, nodes=40, classes=4, features="own"),
    "iris": lambda: table("iris"),
    "moons": lambda: points("moons"),
    "classification": lambda: points("classification"),
    "sklearn": lambda: sources("sklearn"),
    "sympy": lambda: sources("sympy"),
    "torch_geometric": lambda: sources("torch_geometric"),
    "pandas": lambda: sources("pandas"),
    "numpy": lambda: sources("numpy"),
    "numba": lambda: sources("numba"),
    "sqlalchemy": lambda: sources("sqlalchemy"),
    "irrelevant": lambda: points("irrelevant"),
    "circles": lambda: points("circles"),
    "quantiles": lambda: points("quantiles"),
    "blobs": lambda: points("blobs"),
    "exclusive": lambda: columns("exclusive"),
    "line": lambda: columns("line"),
    "counts": lambda: columns("counts"),
    "categories": lambda: columns("categories"),
    "houses": lambda: roles("houses"),
    "degrees": lambda: roles("degrees"),
    "triangles": lambda: roles("triangles", 900),
    "many": lambda: blocks(115, 0.6, 4.0, nodes=3000, classes=50),
    "unequal": lambda: blocks(116, 0.5, 2.5, nodes=2000, classes=5, unequal=True),
}
SHAPES: dict[str, Callable[[], Arrays]] = {
    "photo-shape": lambda: worded(7_487, 119_043, 745, 0.35, 8),
    "physics-shape": lambda: worded(34_493, 247_962, 8_415, 0.004, 5),
}
KINDS = {"unseen": UNSEEN, "tuning": TUNING, "shapes": SHAPES}
GRAPHS = UNSEEN | TUNING | SHAPES


def parser() -> Parser:
    """The flags."""
    p = Parser(__doc__)
    p.add_argument("--out", type=path, required=True, metavar="FOLDER", help="NAME.npz go there")
    p.add_argument(
        "--kind",
        choices=KINDS,
        default="unseen",
        help="those of the table, those to tune on, or those of the shape of Shchur's sets",
    )
    p.add_argument("--graphs", nargs="+", choices=GRAPHS, help="(default: all of the kind)")
    return p


def main(argv: list[str] | None = None) -> None:
    """Write the graphs."""
    args = parser().parse_args(argv)
    if args.graphs:
        refuse_unused(parser(), args, ["kind"], "'--graphs'")
    for name in args.graphs or KINDS[args.kind]:
        target = args.out / f"{name}.npz"
        with write_atomically(target) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = GRAPHS[name]()
            np.savez_compressed(file, **arrays)
        print(f"wrote {target}")


if __name__ == "__main__":
    command_line(main)
