"""Makes torchvision importable before any test module imports zennit."""

from peers.torch_networks import KEEP_ALIVE

assert KEEP_ALIVE is not None
