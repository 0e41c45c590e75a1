"""Webhooks: Mutating ones are asked one after the other and may patch the object, Validating ones all at once.

What a webhook that cannot be asked means is its failurePolicy's. Source: k8s.io/apiserver/pkg/admission/plugin/webhook
(generic, mutating, validating), the wording included.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api import defaults, patch, status
from controlplane.api.apply.entries import plain
from controlplane.api.cel.environment import CompileError, EvaluationError
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource, ResourceTable
from controlplane.api.status import StatusError, quote
from controlplane.api.validate import decode_checked
from controlplane.apiserver.admission.dynamic import calls, expressions, question
from controlplane.apiserver.admission.dynamic.calls import Answer
from controlplane.apiserver.admission.dynamic.changing import put
from controlplane.apiserver.admission.dynamic.matching import Constraints
from controlplane.apiserver.admission.notes import Notes
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.generic import Attributes
from controlplane.apiserver.webhook_client import Caller, CallFailed
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of a configuration, compiled."""

    configuration: str
    config: Object
    constraints: Constraints

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def fails_open(self) -> bool:
        return self.config.get("failurePolicy") == "Ignore"

    @property
    def timeout_s(self) -> float:
        return float(self.config.get("timeoutSeconds", 10))

    @property
    def has_side_effects(self) -> bool:
        return self.config.get("sideEffects") not in ("None", "NoneOnDryRun")


def compiled(configuration: Object) -> list[Hook]:
    """The webhooks of a Mutating- or ValidatingWebhookConfiguration."""
    name = configuration["metadata"]["name"]
    return [Hook(name, hook, Constraints.of(hook)) for hook in configuration.get("webhooks") or ()]


class Webhooks:
    """Asks webhooks. `table` is set again when resources come and go."""

    def __init__(
        self, cache: WatchCache, table: ResourceTable, authz: Authorizer, definitions: Definitions, caller: Caller
    ) -> None:
        self._cache = cache
        self.table = table
        self._authz = authz
        self._definitions = definitions
        self._caller = caller

    async def mutate(self, hooks: Sequence[Hook], a: Attributes, notes: Notes) -> None:
        """Let every webhook change the object in turn; those that want to see what later ones did, once more."""
        again: list[tuple[Hook, Object | None]] = []
        for hook in hooks:
            resource = self._concerned(hook, a)
            if resource is None:
                continue
            await self._ask(hook, resource, a, notes, may_patch=True)
            if hook.config.get("reinvocationPolicy") == "IfNeeded":
                again.append((hook, _snapshot(a.new)))
        for hook, seen in again:
            if a.new is not None and plain(a.new) != seen and (resource := self._concerned(hook, a)) is not None:
                await self._ask(hook, resource, a, notes, may_patch=True)

    async def validate(self, hooks: Sequence[Hook], a: Attributes, notes: Notes) -> None:
        """Ask every webhook; raises the first refusal."""
        concerned = [(hook, resource) for hook in hooks if (resource := self._concerned(hook, a)) is not None]
        asked = [self._ask(hook, resource, a, notes, may_patch=False) for hook, resource in concerned]
        if len(asked) == 1:
            await asked[0]
            return
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _concerned(self, hook: Hook, a: Attributes) -> Resource | None:
        """The version as which a webhook wants to see the operation. Raises StatusError if that cannot be decided."""
        resource = hook.constraints.match(a, self.table, self._cache)
        conditions = hook.config.get("matchConditions")
        if resource is None or not conditions:
            return resource
        with expressions.authorizing(self._authz, a.user) as authorizer:
            known = {
                "object": question.shown(a.new, a, resource), "oldObject": question.shown(a.old, a, resource),
                "request": question.request_of(a, resource), "authorizer": authorizer,
            }  # fmt: skip
            try:
                return resource if expressions.first_false(conditions, expressions.Variables(known)) is None else None
            except (EvaluationError, CompileError) as error:
                if hook.fails_open:
                    return None
                text = f"match conditions evaluated to error: {error}"
                raise status.forbidden_object(a.resource.group_resource, a.name, text) from None

    async def _ask(self, hook: Hook, resource: Resource, a: Attributes, notes: Notes, *, may_patch: bool) -> None:
        if a.dry_run and hook.has_side_effects:
            raise status.bad_request(f"admission webhook {quote(hook.name)} does not support dry run")
        try:
            answer = await self._answer(hook, resource, a, may_patch=may_patch)
            if answer.patch is not None and a.new is not None and answer.allowed:
                self._change(hook, answer.patch, resource, a)
        except CallFailed as error:
            log.warning("webhook=%s configuration=%s failed error=%s", hook.name, hook.configuration, error)
            if hook.fails_open:
                return
            raise status.internal(f"failed calling webhook {quote(hook.name)}: {error}") from None
        for warning in answer.warnings:
            notes.warn(warning)
        for key, value in answer.annotations.items():
            notes.annotate(f"{hook.name}/{key}", value)
        if not answer.allowed:
            raise refusal(hook.name, answer.status)

    async def _answer(self, hook: Hook, resource: Resource, a: Attributes, *, may_patch: bool) -> Answer:
        version = calls.version_for(hook.config)
        request = question.request_of(a, resource)
        request["object"] = question.shown(a.new, a, resource)
        request["oldObject"] = question.shown(a.old, a, resource)
        body = calls.review(version, request)
        answer = await self._caller.post(hook.config["clientConfig"], body, hook.timeout_s)
        return calls.read(answer, version, request["uid"], may_patch=may_patch)

    def _change(self, hook: Hook, operations: list[Any], resource: Resource, a: Attributes) -> None:
        """Apply a webhook's patch to the operation's object, in place. Raises StatusError 500, CallFailed."""
        assert a.new is not None
        before = question.shown(a.new, a, resource)
        assert before is not None
        try:
            after = patch.json_patch(before, operations)
            if a.subresource == "scale":
                raise CallFailed("a scale cannot be changed by webhooks")
            if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
                raise CallFailed("the patch leaves no object")
            after = _own(after)
            if resource is not a.resource:
                from controlplane.api import convert

                after = convert.convert(after, a.resource.api_version)
            if not a.subresource or a.subresource == "status":
                after, _ = decode_checked(a.resource, after, "Ignore", definitions=self._definitions)
                defaults.apply(a.resource, after)
        except StatusError as error:
            raise status.internal(f"failed to apply patch of webhook {quote(hook.name)}: {error.message}") from None
        put(a.new, after)


def _own(obj: Object) -> Object:
    import msgspec

    copy: Object = msgspec.json.decode(msgspec.json.encode(obj))
    return copy


def _snapshot(obj: Object | None) -> Object | None:
    return None if obj is None else _own(obj)


def refusal(name: str, result: Object) -> StatusError:
    """The error for a webhook that does not allow an operation (apiserver: errors.ToStatusErr)."""
    text = f"admission webhook {quote(name)} denied the request"
    if result.get("message"):
        text = f"{text}: {result['message']}"
    elif result.get("reason"):
        text = f"{text}: {result['reason']}"
    else:
        text = f"{text} without explanation"
    code = result.get("code")
    details = result.get("details")
    return StatusError(
        code if isinstance(code, int) and 400 <= code < 600 else 400,
        str(result.get("reason") or ""),
        text,
        details if isinstance(details, dict) else None,
    )
