"""The API server, put together: store → cache → registry → handlers, and the pipeline in front of them."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.api import resources as api_resources
from controlplane.api import status
from controlplane.api.definitions import load
from controlplane.api.resources import ResourceTable
from controlplane.apiserver import admission, garbage, pipeline
from controlplane.apiserver.admission.dynamic.matching import GROUP as POLICY_GROUP
from controlplane.apiserver.admission.dynamic.plugin import Dynamic
from controlplane.apiserver.admission.dynamic.strategy import PolicyStrategy
from controlplane.apiserver.admission.pod_security import PodSecurity
from controlplane.apiserver.admission.resource_quota import ResourceQuota
from controlplane.apiserver.aggregation import trust
from controlplane.apiserver.aggregation.aggregator import Aggregator
from controlplane.apiserver.aggregation.apiservices import Backend
from controlplane.apiserver.aggregation.availability import Published
from controlplane.apiserver.authn import Authenticator
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.authz.node import NodeAuthorizer
from controlplane.apiserver.authz.rbac import Rbac
from controlplane.apiserver.bootstrap import Bootstrap
from controlplane.apiserver.certificates import OwnCertificates
from controlplane.apiserver.config import Config
from controlplane.apiserver.customresources.served import CustomResources
from controlplane.apiserver.discovery import Discovery
from controlplane.apiserver.expiry import EventExpiry
from controlplane.apiserver.exposition import process
from controlplane.apiserver.flowcontrol.filter import FlowControl
from controlplane.apiserver.handlers import Handlers
from controlplane.apiserver.health import Check, Health
from controlplane.apiserver.http import HttpServer, Request, Response
from controlplane.apiserver.impersonation import Impersonation
from controlplane.apiserver.issuer import IssuerDiscovery
from controlplane.apiserver.node_proxy import NodeProxy
from controlplane.apiserver.observe import Observer
from controlplane.apiserver.openapi import OpenApi
from controlplane.apiserver.registry.codec import to_json
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.registry.migration import migrate
from controlplane.apiserver.registry.services import ServiceStrategy
from controlplane.apiserver.registry.storage_metrics import storage_metrics
from controlplane.apiserver.representation import represent
from controlplane.daemon import ConfigError, on_reload
from controlplane.store.cache import WatchCache
from controlplane.store.compactor import Compactor
from controlplane.store.interface import Store
from controlplane.store.memory import MemoryStore
from controlplane.systemd import on_liveness
from controlplane.tls import ServerTls
from pki.keys import load_key
from pki.tokens import Signer

if TYPE_CHECKING:
    from controlplane.apiserver.audit.filter import Audit

__all__ = ["ApiServer", "Config", "serve"]
log = logging.getLogger(__name__)


def open_store(url: str) -> Store:
    """Raises ValueError for a URL of an unknown kind."""
    if url == "memory:":
        return MemoryStore()
    kind, _, path = url.partition("://")
    if kind != "sqlite" or not path:
        raise ValueError(f"store {url!r}: use sqlite://<absolute path> or memory:")
    from controlplane.store.sqlite import SqliteStore

    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqliteStore(path)


def _audit(config: Config) -> "Audit | None":
    """The audit log, if there is to be one. Raises ConfigError."""
    if not config.audit_log_path:
        return None
    from controlplane.apiserver.audit.filter import Audit
    from controlplane.apiserver.audit.policy import PolicyError
    from controlplane.apiserver.audit.sink import Sink

    sink = Sink(
        config.audit_log_path, max_bytes=config.audit_log_maxsize << 20, max_backups=config.audit_log_maxbackup,
        max_age_days=config.audit_log_maxage,
    )  # fmt: skip
    try:
        return Audit(config.audit_policy_file, sink)
    except PolicyError as error:
        raise ConfigError(str(error)) from None


class ApiServer:
    """`await start()`, then `handle(request)` from any transport; `await stop()`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.definitions = load(config.kubernetes_version or None)
        self.table = api_resources.builtin(self.definitions)
        self.cache = WatchCache(open_store(config.store))
        self._ready = False
        self.observer = Observer()
        self._stopping = False
        self.health = Health(self.definitions.version, self._checks(), {
            "etcd-readiness": self.cache.trouble,
            "informer-sync": lambda: "" if self._ready else "the watch cache is being filled",
            "shutdown": lambda: "process is shutting down" if self._stopping else "",
        }, self._metrics)  # fmt: skip

    async def start(self) -> None:
        """Open the store, build everything on it, write what a new cluster needs."""
        config, cache = self.config, self.cache
        await cache.open()
        await migrate(cache, self.table)
        signer = Signer(load_key(Path(config.service_account_signing_key_file)), config.service_account_issuer)
        self.authn = Authenticator(cache, signer)
        self.audit = _audit(config)
        self.flow = FlowControl(cache, config.max_requests_in_flight)
        self.authz = Authorizer(Rbac(cache), NodeAuthorizer(cache))
        self.dynamic = Dynamic(cache, self.table, self.authz, self.definitions)
        admit = admission.chain([*admission.plugins(cache, self.authz), self.dynamic.mutate])
        self.registry = Registry(cache, self.definitions, admit)
        quotas = self.table.find("", "v1", "resourcequotas")
        assert quotas is not None
        self.dynamic.mutations.ownership = self.registry.ownership
        self.registry.review = admission.chain([
            PodSecurity(cache).admit, self.dynamic.validate, ResourceQuota(self.registry, quotas).admit
        ])  # fmt: skip
        policies = self.table.preferred(POLICY_GROUP, "validatingadmissionpolicies")
        if policies is not None:
            self.registry.set_strategy(policies, PolicyStrategy(policies))
        services = self.table.find("", "v1", "services")
        assert services is not None
        self.registry.set_strategy(
            services,
            ServiceStrategy(services, cache, config.service_cluster_ip_range, config.service_node_port_range),
        )
        self.nodes = NodeProxy(
            cache, config.kubelet_client_certificate, config.kubelet_client_key, config.kubelet_certificate_authority
        )
        self.discovery = Discovery(self.table, f"{config.advertise_address}:{config.secure_port}")
        self.openapi = OpenApi(self.definitions, self.table)
        self.issuer = IssuerDiscovery(signer, f"https://{config.advertise_address}:{config.secure_port}")
        self.handlers = Handlers(
            self.registry, self.table, self.authn, self.authz, self.nodes, self.observer.deprecated
        )
        self.custom = CustomResources(
            self.registry, self.table, self.definitions, self._publish, self.handlers.fanout.close,
            self.dynamic.caller,
        )
        self.aggregator = Aggregator(
            self.registry, self.table, config.kubelet_client_certificate, config.kubelet_client_key,
            self._publish_aggregated,
        )  # fmt: skip
        self.custom.sync()
        audit = self.audit
        # The way of every request, outermost first.
        self.handle = pipeline.chain(
            [
                represent,
                pipeline.ToTheEnd(config.request_timeout_seconds).filter,
                self.observer.filter,
                *([audit.finished] if audit else []),
                pipeline.with_errors,
                pipeline.with_request_info,
                self.authn.filter,
                Impersonation(self.authz).filter,
                *([audit.received] if audit else []),
                self.flow.filter,
                self.authz.filter,
            ],
            self._route,
        )
        service_address = str(ipaddress.ip_network(config.service_cluster_ip_range)[1])
        self.bootstrap = Bootstrap(self.registry, self.table)
        self._own = config.advertise_address, config.secure_port, service_address
        trusted = trust.config_map(config.client_ca_file)
        await self.bootstrap.run(*self._own, *((trusted,) if trusted else ()))
        await self.aggregator.start()
        self._ready = True

    def _publish(self, table: ResourceTable) -> None:
        """Serve these resources from now on."""
        self.table = self.handlers.table = self.discovery.table = self.openapi.table = table
        self.dynamic.serve(table)
        self.aggregator.serve(table)

    def _publish_aggregated(self, published: tuple[Published, ...]) -> None:
        self.discovery.publish(published)
        self.openapi.published = published

    def chores(self) -> list[asyncio.Task[None]]:
        """What goes on beside requests; cancel them before `stop`."""
        history = self.config.history_seconds
        compactor = Compactor(
            self.cache.store, retention_s=history, interval_s=min(max(history / 24, 1.0), 300.0),
            size=self._store_bytes, limit_bytes=self.config.history_bytes,
        )  # fmt: skip
        expiry = EventExpiry(self.cache, self.config.event_ttl_seconds)
        return [
            asyncio.create_task(compactor.run(), name="compaction"),
            asyncio.create_task(expiry.run(), name="expiry of events"),
            asyncio.create_task(self.bootstrap.keep(*self._own), name="own service"),
            asyncio.create_task(self.custom.run(), name="custom resources"),
            *([asyncio.create_task(self.audit.sink.run(), name="audit log")] if self.audit else []),
            asyncio.create_task(self.aggregator.run(), name="aggregated APIs"),
        ]

    async def stop(self) -> None:
        self._ready, self._stopping = False, True
        await self.nodes.close()
        if self.audit:
            await self.audit.sink.close()
        await self.dynamic.close()
        await self.aggregator.close()
        await self.cache.close()

    def _checks(self) -> dict[str, Check]:
        """Kubernetes' names, which probes know; "etcd" is the store, whichever it is."""
        starting = "not finished"
        hooks = ("rbac/bootstrap-roles", "start-system-namespaces-controller", "start-apiextensions-controllers",
                 "bootstrap-controller")  # fmt: skip
        return {
            "ping": lambda: "",
            "log": lambda: "",
            "etcd": self.cache.trouble,
            **{f"poststarthook/{hook}": (lambda: "" if self._ready else starting) for hook in hooks},
        }

    def _store_bytes(self) -> int:
        """What the embedded store takes on its disk; 0 for others."""
        path = self.config.store.removeprefix("sqlite://")
        with contextlib.suppress(OSError):
            return Path(path).stat().st_size
        return 0

    def _metrics(self) -> Iterator[str]:
        yield from self.observer.lines()
        yield from storage_metrics(self.cache, self.table, self._store_bytes())
        yield from self.handlers.fanout.metrics()
        yield from self.flow.metrics()
        yield from process()

    def _paths(self) -> list[str]:
        groups = [group for group in self.table.groups() if group]
        versions = [f"/apis/{group}/{version}" for group in groups for version in self.table.versions(group)]
        checks = [f"/{endpoint}/{name}" for endpoint, names in self.health.names().items() for name in names]
        return sorted([
            *IssuerDiscovery.PATHS, "/api", "/api/v1", "/apis", *(f"/apis/{group}" for group in groups), *versions,
            "/healthz", "/livez", "/readyz", *checks, "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3",
            "/version",
        ])  # fmt: skip

    def _aggregated(self, request: Request) -> Backend | None:
        """Who answers instead of us: for resources, discovery and OpenAPI of an aggregated API."""
        info = request.info
        if info.is_resource:
            return self.aggregator.backend(info.group, info.version) if info.group else None
        parts = request.path.removeprefix("/openapi/v3").rstrip("/").split("/")
        return self.aggregator.backend(parts[2], parts[3]) if len(parts) == 4 and parts[1] == "apis" else None

    async def _route(self, request: Request) -> Response:
        info = request.info
        backend = self._aggregated(request)
        if backend is not None:
            return await self.aggregator.forward(request, backend)
        if info.is_resource:
            return await self.handlers.resource(request)
        for answer in (self.discovery.answer, self.openapi.answer, self.health.answer, self.issuer.answer):
            response = answer(request)
            if response is not None:
                return response
        if request.path == "/":
            return Response(body=to_json({"paths": self._paths()}))
        if request.path.startswith(("/api/", "/apis/")):
            raise status.not_found()
        return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")


async def serve(config: Config, ready: Callable[[], None]) -> None:
    """Run until cancelled. Raises OSError if the port is taken, StoreError if the store cannot be used."""
    server = ApiServer(config)
    await server.start()
    tls = ServerTls(config.tls_cert_file, config.tls_private_key_file, config.client_ca_file, alpn=["http/1.1"])
    rotations = OwnCertificates(config, server.handle, tls.try_reload, server.nodes.reload)
    on_reload(tls.reload)
    on_reload(server.nodes.reload)
    if server.audit:
        on_reload(server.audit.reload)
    front = HttpServer(
        server.handle, max_body_bytes=config.max_request_body_bytes,
        first_request_s=config.first_request_timeout_seconds,
    )  # fmt: skip
    port = await front.start(config.bind_address, config.secure_port, tls.context)
    chores = [*server.chores(), *rotations.start(), asyncio.create_task(tls.follow(), name="certificate files")]
    log.info("serving address=%s port=%d version=%s", config.bind_address, port, server.definitions.version)
    forget = on_liveness(server.cache.trouble)
    garbage.settle()
    chores.append(asyncio.create_task(garbage.collect(), name="garbage"))
    ready()
    try:
        await asyncio.Event().wait()
    finally:
        forget()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        server.handlers.fanout.close()
        await front.stop()
        await server.stop()
