from enum import Enum

from torch import Tensor

_CSR = tuple[Tensor, Tensor, Tensor]

def levels() -> list[str]: ...
def tile_widths(columns: int, widest: int, fit: int, /) -> list[int]: ...
def propagate(
    y: Tensor,
    x: Tensor,
    csr: _CSR,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    reverse: bool,
    bounds: tuple[float, float] | None,
    original: Tensor | None,
    within: Tensor | None,
    threads: int,
    level: str,
    width: int,
) -> None: ...
def multiply_tile(
    y: Tensor, x: Tensor, csr: _CSR, first: int, count: int, threads: int
) -> None: ...
def gradients(
    dx: Tensor | None,
    dvalue: Tensor | None,
    dtable: Tensor | None,
    x: Tensor,
    g: Tensor,
    csr: _CSR,
    csr_t: _CSR,
    table: Tensor,
    seeds: Tensor,
    threshold: int,
    coefficients: str,
    original: Tensor | None,
    threads: int,
    level: str,
    width: int,
) -> None: ...

class Normalization(Enum):
    none = 0
    sym = 1
    row = 2

class Diagonal(Enum):
    given = 0
    step = 1
    keep = 2
    add = 3
    set = 4

class Symmetry(Enum):
    none = 0
    pattern = 1
    full = 2

class Sorted:
    valid: bool
    is_int64: bool
    entries: int

class Build(Sorted):
    largest_degree: float

    def fill(self, rowptr: Tensor, col: Tensor, value: Tensor, threads: int) -> bool: ...

class Pattern(Sorted):
    def fill(self, rowptr: Tensor, col: Tensor, entry: Tensor, threads: int) -> None: ...

def build(
    row: Tensor,
    col: Tensor,
    weight: Tensor | None,
    nodes: int,
    normalization: Normalization,
    diagonal: Diagonal,
    scale: float,
    count_loops: bool,
    signed: bool,
    threads: int,
) -> Build: ...
def pattern(row: Tensor, col: Tensor, nodes: int, threads: int) -> Pattern: ...
def symmetry(rowptr: Tensor, col: Tensor, value: Tensor | None, threads: int) -> Symmetry: ...
def transpose(
    rowptr_t: Tensor | None,
    col_t: Tensor | None,
    entry: Tensor,
    rowptr: Tensor,
    col: Tensor,
    threads: int,
) -> None: ...
def knn(
    index: Tensor, points: Tensor, start: Tensor, single: bool, threads: int, level: str
) -> None: ...
def knn_of(
    index: Tensor, known: Tensor, asked: Tensor, single: bool, threads: int, level: str
) -> None: ...

class Pass:
    FORWARD: Pass
    TARGETS: Pass
    SOURCES: Pass

class Score:
    def __init__(self, value: int) -> None: ...

def attend(
    step: Pass,
    score: Score,
    csr: tuple[Tensor, Tensor, Tensor],
    heads: int,
    factor: float,
    target: Tensor,
    source: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    value: Tensor | None,
    largest: Tensor,
    inverse: Tensor,
    mask: tuple[int, int, int],
    out: Tensor | None = None,
    grad: Tensor | None = None,
    inner: Tensor | None = None,
    d_node: Tensor | None = None,
    d_value: Tensor | None = None,
    d_bias: Tensor | None = None,
    d_weight: Tensor | None = None,
    threads: int = 1,
) -> None: ...
