"""SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 and its 3.1 amendment), the server's side after an HTTP upgrade.

What kubectl and every client built on client-go speak for exec, attach and port-forward. `frames.py` is the wire,
`headers.py` the compressed header blocks, `connection.py` the multiplexing with its flow control, `stream.py` one
stream. It knows nothing of Kubernetes, opens no streams of its own and serves no HTTP inside.
"""
