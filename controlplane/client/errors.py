"""Failures below HTTP. What the API server *answers* is `controlplane.api.status.StatusError`."""


class Unreachable(Exception):
    """No answer: connection refused, reset, timed out, TLS failed, or the peer broke HTTP. The request may have
    been carried out all the same when the connection broke after sending; the caller decides whether to repeat it."""


class ConfigurationError(Exception):
    """A kubeconfig (or a file that it names) cannot be used; the message names it."""
