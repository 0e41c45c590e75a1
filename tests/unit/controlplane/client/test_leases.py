import asyncio

import pytest

from controlplane.client import LeaderElector, LeadershipLost, Unreachable
from controlplane.client.fake import FakeAPI


def elector(api: FakeAPI, identity: str, **settings: object) -> LeaderElector:
    return LeaderElector(api.client(), "job", identity=identity, **settings)  # type: ignore[arg-type]


def holder(api: FakeAPI) -> str:
    lease = api.get("leases", "job", "kube-system", "coordination.k8s.io")
    return str(lease["spec"]["holderIdentity"]) if lease else ""


async def forever() -> None:
    await asyncio.Event().wait()


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_free_lease_is_taken_at_once_and_given_back(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for identity in ("a", "b"):
            one = elector(api, identity)
            task = asyncio.create_task(one.run(forever))
            await eventually(lambda one=one: one.is_leader)
            assert holder(api) == identity
            await stop(task)
            assert holder(api) == ""
        assert loop.time() - start < 0.1

    virtual(main())


def test_the_second_leads_when_the_first_dies_silently(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = elector(api, "a"), elector(api, "b")
        task = asyncio.create_task(first.run(forever))
        await eventually(lambda: first.is_leader)
        other = asyncio.create_task(second.run(forever))
        await asyncio.sleep(120)
        assert not second.is_leader
        first._release = lambda: asyncio.sleep(0)  # type: ignore[method-assign]  # killed, not stopped
        await stop(task)
        died = loop.time()
        await eventually(lambda: second.is_leader)
        assert 10 < loop.time() - died < 20
        lease = api.get("leases", "job", "kube-system", "coordination.k8s.io")
        assert lease["spec"]["leaseTransitions"] == 1
        await stop(other)

    virtual(main())


def test_the_same_identity_has_its_lease_back_at_once(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        first, second = elector(api, "a"), elector(api, "a")
        task = asyncio.create_task(first.run(forever))
        await eventually(lambda: first.is_leader)
        first._release = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        await stop(task)
        again = asyncio.create_task(second.run(forever))
        await eventually(lambda: second.is_leader, seconds=0.1)
        await stop(again)

    virtual(main())


def test_who_cannot_renew_stops_before_another_may_start(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stopped: list[float] = []

        async def lead() -> None:
            try:
                await forever()
            finally:
                stopped.append(loop.time())

        one = elector(api, "a")
        task = asyncio.create_task(one.run(lead))
        await eventually(lambda: one.is_leader)
        await asyncio.sleep(60)
        assert not stopped
        api.offline, since = True, loop.time()
        with pytest.raises(LeadershipLost):
            await task
        assert 7 < stopped[0] - since < 12

    virtual(main())


def test_a_short_outage_does_not_matter(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        one = elector(api, "a")
        task = asyncio.create_task(one.run(forever))
        await eventually(lambda: one.is_leader)
        for _ in range(5):
            api.fail(Unreachable("reset"), times=3)
            await asyncio.sleep(10)
        assert one.is_leader
        await stop(task)

    virtual(main())


def test_work_that_ends_or_fails_ends_the_election(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        async def broken() -> None:
            raise KeyError("a bug")

        await elector(api, "a").run(lambda: asyncio.sleep(1))
        with pytest.raises(KeyError):
            await elector(api, "a").run(broken)
        assert holder(api) == ""
        await elector(api, "a", enabled=False).run(lambda: asyncio.sleep(1))
        assert holder(api) == ""

    virtual(main())
