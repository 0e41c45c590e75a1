"""What makes a machine part of a cluster, and takes it out again: `wherry init`, `token`, `join`, `reset`."""
