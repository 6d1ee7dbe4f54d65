"""The toys of the paper: what diffusion does to points in the plane."""
