"""The functional core: K steps of diffusion in one call."""

from .diffusion import diffuse as diffuse
