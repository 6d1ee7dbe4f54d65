"""What the docstrings of several layers say alike, written once, as in ``torch.functional``."""

from typing import TypeVar

_INPUT = r"""Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F<in>)` or :math:`(B, |\mathcal{V}|, F<in>)`,
          edge indices :math:`(2, |\mathcal{E}|)` or a sparse matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` or a
          :class:`~torch_geometric_diff.ops.SparseOperator`, which is taken as it is,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
"""
_KEYWORDS = """**kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`."""
_TEXTS = {
    "<matrix arguments>": f"""
        cached (bool, optional): If set to :obj:`True`, the normalized matrix is built at the first
            call and reused. Another graph afterwards is an error, not a wrong result. This
            parameter should only be set to :obj:`True` in transductive learning scenarios.
            (default: :obj:`False`)
        add_self_loops (bool, optional): If set to :obj:`False`, will not add self-loops to the
            input graph. (default: :obj:`True`)
        normalize (bool, optional): Whether to add self-loops and apply symmetric normalization.
            (default: :obj:`True`)
        feature_dropout (float, optional): Dropout probability in :math:`[0, 1)` of the features
            before each step during training. (default: :obj:`0.0`)
        {_KEYWORDS}""",
    "<matrix shapes and errors>": _INPUT.replace("<in>", "")
    + """        - **output:** the shape of the node features

    Raises:
        ValueError: On arguments out of range, a bipartite graph, an ``edge_weight`` beside a sparse
            matrix, weights that are not finite or, if normalized, negative, or a graph that is not
            the cached one.""",
    "<linear arguments>": f"""
        K (int, optional): Number of hops :math:`K`. (default: :obj:`1`)
        cached (bool, optional): If set to :obj:`True`, the layer keeps the normalized matrix and
            the propagated features. Another graph afterwards is an error; other features are
            propagated anew. This parameter should only be set to :obj:`True` in transductive
            learning scenarios. (default: :obj:`False`)
        add_self_loops (bool, optional): If set to :obj:`False`, will not add self-loops to the
            input graph. (default: :obj:`True`)
        bias (bool, optional): If set to :obj:`False`, the layer will not learn an additive bias.
            (default: :obj:`True`)
        {_KEYWORDS}""",
    "<linear shapes and errors>": _INPUT.replace("<in>", "_{in}")
    + r"""        - **output:** node features :math:`(|\mathcal{V}|, F_{out})` or
          :math:`(B, |\mathcal{V}|, F_{out})`

    Raises:
        ValueError: On arguments out of range, a bipartite graph, an ``edge_weight`` beside a sparse
            matrix, weights that are negative or not finite, or a graph that is not the cached one.
    """,
}
Layer = TypeVar("Layer", bound=type)


def with_common_docs(layer: Layer) -> Layer:
    """A layer with the texts that its docstring names in angle brackets."""
    for name, text in _TEXTS.items():
        layer.__doc__ = (layer.__doc__ or "").replace(name, text.strip())
    return layer
