"""What all tests share: warnings of the libraries, kernels and adjacency forms."""

import os
import random
import sys
import zlib
from collections.abc import Iterator

if os.environ.get("WITHOUT_EXTRAS"):  # before anything else is imported: these cannot be
    for name in (
        "torch_scatter",
        "torch_sparse",
        "torch_cluster",
        "torch_geometric_diff._C",
        "triton",
    ):
        sys.modules[name] = None  # type: ignore[assignment]

import numpy as np
import pytest
import torch
import torch_geometric  # noqa: F401  warns on import, before the tests make warnings errors
from dense import FORMS

import benchmarks  # noqa: F401  says where data sets lie

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CASES = 2  # of a test, in the interpreter, which needs seconds for each
# minutes of finite differences and of compiling; NumPy of the interpreter warns of infinite numbers
LEFT_OUT = ("forward_mode", "compiled", "opcheck", "test_infinite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take as long as a busy machine needs; one that hangs ends all the same.

    Triton's interpreter runs the tests of its kernels, and of every test over kernels some cases,
    by their names at random.
    """
    if INTERPRETED:
        tests: dict[str, list[pytest.Item]] = {}
        for item in items:
            named = any(word in item.nodeid for word in LEFT_OUT)
            if "kernel" in getattr(item, "fixturenames", ()) and not named:
                tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
        some = [item for item in items if "test_triton" in item.nodeid]
        for cases in tests.values():
            some += sorted(cases, key=lambda item: zlib.crc32(item.nodeid.encode()))[:CASES]
        items[:] = some
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600), append=False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every run, whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["cuda"] if INTERPRETED else ["reference", "cpu"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kernel of the CPU in turn, and in Triton's interpreter that of the GPU."""
    from torch_geometric_diff.ops.kernels import KERNELS

    module = KERNELS[request.param]
    if module.available() is not None:
        pytest.skip(f"kernel '{request.param}': {module.available()}")
    monkeypatch.setitem(KERNELS, "cpu", module)
    return request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For many small calls: on a busy machine, threads that wait for each other take long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
