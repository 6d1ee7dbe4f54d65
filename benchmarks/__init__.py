"""Benchmarks of the package: accuracy on graphs, peers, ablations and speed."""

import os
import warnings
from pathlib import Path

# Told by PyTorch once per process about any CSR tensor; nothing a reader of results can act on.
for text in ("Sparse CSR tensor support is in beta", "Sparse invariant checks are implicitly"):
    warnings.filterwarnings("ignore", message=text)

# data sets that lie beside the repository, as the Makefile has it
_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if _SHARED.is_dir():
    os.environ.setdefault("DATA_ROOT", str(_SHARED))
