"""What the ranks of ``torch.distributed`` tell each other, and the rows that they exchange."""

import copy
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ._pattern import index_dtype
from ._sparse import product
from .kernels import cpu, kernel_for

CSR = tuple[Tensor, Tensor, Tensor]
T = TypeVar("T")
_BUFFER = 1 << 26  # bytes of the rows of a tile, where a rank's entries do not take more
_BYTES_PER_ENTRY = 4  # of such a tile, half of what an entry takes
_COLUMNS = 8  # of the narrowest tile: half a cache line of float32


class Ranks:
    """The ranks of a process group; a single one where there is none."""

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank, self.size, self.device = 0, 1, torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
            if self.rank < 0:
                raise ValueError("Expected 'group' to hold this rank (got another's group)")
            if dist.get_backend(group) == "nccl":
                self.device = torch.device("cuda", torch.cuda.current_device())

    def gather(self, numbers: Sequence[int]) -> Tensor:
        """As many whole numbers of every rank, a row a rank."""
        own = torch.tensor(numbers, dtype=torch.long, device="cpu")
        if self.size == 1:
            return own.unsqueeze(0)
        own = own.to(self.device)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(rows, own, group=self.group)
        return torch.stack(rows).cpu()

    def gather_objects(self, value: T) -> list[T]:
        """Any object of every rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.group)
        return values

    def exchange(
        self, received: Tensor, sent: Tensor, counts: list[int], sent_counts: list[int]
    ) -> Any:
        """Begin to send so many rows to every rank and to receive so many: what is waited for."""
        if self.size == 1:
            return None
        return dist.all_to_all_single(
            received, sent, counts, sent_counts, group=self.group, async_op=True
        )

    def exchanged(self, sent: Tensor, sent_counts: list[int]) -> tuple[Tensor, list[int]]:
        """Send so many rows to every rank; what they sent here, in their order."""
        if self.size == 1:
            return sent, sent_counts
        counts = self.gather(sent_counts)[:, self.rank].tolist()
        sent = sent.to(self.device)
        received = sent.new_empty(sum(counts), *sent.shape[1:])
        _wait(self.exchange(received, sent, counts, sent_counts))
        return received.cpu(), counts

    @contextmanager
    def agreement(self) -> Iterator[dict[str, Any]]:
        """What one rank raises within, all raise, and so is what they disagree on of the facts that
        they put into the dict.
        """
        facts: dict[str, Any] = {}
        error = None
        try:
            yield facts
        except Exception as raised:
            error = raised
        if self.size == 1:
            if error is not None:
                raise error
            return
        codes = self.gather([error is not None, zlib.crc32(repr(facts).encode())])
        if bool(codes[:, 0].any()):
            met = self.gather_objects(None if error is None else str(error))
            if error is not None:
                raise error
            rank = int(codes[:, 0].argmax())
            raise ValueError(f"rank {rank}: {met[rank]}")
        if bool((codes[:, 1] != codes[0, 1]).any()):
            _refuse(self.gather_objects(facts))


def _wait(work: Any) -> None:
    if work is not None:
        work.wait()


def _refuse(facts: list[dict[str, Any]]) -> None:
    for name, value in facts[0].items():
        others = [rank for rank, each in enumerate(facts) if each.get(name) != value]
        if others:
            other = facts[others[0]].get(name)
            raise ValueError(
                f"Expected all ranks to agree on '{name}' (got {value} on rank 0 and {other} on "
                f"rank {others[0]})"
            )


class Halo:
    """The rows that a rank reads of others and those of its own that they read.

    Args:
        ranks: The ranks.
        num_rows: The rows of its own, which come first in what :meth:`products` multiplies.
        sent: Which of them the other ranks read, rank by rank.
        sent_counts: How many each of them reads.
        counts: How many rows it reads of each.
        num_entries: The number of entries of its rows.
    """

    def __init__(
        self,
        ranks: Ranks,
        num_rows: int,
        sent: Tensor,
        sent_counts: list[int],
        counts: list[int],
        num_entries: int,
    ) -> None:
        self.ranks, self.num_rows = ranks, num_rows
        self.sent, self.sent_counts, self.counts = sent, sent_counts, counts
        sizes = ranks.gather([num_rows + self.size, num_entries])
        self.most_rows, most_entries = sizes.max(dim=0).values.tolist()
        self.buffer = max(_BUFFER, _BYTES_PER_ENTRY * most_entries)
        self._returned: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """The number of rows of others."""
        return sum(self.counts)

    def to(self, device: torch.device) -> "Halo":
        """The same on another device."""
        other = copy.copy(self)
        other.sent, other._returned = self.sent.to(device), None
        return other

    def filled(self, x: Tensor) -> Tensor:
        """Rows of its own (n, C), followed by those of others."""
        rows, work = self._fetch(x)
        _wait(work)
        return rows

    def products(self, csr: CSR, x: Tensor) -> Tensor:
        """A matrix times its own rows (B, n, C) and those of others: tile by tile, where the next
        one's rows travel meanwhile.
        """
        return self._by_tiles(x, self._fetch, lambda rows: _times(csr, rows))

    def transposed_products(self, csr_t: CSR, x: Tensor) -> Tensor:
        """The transpose of :meth:`products`, whose matrix has been transposed: what comes out in
        rows of others goes back to them.
        """
        n = self.num_rows

        def begin(x: Tensor) -> tuple[Any, Any]:
            rows = _times(csr_t, x)
            back = rows.new_empty(self.sent.numel(), rows.size(1))
            work = self.ranks.exchange(back, rows[n:], self.sent_counts, self.counts)
            return (rows[:n], back, rows), work

        def end(state: Any) -> Tensor:
            own, back, _ = state
            return own + _times((*self._returns(), torch.ones_like(back[:, :1]).flatten()), back)

        return self._by_tiles(x, begin, end)

    def _fetch(self, x: Tensor) -> tuple[Tensor, Any]:
        rows = x.new_empty(self.num_rows + self.size, x.size(1))
        rows[: self.num_rows] = x
        sent = x.index_select(0, self.sent)
        work = self.ranks.exchange(rows[self.num_rows :], sent, self.counts, self.sent_counts)
        return rows, work

    def _by_tiles(self, x: Tensor, begin: Callable, end: Callable) -> Tensor:
        y, waiting = torch.empty_like(x, memory_format=torch.contiguous_format), []

        def finish(b: int, columns: slice, state: Any, work: Any) -> None:
            _wait(work)
            y[b, :, columns] = end(state)

        for b in range(x.size(0)):
            for columns in self._tiles(x):
                waiting.append((b, columns, *begin(x[b, :, columns])))
                if len(waiting) > 1:
                    finish(*waiting.pop(0))
        for each in waiting:
            finish(*each)
        return y

    def _tiles(self, x: Tensor) -> list[slice]:
        """Columns in tiles, the same on all ranks: two or more of them, and no wide buffer."""
        columns, row = x.size(-1), max(self.most_rows, 1) * x.element_size()
        fit = self.buffer // row // _COLUMNS * _COLUMNS
        half = -(-columns // 2 // _COLUMNS) * _COLUMNS
        width = max(min(fit, half), _COLUMNS)
        return [slice(start, min(start + width, columns)) for start in range(0, columns, width)]

    def _returns(self) -> tuple[Tensor, Tensor]:
        """The pattern of the matrix that adds what comes back to the rows it was of."""
        if self._returned is None:
            order = torch.argsort(self.sent, stable=True)
            counts = torch.bincount(self.sent, minlength=self.num_rows)
            rowptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
            index = index_dtype(order.numel())
            self._returned = rowptr.to(index), order.to(index)
        return self._returned


def _times(csr: CSR, x: Tensor) -> Tensor:
    """A matrix of any shape times (n, C)."""
    if kernel_for(x.device) is cpu:
        return product(csr, x.unsqueeze(0)).squeeze_(0)
    size = (csr[0].numel() - 1, x.size(0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(*csr, size, device=x.device, check_invariants=False)
    return matrix @ x
