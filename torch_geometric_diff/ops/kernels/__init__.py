"""Kernels of one signature: ``reference`` (torch), ``cpu`` (C++) and ``cuda`` (Triton)."""
