"""An operator as people write them with kopf; run by test_custom_clients.py as a process of its own.

A Greeting gets a ConfigMap of its own, a timer counts in its status, and its finalizer says good-bye.
"""

from typing import Any

import kopf
from kubernetes import client, config

config.load_kube_config()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.persistence.finalizer = "demo.example.com/kopf"
    settings.posting.enabled = True


@kopf.on.create("demo.example.com", "v1", "greetings")
def create(spec: Any, name: str, namespace: str, **_: Any) -> dict[str, str]:
    body = {"metadata": {"name": f"{name}-words"}, "data": {"text": spec["text"]}}
    kopf.adopt(body)
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
    return {"made": f"{name}-words"}


@kopf.on.update("demo.example.com", "v1", "greetings", field="spec.text")
def update(new: str, name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().patch_namespaced_config_map(f"{name}-words", namespace, {"data": {"text": new}})


@kopf.timer("demo.example.com", "v1", "greetings", interval=0.2)
def count(status: Any, patch: Any, **_: Any) -> None:
    patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.on.delete("demo.example.com", "v1", "greetings")
def delete(name: str, namespace: str, **_: Any) -> None:
    body = {"metadata": {"name": f"{name}-farewell"}}
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
