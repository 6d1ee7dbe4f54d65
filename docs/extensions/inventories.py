"""Where names of torch, PyG, SciPy and scikit-learn are documented: written here, never fetched.

intersphinx downloads the list of a project's names; the few that docstrings name are below, so that
pages are the same with and without a network.
"""

import zlib
from pathlib import Path

from sphinx.application import Sphinx

PROJECTS = {
    "torch": "https://docs.pytorch.org/docs/stable/",
    "torch_geometric": "https://pytorch-geometric.readthedocs.io/en/latest/",
    "sklearn": "https://scikit-learn.org/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "numpy": "https://numpy.org/doc/stable/",
    "python": "https://docs.python.org/3/",
}
NAMES = {  # project: (name, kind, page)
    "torch": [
        ("torch.Tensor", "class", "tensors.html"),
        ("torch.Generator", "class", "generated/torch.Generator.html"),
        ("torch.nn.Module", "class", "generated/torch.nn.Module.html"),
        ("torch.nn.Parameter", "class", "generated/torch.nn.parameter.Parameter.html"),
        ("torch.nn.parameter.Parameter", "class", "generated/torch.nn.parameter.Parameter.html"),
        ("torch.dtype", "class", "tensor_attributes.html"),
        ("torch.device", "class", "tensor_attributes.html"),
    ],
    "torch_geometric": [
        (f"torch_geometric.{name}", "class", f"generated/torch_geometric.{name}.html")
        for name in (
            "data.Data",
            "data.Batch",
            "nn.conv.MessagePassing",
            "nn.conv.APPNP",
            "nn.conv.SGConv",
            "nn.conv.SSGConv",
            "nn.models.LabelPropagation",
            "nn.models.CorrectAndSmooth",
            "transforms.GDC",
            "transforms.SIGN",
            "transforms.BaseTransform",
        )
    ],
    "sklearn": [
        (f"sklearn.{name}", "class", f"modules/generated/sklearn.{name}.html")
        for name in ("base.BaseEstimator", "base.ClassifierMixin", "semi_supervised.LabelSpreading")
    ],
    "scipy": [
        ("scipy.sparse.csr_matrix", "class", "reference/generated/scipy.sparse.csr_matrix.html")
    ],
    "numpy": [("numpy.ndarray", "class", "reference/generated/numpy.ndarray.html")],
    "python": [
        ("bool", "class", "library/functions.html"),
        ("int", "class", "library/functions.html"),
        ("float", "class", "library/functions.html"),
        ("str", "class", "library/stdtypes.html"),
        ("list", "class", "library/stdtypes.html"),
        ("tuple", "class", "library/stdtypes.html"),
        ("dict", "class", "library/stdtypes.html"),
        ("None", "data", "library/constants.html"),
        ("ValueError", "exception", "library/exceptions.html"),
        ("TypeError", "exception", "library/exceptions.html"),
    ],
}


def inventory(project: str) -> bytes:
    """The names of a project in the form of its ``objects.inv``."""
    lines = (f"{name} py:{kind} 1 {page}#$ -\n" for name, kind, page in NAMES[project])
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(lines).encode())


def write(app: Sphinx, config: object) -> None:
    """Write the lists and tell intersphinx of them."""
    folder = Path(app.outdir).parent / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, address in PROJECTS.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project))
        mapping[project] = (address, (str(path),))
    app.config.intersphinx_mapping = mapping


def setup(app: Sphinx) -> dict[str, bool]:
    """Before intersphinx reads its mapping."""
    app.connect("config-inited", write, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
