"""A kernel that only remembers, with the real one's manners: it refuses what is there twice or not at all, and an
operation takes effect at `flush()`. tests/contract/test_ipvs_kernel.py holds both to the same.
"""

from __future__ import annotations

from collections.abc import Callable

from netproxy.backend import BackendError
from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import Key, Options, State, Target
from netproxy.ipvs.wire import Destination


class FakeKernel:
    """`connections`: how many are open to a destination, as a test says. `node`: this machine's own addresses.
    `log`: what was done, in order."""

    def __init__(self, node: tuple[str, ...] = ("10.77.0.11",)) -> None:
        self.state = State()
        self.connections: dict[tuple[Key, Target], int] = {}
        self.node = node
        self.interface = False
        self.timeouts = (0, 0, 0)
        self.log: list[str] = []
        self._queue: list[tuple[str, Callable[[], None]]] = []

    def open(self) -> None:
        self.interface = True

    def close(self) -> None:
        pass

    def flush(self) -> None:
        queue, self._queue = self._queue, []
        failed = []
        for what, work in queue:
            try:
                work()
                self.log.append(what)
            except KeyError:
                failed.append(what)
        if failed:
            raise BackendError(f"{failed[0]}: refused")

    def read(self) -> State:
        state = self.state
        destinations = {key: dict(state.destinations[key]) for key in state.servers}
        members = {name: set(found) for name, found in state.members.items()}
        return State(dict(state.servers), destinations, set(state.addresses), members)

    def servers(self) -> set[Key]:
        return set(self.state.servers)

    def destinations(self, key: Key) -> list[Destination]:
        found = self.state.destinations.get(key, {})
        return [Destination(t, weight, self.connections.get((key, t), 0)) for t, weight in found.items()]

    def set_sizes(self) -> dict[str, int]:
        return {name: len(members) for name, members in self.state.members.items()}

    def addresses(self) -> tuple[set[str], tuple[str, ...]]:
        return set(self.state.addresses), self.node

    def set_timeouts(self, tcp_s: int, tcp_fin_s: int, udp_s: int) -> None:
        self.timeouts = (tcp_s, tcp_fin_s, udp_s)

    def add_server(self, key: Key, options: Options) -> None:
        def work() -> None:
            _new(self.state.servers, key)
            self.state.servers[key], self.state.destinations[key] = options, {}

        self._later(f"+ {key} {options}", work)

    def set_server(self, key: Key, options: Options) -> None:
        def work() -> None:
            self.state.servers[key]
            self.state.servers[key] = options

        self._later(f"= {key} {options}", work)

    def remove_server(self, key: Key) -> None:
        def work() -> None:
            del self.state.servers[key], self.state.destinations[key]

        self._later(f"- {key}", work)

    def add_destination(self, key: Key, target: Target, weight: int) -> None:
        def work() -> None:
            _new(self.state.destinations[key], target)
            self.state.destinations[key][target] = weight

        self._later(f"+ {key} -> {target} {weight}", work)

    def set_destination(self, key: Key, target: Target, weight: int) -> None:
        def work() -> None:
            self.state.destinations[key][target]
            self.state.destinations[key][target] = weight

        self._later(f"= {key} -> {target} {weight}", work)

    def remove_destination(self, key: Key, target: Target) -> None:
        def work() -> None:
            del self.state.destinations[key][target]

        self._later(f"- {key} -> {target}", work)

    def add_address(self, ip: str) -> None:
        def work() -> None:
            _new(self.state.addresses, ip)
            self.state.addresses.add(ip)

        self._later(f"+ {ip}", work)

    def remove_address(self, ip: str) -> None:
        self._later(f"- {ip}", lambda: self.state.addresses.remove(ip))

    def create_set(self, name: str) -> None:
        self.flush()
        if name in self.state.members or name not in SETS:
            raise BackendError(f"ipset create {name}: refused")
        self.state.members[name] = set()
        self.log.append(f"+ {name}")

    def destroy_set(self, name: str) -> None:
        self.flush()
        if name not in self.state.members:
            raise BackendError(f"ipset destroy {name}: refused")
        del self.state.members[name]
        self.log.append(f"- {name}")

    def add_member(self, name: str, member: str) -> None:
        def work() -> None:
            _new(self.state.members[name], member)
            self.state.members[name].add(member)

        self._later(f"+ {name} {member}", work)

    def remove_member(self, name: str, member: str) -> None:
        self._later(f"- {name} {member}", lambda: self.state.members[name].remove(member))

    def remove_interface(self) -> None:
        self.flush()
        self.interface = False
        self.state.addresses = set()

    def _later(self, what: str, work: Callable[[], None]) -> None:
        self._queue.append((what, work))


def _new(found: dict | set, item: object) -> None:  # type: ignore[type-arg]
    if item in found:
        raise KeyError(item)
