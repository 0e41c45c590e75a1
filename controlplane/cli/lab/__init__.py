"""A cluster on one machine: every node is a corner of it, with its own network, mounts, processes and cgroups."""
