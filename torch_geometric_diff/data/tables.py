"""Graphs of named nodes: networkx graphs and their files, and lists of edges in CSV."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Data

from .features import MASKS
from .files import check_graph

LABELS = ("y", "class", "label", "target")
VECTORS = ("x", "features")


def graph_of_nodes(
    nodes: Mapping[Any, Mapping[str, Any]], edges: Iterable[tuple[Any, Any]], origin: Any
) -> Data:
    """A graph of nodes with attributes, numbered in their order.

    The label is the attribute ``y``, ``class``, ``label`` or ``target``, else the only one that is
    text; features are ``x`` (or ``features``), a sequence of numbers, else all other numbers in
    their order, else a constant; ``train_mask`` and the like are masks.

    Args:
        nodes (dict): The attributes of each node.
        edges (iterable of pairs): Pairs of nodes.
        origin: What an error names.

    Raises:
        ValueError: If there is no label, a node lacks a feature or an edge names no node.
    """
    try:
        number = {node: i for i, node in enumerate(nodes)}
        pairs = [(number[source], number[target]) for source, target in edges]
    except KeyError as error:
        raise ValueError(f"'{origin}': an edge names {error}, which is no node") from None
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(key for attributes in nodes.values() for key in attributes):
        columns[name] = [attributes.get(name) for attributes in nodes.values()]
    text = [n for n, values in columns.items() if any(isinstance(v, str) and v for v in values)]
    kinds = [n for n in text if len({*columns[n]}) < len(nodes)]  # others name the nodes
    named = [n for n in LABELS if n in columns and (n in kinds or n not in text)]
    label = named[0] if named else kinds[0] if len(kinds) == 1 else None
    if label is None:
        raise ValueError(
            f"'{origin}': expected labels in an attribute {', '.join(LABELS)} or in the only text "
            f"(got {', '.join(columns) or 'no attributes'})"
        )
    arrays: dict[str, Any] = {"y": _labels(columns.pop(label))}
    arrays |= {n: np.array(columns.pop(n)).astype(bool) for n in MASKS if n in columns}
    arrays["edge_index"] = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    vectors = [n for n in VECTORS if n in columns]
    numbers = {n: v for n, v in columns.items() if n not in text}
    try:
        if vectors:
            arrays["x"] = np.array(columns[vectors[0]], dtype=np.float32)
        elif numbers:
            arrays["x"] = np.array([*numbers.values()], dtype=np.float32).T
        else:
            arrays["x"] = np.ones((len(nodes), 1), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{origin}': expected features of every node: {error}") from None
    return check_graph(arrays, origin)


def _labels(values: list[Any]) -> np.ndarray:
    """Numbers, NaN where there is none, or text, empty where there is none."""
    if any(isinstance(value, str) and value for value in values):
        return np.array(["" if value is None else str(value) for value in values])
    return np.array([np.nan if value in (None, "") else value for value in values], dtype=float)


def read_networkx(source: Any) -> Data:
    """A networkx graph, or a ``.graphml``, ``.gml`` or ``.gexf`` file.

    Raises:
        ValueError: If it is damaged or holds no labeled graph; names it.
    """
    import networkx

    graph = source
    if isinstance(source, Path):
        read = {".graphml": networkx.read_graphml, ".gexf": networkx.read_gexf}
        try:
            graph = read.get(source.suffix, networkx.read_gml)(source)
        except Exception as error:  # of the parsers below networkx
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"'{source}' is damaged or no graph: {text}") from error
    origin = source if isinstance(source, Path) else "networkx"
    return graph_of_nodes(dict(graph.nodes(data=True)), graph.edges(), origin)


def read_csv(path: Path) -> Data:
    """Edges in CSV, a source and a target a line under a line of names, and the nodes beside them.

    The nodes stand in ``NAME.nodes.csv``, else in ``nodes.csv``: the first column names them, the
    others are attributes (see :func:`graph_of_nodes`). Further columns of edges are not read.

    Raises:
        FileNotFoundError: If there are no nodes.
        ValueError: If a file holds something else; names it.
    """
    beside = [path.with_suffix(".nodes.csv"), path.with_name("nodes.csv")]
    file = next((each for each in beside if each.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"'{beside[0]}' does not exist, which tells the nodes of '{path}'")
    head, lines = _read(file)
    nodes = {line[0]: dict(zip(head[1:], map(_value, line[1:]), strict=True)) for line in lines}
    if len(nodes) < len(lines):
        raise ValueError(f"'{file}' names a node twice")
    return graph_of_nodes(nodes, [(line[0], line[1]) for line in _read(path)[1]], path)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and the lines, all of one length."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            head, *lines = [[c.strip() for c in line] for line in csv.reader(file) if line]
    except ValueError as error:  # no line, or no text
        raise ValueError(f"'{path}' is no CSV file of a line of names and more: {error}") from None
    wrong = next((n for n, line in enumerate(lines, 2) if len(line) != len(head)), None)
    if wrong is not None or len(head) < 2:
        raise ValueError(f"'{path}' line {wrong or 1}: expected as many cells as names, at least 2")
    return head, lines


def _value(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
