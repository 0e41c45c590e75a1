"""Talking to the API server: requests, watches, informers, work queues, leases, events.

Everything that is not the API server itself is a user of this package. See README.md for the map.
"""

from controlplane.client.errors import ConfigurationError, Unreachable
from controlplane.client.informer import Informer, key_of, split_key
from controlplane.client.leases import LeaderElector, LeadershipLost
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client, Obj, from_kubeconfig
from controlplane.client.workqueue import QueueClosed, WorkQueue

__all__ = [
    "ApiResource",
    "Client",
    "ConfigurationError",
    "Informer",
    "LeaderElector",
    "LeadershipLost",
    "Obj",
    "QueueClosed",
    "Unreachable",
    "WorkQueue",
    "from_kubeconfig",
    "key_of",
    "split_key",
]
