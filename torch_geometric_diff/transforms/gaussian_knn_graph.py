"""The Gaussian kNN graph as a transform."""

from typing import Any

from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from torch_geometric_diff.graph import gaussian_knn_graph


@functional_transform("gaussian_knn_graph")
class GaussianKNNGraph(BaseTransform):
    r"""Connects the points of a graph to their nearest ones with Gaussian weights.

    Reads ``data.pos`` if there is one, as ``torch_geometric.transforms.KNNGraph`` does, else
    ``data.x``, and ``data.batch`` if there is one. Writes ``data.edge_index`` and
    ``data.edge_weight`` in the place of any edges, and removes what else belongs to the old ones:
    ``data.adj_t``, ``data.edge_attr`` and other attributes of edges, but for labels to be learned
    (``edge_label``, ``edge_label_index``). The weights are those of
    :func:`~torch_geometric_diff.graph.gaussian_knn_graph` (functional name:
    :obj:`gaussian_knn_graph`).

    Args:
        n_top (int): The number of weights kept for each point, that of the point itself included.
        sigma (float or tuple): The width of the Gaussian, or :obj:`("local", s)` for the distance
            of the :math:`s`-th nearest point.
        attr (str, optional): The attribute that holds the points. (default: :obj:`pos` if there
            is one, else :obj:`x`)
        **kwargs (optional): Additional arguments of
            :func:`~torch_geometric_diff.graph.gaussian_knn_graph`.

    Raises:
        ValueError: If :obj:`data` holds no points, or on what the function refuses.

    Example:
        >>> from torch_geometric.data import Data
        >>> GaussianKNNGraph(n_top=3, sigma=("local", 2))(Data(pos=torch.randn(10, 2)))
        Data(pos=[10, 2], edge_index=[2, 30], edge_weight=[30])
    """

    def __init__(
        self,
        n_top: int,
        sigma: float | tuple[str, int],
        attr: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.n_top = n_top
        self.sigma = sigma
        self.attr = attr
        self.kwargs = kwargs

    def forward(self, data: Data) -> Data:
        """Write the edges of ``data``."""
        attr = self.attr or ("pos" if data.pos is not None else "x")
        points = data.get(attr, None)
        if points is None:
            raise ValueError(f"Expected 'data' to hold its points in {attr!r} (got {data})")
        edge_index, edge_weight = gaussian_knn_graph(
            points, self.n_top, self.sigma, data.batch, **self.kwargs
        )
        for name in _of_edges(data):
            del data[name]
        data.edge_index, data.edge_weight = edge_index, edge_weight
        return data

    def __repr__(self) -> str:
        settings = {"n_top": self.n_top, "sigma": self.sigma} | self.kwargs
        text = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        return f"{self.__class__.__name__}({text})"


def _of_edges(data: Data) -> list[str]:
    """The names of what belongs to the edges of ``data``."""
    names = {"adj", "adj_t", "edge_attr"} & set(data.keys())
    if data.edge_index is not None or names:
        names |= {name for name in data.edge_attrs() if "edge" in name}
    return [name for name in names if not name.startswith("edge_label")]
