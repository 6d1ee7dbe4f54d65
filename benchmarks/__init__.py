"""Benchmarks of the package: accuracy on graphs, peers, ablations and speed."""

import warnings

# Told by PyTorch once per process about any CSR tensor; nothing a reader of results can act on.
for text in ("Sparse CSR tensor support is in beta", "Sparse invariant checks are implicitly"):
    warnings.filterwarnings("ignore", message=text)
