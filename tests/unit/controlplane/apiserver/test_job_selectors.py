"""A Job's selector: made by the server, refused when it contradicts, the user's own with manualSelector."""

from typing import Any

JOBS = "/apis/batch/v1/namespaces/default/jobs"
UID, NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"


def job(labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": labels or {}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"},
    }
    return {"metadata": {"name": "j"}, "spec": {"template": template, **spec}}


def causes(answer: Any) -> list[tuple[str, str]]:
    return [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]


async def test_selector_and_labels_are_made(api: Any) -> None:
    made = await api.ok("POST", JOBS, job({"mine": "x"}))
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {UID: uid}}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "mine": "x", UID: uid, "controller-uid": uid, NAME: "j", "job-name": "j",
    }  # fmt: skip
    owned = repr(made["metadata"]["managedFields"])
    assert "f:mine" in owned and "f:selector" not in owned


async def test_a_generated_name_is_in_the_labels(api: Any) -> None:
    wanted = job()
    wanted["metadata"] = {"generateName": "many-"}
    made = await api.ok("POST", JOBS, wanted)
    assert made["spec"]["template"]["metadata"]["labels"][NAME] == made["metadata"]["name"]


async def test_what_contradicts_is_refused(api: Any) -> None:
    answer = (await api("POST", JOBS, job({"job-name": "other"}))).body
    assert causes(answer) == [
        ("spec.template.metadata.labels[job-name]", answer["details"]["causes"][0]["message"]),
    ]
    assert answer["details"]["causes"][0]["message"].endswith("must be 'j'")
    answer = (await api("POST", JOBS, job(selector={"matchLabels": {"a": "b"}}))).body
    assert [field for field, _ in causes(answer)] == ["spec.template.metadata.labels", "spec.selector"]
    assert causes(answer)[1][1].endswith("`selector` not auto-generated")


async def test_a_selector_of_the_users_own(api: Any) -> None:
    chosen = {"matchLabels": {"a": "b"}}
    made = await api.ok("POST", JOBS, job({"a": "b"}, manualSelector=True, selector=chosen))
    assert made["spec"]["selector"] == chosen
    assert made["spec"]["template"]["metadata"]["labels"] == {"a": "b"}
    missing = job({"a": "b"}, manualSelector=True)
    missing["metadata"]["name"] = "k"
    answer = (await api("POST", JOBS, missing)).body
    assert causes(answer) == [("spec.selector", "Required value")]


async def test_a_cron_job_leaves_it_to_its_jobs(api: Any) -> None:
    spec = job(manualSelector=True, selector={"matchLabels": {"a": "b"}})["spec"]
    wanted = {"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}}
    answer = (await api("POST", "/apis/batch/v1/namespaces/default/cronjobs", wanted)).body
    assert [field for field, _ in causes(answer)] == [
        "spec.jobTemplate.spec.selector", "spec.jobTemplate.spec.manualSelector",
    ]  # fmt: skip
