"""What the tests compare pylrp with: plain rewrites in float64 that share no code with the library."""

from . import formulas

__all__ = ["formulas"]
