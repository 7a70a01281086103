"""The monitor of PyTorch training loops. Use it as ``from proxyconvex.torch import Monitor``."""
