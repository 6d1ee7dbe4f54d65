from torch import Tensor

def levels() -> list[str]: ...
def tile_widths(columns: int, widest: int, fit: int, /) -> list[int]: ...
def propagate(
    y: int,
    x: int,
    rowptr: int,
    col: int,
    value: int,
    original: int,
    rows: int,
    sources: int,
    batch: int,
    columns: int,
    is_double: bool,
    is_int64: bool,
    table: int,
    inputs: int,
    outputs: int,
    steps: int,
    threshold: int,
    seeds: int,
    reverse: bool,
    bounded: bool,
    low: float,
    high: float,
    within: int,
    reach: int,
    threads: int,
    level: str,
    width: int,
    /,
) -> None: ...
def gradients(
    dx: int,
    dvalue: int,
    dtable: int,
    kinds: int,
    x: int,
    g: int,
    rowptr: int,
    col: int,
    value: int,
    rowptr_t: int,
    col_t: int,
    value_t: int,
    original: int,
    rows: int,
    batch: int,
    columns: int,
    is_double: bool,
    is_int64: bool,
    table: int,
    inputs: int,
    outputs: int,
    steps: int,
    threshold: int,
    seeds: int,
    threads: int,
    level: str,
    width: int,
    /,
) -> None: ...

class Build:
    valid: bool
    is_int64: bool
    entries: int
    largest_degree: float

    def fill(self, rowptr: int, col: int, value: int, is_double: bool, threads: int) -> bool: ...

class Pattern:
    valid: bool
    is_int64: bool
    entries: int

    def fill(self, rowptr: int, col: int, entry: int, threads: int) -> None: ...

def build(
    row: int,
    col: int,
    weight: int,
    weight_bytes: int,
    count: int,
    nodes: int,
    normalization: int,
    diagonal: int,
    scale: float,
    count_loops: bool,
    is_signed: bool,
    threads: int,
) -> Build: ...
def pattern(row: int, col: int, count: int, nodes: int, threads: int) -> Pattern: ...
def symmetry(
    rowptr: int,
    col: int,
    value: int,
    value_bytes: int,
    is_int64: bool,
    nodes: int,
    threads: int,
) -> int: ...
def transpose(
    rowptr_t: int,
    col_t: int,
    entry: int,
    rowptr: int,
    col: int,
    is_int64: bool,
    nodes: int,
    threads: int,
) -> None: ...
def knn(
    index: int,
    points: int,
    dim: int,
    start: int,
    sets: int,
    k: int,
    single: bool,
    threads: int,
    level: str,
    /,
) -> None: ...
def knn_of(
    index: int,
    known: int,
    num_known: int,
    asked: int,
    num_asked: int,
    dim: int,
    k: int,
    single: bool,
    threads: int,
    level: str,
    /,
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
