"""What can go wrong on a SPDY connection, and the numbers that say so on the wire (sections 2.6.3, 2.6.6)."""

from enum import IntEnum


class SpdyError(Exception):
    """Of this package."""


class ProtocolError(SpdyError):
    """The peer broke the protocol: the connection ends with a GOAWAY."""


class StreamError(SpdyError):
    """A stream is over before its end: reset by the peer, or its connection is lost."""


class Reset(IntEnum):
    """RST_STREAM's status codes that we send or tell apart."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_ALREADY_CLOSED = 9


class GoAway(IntEnum):
    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
