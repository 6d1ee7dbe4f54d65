"""Benchmarks of the package: accuracy on graphs, peers, ablations and speed."""
