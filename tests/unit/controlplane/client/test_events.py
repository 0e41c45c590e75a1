import asyncio

from controlplane.client import Unreachable
from controlplane.client.events import Recorder
from controlplane.client.fake import FakeAPI


def test_events_are_written_and_repeated_ones_counted(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        pod = api.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}})
        recorder = Recorder(api.client(), "tester", "host-1")
        task = asyncio.create_task(recorder.run())
        for _ in range(3):
            recorder.event(pod, "Warning", "Failed", "it did not work")
        recorder.event(pod, "Normal", "Started", "it works")
        api.fail(Unreachable("away"), times=2)
        await recorder.drain(30)
        task.cancel()
        events = {e["reason"]: e for e in api.all("events", "ns")}
        assert events["Failed"]["count"] == 3
        assert events["Started"]["count"] == 1
        assert events["Failed"]["involvedObject"]["uid"] == pod["metadata"]["uid"]
        assert events["Failed"]["source"] == {"component": "tester", "host": "host-1"}

    virtual(main())


def test_a_noisy_object_is_silenced_and_a_full_queue_drops(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        pod = api.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}})
        recorder = Recorder(api.client(), "tester")
        for i in range(5000):
            recorder.event(pod, "Normal", "Noise", f"number {i}")
        assert recorder.dropped == 5000 - 4096
        task = asyncio.create_task(recorder.run())
        await recorder.drain(30)
        assert len(api.all("events")) == 25
        await asyncio.sleep(301)
        recorder.event(pod, "Normal", "Noise", "later")
        await recorder.drain(30)
        task.cancel()
        assert len(api.all("events")) == 26

    virtual(main())
