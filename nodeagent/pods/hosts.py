"""/etc/hosts, /etc/resolv.conf and the hostname of a pod. Pure: text from the spec and the node's settings.

Formats and precedence: kubelet's kubelet_pods.go (managed hosts file, GeneratePodHostNameAndDomain) and
network/dns/dns.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nodeagent.pods.model import Object

HEADER = "# Kubernetes-managed hosts file.\n"
MOST_HOSTNAME = 64  # the kernel's __NEW_UTS_LEN
MOST_NAMESERVERS, MOST_SEARCHES, MOST_SEARCH_CHARACTERS = 3, 32, 2048  # kubelet's, after glibc's
HEADER_HOST = "# Kubernetes-managed hosts file (host network).\n"


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """`node_resolv_conf` is the text of the node's own /etc/resolv.conf."""

    cluster_dns: Sequence[str] = ()
    cluster_domain: str = "cluster.local"
    node_resolv_conf: str = ""


@dataclass(slots=True)
class _Resolver:
    nameservers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


def hostname(pod: Object, cluster_domain: str) -> tuple[str, str]:
    """(hostname inside the pod, its domain or empty). A pod's name longer than 63 characters is cut."""
    spec, meta = pod["spec"], pod["metadata"]
    if spec.get("hostnameOverride"):
        return spec["hostnameOverride"], ""
    name = spec.get("hostname") or meta["name"][:63].rstrip("-.")
    domain = ""
    if spec.get("subdomain"):
        domain = f"{spec['subdomain']}.{meta.get('namespace', '')}.svc.{cluster_domain}"
    if spec.get("setHostnameAsFQDN") and domain:
        return f"{name}.{domain}", domain
    return name, domain


def hosts_file(pod: Object, ips: Sequence[str], cluster_domain: str, node_hosts: str = "") -> str:
    """The text of /etc/hosts. With the host's network it is the node's own file, plus hostAliases."""
    if pod["spec"].get("hostNetwork"):
        return HEADER_HOST + node_hosts + _aliases(pod)
    name, domain = hostname(pod, cluster_domain)
    short = name.partition(".")[0] if domain else name
    lines = [
        HEADER.rstrip("\n"),
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    lines += [f"{ip}\t{short}.{domain}\t{short}" if domain else f"{ip}\t{short}" for ip in ips]
    return "\n".join(lines) + "\n" + _aliases(pod)


def _aliases(pod: Object) -> str:
    aliases = pod["spec"].get("hostAliases") or ()
    if not aliases:
        return ""
    lines = [a["ip"] + "\t" + "\t".join(a.get("hostnames") or ()) for a in aliases]
    return "\n# Entries added by HostAliases.\n" + "\n".join(lines) + "\n"


def kernel_hostname(pod: Object, dns: DnsSettings) -> str:
    """The hostname to set. Raises ValueError in kubelet's words where the kernel has no room for it."""
    name, _ = hostname(pod, dns.cluster_domain)
    if len(name) > MOST_HOSTNAME:
        message = f"failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long "
        raise ValueError(f"{message}({MOST_HOSTNAME} characters is the max, {len(name)} characters requested)")
    return name


def resolv_conf(pod: Object, dns: DnsSettings) -> str:
    """The text of /etc/resolv.conf by dnsPolicy and dnsConfig, within the limits of resolvers. Without a cluster DNS,
    ClusterFirst is Default."""
    return limited_resolv_conf(pod, dns)[0]


def limited_resolv_conf(pod: Object, dns: DnsSettings) -> tuple[str, list[str]]:
    """The same, and what had to be left out, as messages for the user (event DNSConfigForming)."""
    resolver, problems = _resolver(pod, dns), []
    if len(resolver.nameservers) > MOST_NAMESERVERS:
        resolver.nameservers = resolver.nameservers[:MOST_NAMESERVERS]
        applied = " ".join(resolver.nameservers)
        message = "Nameserver limits were exceeded, some nameservers have been omitted, "
        problems.append(f"{message}the applied nameserver line is: {applied}")
    searches = resolver.searches[:MOST_SEARCHES]
    while len(" ".join(searches)) > MOST_SEARCH_CHARACTERS:
        searches.pop()
    if len(searches) < len(resolver.searches):
        resolver.searches = searches
        message = "Search Line limits were exceeded, some search paths have been omitted, "
        problems.append(f"{message}the applied search line is: {' '.join(searches)}")
    lines = []
    if resolver.searches:
        lines.append("search " + " ".join(resolver.searches))
    lines += [f"nameserver {server}" for server in resolver.nameservers]
    if resolver.options:
        lines.append("options " + " ".join(resolver.options))
    return ("\n".join(lines) + "\n" if lines else ""), problems


def _resolver(pod: Object, dns: DnsSettings) -> _Resolver:
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    resolver = _Resolver()
    if policy != "None":
        resolver = _parse(dns.node_resolv_conf)
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and dns.cluster_dns:
        namespace, domain = pod["metadata"].get("namespace", ""), dns.cluster_domain
        ours = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        searches = ours + [s for s in resolver.searches if s not in ours]
        resolver = _Resolver(list(dns.cluster_dns), searches, ["ndots:5"])
    extra = spec.get("dnsConfig") or {}
    resolver.nameservers = _unique([*resolver.nameservers, *(extra.get("nameservers") or ())])
    resolver.searches = _unique([*resolver.searches, *(extra.get("searches") or ())])
    options = {o.partition(":")[0]: o for o in resolver.options}
    for option in extra.get("options") or ():
        value = option.get("value")
        options[option["name"]] = option["name"] if value is None else f"{option['name']}:{value}"
    resolver.options = list(options.values())
    return resolver


def _parse(text: str) -> _Resolver:
    resolver = _Resolver()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            resolver.nameservers.append(words[1])
        elif words[0] == "search":
            resolver.searches = words[1:]
        elif words[0] == "options":
            resolver.options += words[1:]
    return resolver


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))
