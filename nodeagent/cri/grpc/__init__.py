"""gRPC over HTTP/2 in the clear, on a Unix socket: as much of it as the CRI needs, both sides.

Bytes in, bytes out; what they mean is ../codec.py's business. h2 does HTTP/2's frames. Sources: grpc's
doc/PROTOCOL-HTTP2.md and doc/statuscodes.md.
"""
