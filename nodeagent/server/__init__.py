"""The agent's own HTTPS server: logs, exec, attach, health and what the node runs."""
