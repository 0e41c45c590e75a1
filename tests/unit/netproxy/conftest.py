"""A packet tracer over rule text: follows one packet through iptables rules as the kernel would.

It understands the matches that our rules use and fails on any other, so that no test passes by ignoring a condition.
`random` matches take the decision that the test prescribes.
"""

import ipaddress
import shlex
from dataclasses import dataclass, field

import pytest

MODULES = {"comment", "conntrack", "mark", "addrtype", "statistic", "recent", "tcp", "udp", "sctp", "set", "icmp"}


@dataclass
class Packet:
    """A new connection's first packet. `came_from`: outside, pod or local (made on this node)."""

    src: str
    dst: str
    dport: int
    protocol: str = "tcp"
    came_from: str = "pod"


@dataclass
class Fate:
    """`end`: delivered (`to`), refused or dropped. `path`: the chains walked."""

    end: str
    to: str = ""
    masqueraded: bool = False
    path: list = field(default_factory=list)


class Tracer:
    def __init__(self, text, jumps, local_ips=("10.77.0.11", "127.0.0.1"), ipvs=None):
        """`ipvs`: an ipvs State, whose virtual servers and sets are in the kernel beside the rules."""
        self.chains = {}
        self.ipvs = ipvs
        self.local_ips = {*local_ips, *(ipvs.addresses if ipvs else ())}
        self.feed(text)
        for jump in jumps:
            chain = self.chains.setdefault((jump.table, jump.source), [])
            chain.insert(0, shlex.split(jump.rule))

    def feed(self, text):
        """Take in a restore file as iptables-restore --noflush would."""
        table = None
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                self.chains[table, line[1:].split()[0]] = []
            elif line.startswith(("-A ", "-I ", "-D ")):
                action, chain, rest = line.split(" ", 2)
                rules = self.chains[table, chain]
                if action == "-A":
                    rules.append(shlex.split(rest))
                elif action == "-I":
                    rules.insert(0, shlex.split(rest))
                else:
                    rules.remove(shlex.split(rest))
            elif line.startswith("-X "):
                chain = line.split()[1]
                assert not self.chains.pop((table, chain)), f"{chain} is deleted but not empty"
                users = [k for k, rules in self.chains.items() if k[0] == table for r in rules if chain in r]
                assert not users, f"{chain} is deleted but used by {users}"
            else:
                assert line == "COMMIT", line

    def send(self, packet, pick=0, recent=()):
        """The fate of `packet`. `pick`: which of several endpoints chance chooses (0 = the first). `recent`: names of
        the lists that the client is in."""
        self.packet, self.pick, self.recent = packet, pick, recent
        self.marked, self.dnat, self.path = False, "", []
        self._walk("nat", "OUTPUT" if packet.came_from == "local" else "PREROUTING")
        if packet.came_from == "local":
            hook = "OUTPUT"
            fate = self._through_ipvs()  # before filter's OUTPUT, but after its INPUT
            if fate:
                return fate
        else:
            hook = "INPUT" if self._destination()[0] in self.local_ips else "FORWARD"
        verdict = self._walk("filter", hook)
        if verdict in ("REJECT", "DROP"):
            return Fate({"REJECT": "refused", "DROP": "dropped"}[verdict], path=self.path)
        if hook == "INPUT":
            fate = self._through_ipvs()
            if fate:
                return fate
        masqueraded = self._walk("nat", "POSTROUTING") == "MASQUERADE"
        return Fate("delivered", self.dnat or f"{packet.dst}:{packet.dport}", masqueraded, self.path)

    def _through_ipvs(self):
        """Rewrite the destination if there is a virtual server; a Fate if nobody is behind it."""
        if self.ipvs is None:
            return None
        key = (self.packet.dst, self.packet.dport, self.packet.protocol.upper())
        if key not in self.ipvs.servers:
            return None
        targets = [target for target, weight in self.ipvs.destinations[key].items() if weight]
        if not targets:
            return Fate("refused", path=self.path)
        self.dnat = str(targets[self.pick % len(targets)])
        return None

    def _in_set(self, name, directions):
        ip, port = self._destination()
        values = {"dst": [ip, f"{self.packet.protocol}:{port}"], "src": [self.packet.src]}
        member = values["dst"] if directions != "src,dst" else [self.packet.src, values["dst"][1]]
        member = member + [self.packet.src] * (directions == "dst,dst,src")
        if directions == "dst":
            member = [str(port)] if any(m.isdigit() for m in self.ipvs.members[name]) else [ip]
        for found in self.ipvs.members[name]:
            parts = found.split(",")
            last = ipaddress.ip_network(parts[-1]) if len(parts) == 3 else None
            if parts[:2] == member[:2] and (last is None or ipaddress.ip_address(member[2]) in last):
                return True
        return False

    def spread(self, packet):
        """The set of destinations that chance can choose."""
        return {self.send(packet, pick).to for pick in range(20)}

    def _destination(self):
        ip, _, port = (self.dnat or f"{self.packet.dst}:{self.packet.dport}").rpartition(":")
        return ip, int(port)

    def _walk(self, table, chain):
        self.path.append(chain)
        self.skips = 0 if chain.startswith(("KUBE-SVC-", "KUBE-SVL-")) else getattr(self, "skips", 0)
        for rule in self.chains.get((table, chain), ()):
            target, rest = self._match(rule)
            if target is None:
                continue
            if target == "RETURN":
                return None
            if target == "MARK":
                self.marked = rest[0] == "--or-mark"
                continue
            if target == "DNAT":
                self.dnat = rest[1]
                return "DNAT"
            if target in ("ACCEPT", "DROP", "REJECT", "MASQUERADE"):
                return target
            verdict = self._walk(table, target)
            if verdict:
                return verdict
        return None

    def _match(self, words):
        """(target, its arguments) if the rule's conditions hold, else (None, ())."""
        words, holds, negate = list(words), True, False
        ip, port = self._destination()
        while words:
            word = words.pop(0)
            if word == "!":
                negate = True
                continue
            if word == "-j":
                return (words[0], words[1:]) if holds else (None, ())
            if word == "-m":
                module = words.pop(0)
                assert module in MODULES, module
                continue
            if word == "--match-set":
                is_so = self._in_set(words.pop(0), words.pop(0))
                holds = holds and (is_so != negate)
                negate = False
                continue
            value = words.pop(0) if words and not word.startswith(("--rcheck", "--reap", "--set")) else ""
            if word in ("--comment", "--mode", "--seconds"):
                continue
            if word == "-s":
                is_so = ipaddress.ip_address(self.packet.src) in ipaddress.ip_network(value)
            elif word == "-d":
                is_so = ipaddress.ip_address(ip) in ipaddress.ip_network(value)
            elif word == "-p":
                is_so = value == self.packet.protocol
            elif word == "--dport":
                is_so = int(value) == port
            elif word == "--ctstate":
                states = {"NEW", "DNAT"} if self.dnat else {"NEW"}
                is_so = bool(states & set(value.split(",")))
            elif word == "--mark":
                is_so = self.marked
            elif word == "--dst-type":
                is_so = ip in self.local_ips
            elif word == "--src-type":
                is_so = self.packet.came_from == "local"
            elif word == "--icmp-type":
                is_so = self.packet.protocol == "icmp"
            elif word == "--probability":
                is_so = self.skips == self.pick
                self.skips += 1
            elif word == "--rcheck":
                name = words[words.index("--name") + 1] if "--name" in words else self.name
                is_so = name in self.recent
            elif word == "--name":
                self.name = value
                continue
            elif word in ("--reap", "--set"):
                continue
            else:
                raise AssertionError(f"the tracer does not know {word}")
            holds = holds and (is_so != negate)
            negate = False
        raise AssertionError("a rule without a target")


@pytest.fixture
def tracer():
    return Tracer


@pytest.fixture
def packet():
    return Packet
