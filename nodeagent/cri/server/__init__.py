"""Our runtime as others see it: the CRI served on a socket of root's. See ../README.md."""
