"""Which of the forms that we can make does a client like best? The Accept header, read as Kubernetes reads it.

Choices are tried by their weight (q), exact types before wildcards, and the first one that can be served wins. A choice
whose parameters ask for something we cannot make (another `as`, a stream that is no watch) does not count, whatever its
weight. No header means JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from controlplane.api import status
from controlplane.api.wire import MEDIA_TYPE as PROTOBUF
from controlplane.apiserver.http import JSON

YAML = "application/yaml"
_META = "meta.k8s.io"
CACHED_LENGTH = 300  # longer headers are parsed each time, so that nobody can fill the cache's memory


class Offer(NamedTuple):
    """What an endpoint can make."""

    protobuf: bool = True
    """Its kind has a protobuf message."""
    yaml: bool = True
    """Not for streams."""
    forms: tuple[str, ...] = ()
    """Of meta.k8s.io: Table, PartialObjectMetadata, PartialObjectMetadataList."""

    @property
    def media_types(self) -> tuple[str, ...]:
        """In the order in which Kubernetes prefers and names them."""
        return (JSON, *((YAML,) if self.yaml else ()), *((PROTOBUF,) if self.protobuf else ()))


@dataclass(frozen=True, slots=True)
class Choice:
    """`form`: "" for the object itself, or one of the offer's; `version`: that form's, v1 or v1beta1."""

    media_type: str = JSON
    form: str = ""
    version: str = "v1"
    pretty: bool = False


_PLAIN = Choice()


class _Clause(NamedTuple):
    type: str
    subtype: str
    weight: float
    parameters: dict[str, str]


def negotiate(accept: str, offer: Offer) -> Choice:
    """Raises StatusError 406 if nothing that `accept` allows can be made."""
    if not accept or accept == JSON:
        return _PLAIN
    found = _known(accept, offer) if len(accept) <= CACHED_LENGTH else _choose(accept, offer)
    if found is None:
        raise status.not_acceptable(offer.media_types)
    return found


def prefers(accept: str, media_type: str, offer: Offer) -> bool:
    """Whether a plain object would be sent as `media_type`."""
    if media_type.rpartition("/")[2] not in accept and "*" not in accept:
        return False
    found = _known(accept, offer) if len(accept) <= CACHED_LENGTH else _choose(accept, offer)
    return found is not None and found.media_type == media_type


def _choose(accept: str, offer: Offer) -> Choice | None:
    for clause in _clauses(accept):
        for media_type in offer.media_types:
            kind, _, subtype = media_type.partition("/")
            if clause.type in (kind, "*") and clause.subtype in (subtype, "*"):
                choice = _served(clause.parameters, media_type, offer.forms)
                if choice is not None:
                    return choice
    return None


_known = lru_cache(maxsize=1024)(_choose)


def _served(parameters: dict[str, str], media_type: str, forms: Sequence[str]) -> Choice | None:
    if parameters.get("stream", "watch") != "watch":
        return None
    form, group, version = parameters.get("as", ""), parameters.get("g", ""), parameters.get("v", "")
    pretty = parameters.get("pretty") == "1"
    if not form:
        return Choice(media_type, pretty=pretty)
    if group != _META or version not in ("v1", "v1beta1") or form not in forms:
        return None
    if form == "Table" and media_type == PROTOBUF:
        return None  # a Table has no message
    return Choice(media_type, form, version, pretty)


def _clauses(accept: str) -> list[_Clause]:
    """By weight, then exact before wildcard, else as they were written. Weight 0 is a refusal."""
    found = []
    for text in accept.split(","):
        media, *given = (part.strip() for part in text.split(";"))
        if not media:
            continue
        kind, _, subtype = media.lower().partition("/")
        pairs = (each.partition("=") for each in given)
        parameters = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 1.0
        if weight > 0:
            found.append(_Clause(kind, subtype or "*", weight, parameters))
    found.sort(key=lambda clause: (-clause.weight, clause.type == "*", clause.subtype == "*"))
    return found
