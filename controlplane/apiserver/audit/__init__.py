"""The audit log: who asked for what, and what came of it, as JSON lines (audit.k8s.io/v1).

    policy.py   how much of which request is told (pure)
    events.py   one request as an Event (pure)
    sink.py     the file: written behind the requests, in batches, rotated
    filter.py   the two places in a request's way where it is told

Without `--audit-log-path` none of it is in the way of a request.
"""
