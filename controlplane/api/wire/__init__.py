"""Kubernetes' protobuf: bodies from Go clients, and answers to those who prefer it to JSON.

`decode` and `encode` are about whole bodies: "k8s\\0" and a runtime.Unknown {typeMeta, raw}, in which `raw` is the
object's message. What the server sends in lists and watches is put together from such messages by `frames`.
Objects are their JSON form on either side; which message a kind is and which number a field has is in numbers.txt.
"""

from controlplane.api.wire.decoder import decode
from controlplane.api.wire.encoder import encode, envelope, enveloped, framed, message, message_of, sized
from controlplane.api.wire.table import MAGIC, MEDIA_TYPE

__all__ = [
    "MAGIC", "MEDIA_TYPE", "decode", "encode", "envelope", "enveloped", "framed", "message", "message_of", "sized",
]  # fmt: skip
