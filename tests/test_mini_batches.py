"""DiffConv under PyG's loaders: what docs/mini_batches.md says, run."""

import doctest
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData, ClusterLoader

from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import DiffusionOperator

DOCUMENT = Path(__file__).parents[1] / "docs/mini_batches.md"


@pytest.fixture(autouse=True)
def _needs_torch_sparse() -> None:
    pytest.importorskip("torch_sparse", reason="torch-sparse, which samples, is not installed")


@pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without a 'pyg-lib'")
def test_the_document_runs() -> None:
    torch.manual_seed(0)
    found = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert found.attempted > 10 and found.failed == 0


def test_clusters_diffuse_on_their_own_laplacian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are handed in, since METIS is a matter of how torch-sparse was built."""
    monkeypatch.setattr(ClusterData, "_metis", lambda self, *_: torch.arange(30) // 10)
    torch.manual_seed(0)
    data = Data(x=torch.randn(30, 4), edge_index=torch.randint(30, (2, 150)))
    parts = ClusterData(data, num_parts=3, log=False)
    conv = DiffConv(num_steps=3, step_size=0.3, normalization="row")
    batches = list(ClusterLoader(parts, batch_size=2))
    assert [batch.num_nodes for batch in batches] == [20, 10]
    for batch in batches:
        operator = DiffusionOperator(
            batch.edge_index, num_nodes=batch.num_nodes, step_size=0.3, normalization="row"
        )
        step = operator.to_dense()
        expected = step @ (step @ (step @ batch.x))
        torch.testing.assert_close(conv(batch.x, batch.edge_index), expected)
        constant = torch.ones(batch.num_nodes, 1)
        torch.testing.assert_close(conv(constant, batch.edge_index), constant)
