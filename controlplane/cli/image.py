"""`wherry image`: look at the images of nodes, bring some, take some away, make small ones.

Asks the node agent (nodeagent/images/door.py): in a lab those of all its nodes, or of the ones named; else the agent of
this machine. An archive is handed over as an open file, so it may be anywhere. Only root may.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from controlplane.cli.lab.spec import Lab
from pki.layout import DEFAULT

Message = dict[str, Any]
_NODE = click.option("--node", "-n", "nodes", multiple=True, help="Only this node of the lab (may be repeated).")


@click.group()
def image() -> None:
    """Images of the nodes: ls, pull, load, rm; build makes one from a folder."""


@image.command("ls")
@_NODE
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def list_(nodes: tuple[str, ...], output: str) -> None:
    """Which images there are, how large, and which are in use."""
    found: dict[str, Message] = {}
    for name, path in _doors(nodes):
        for answer in _ask(path, {"op": "ls"}):
            if "image" in answer:
                seen = found.setdefault(answer["image"]["id"], {**answer["image"], "nodes": []})
                seen["nodes"].append(name)
                seen["in_use"] = seen["in_use"] or answer["image"]["in_use"]
    images = sorted(found.values(), key=lambda i: (i["tags"] or ["~"], i["id"]))
    if output == "json":
        click.echo(json.dumps(images, indent=2))
        return
    rows = [("IMAGE", "ID", "SIZE", "NODES", "")]
    for each in images:
        notes = ", ".join(word for word in ("in use", "pinned") if each[word.replace(" ", "_")])
        for i, tag in enumerate(each["tags"] or each["digests"][:1] or ["<none>"]):
            first = (each["id"][7:19], _size(each["size"]), ",".join(each["nodes"]), notes)
            rows.append((tag, *(first if i == 0 else (each["id"][7:19], "", "", ""))))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@image.command()
@click.argument("reference")
@_NODE
@click.option("--user", help="NAME:PASSWORD for the registry; NAME alone asks for the password.")
def pull(reference: str, nodes: tuple[str, ...], user: str | None) -> None:
    """Fetch an image from its registry."""
    auth = []
    if user is not None:
        name, colon, password = user.partition(":")
        auth = [[name, password if colon else click.prompt("Password", hide_input=True), ""]]
    for name, path in _doors(nodes):
        _report(name, path, {"op": "pull", "reference": reference, "auth": auth})


@image.command()
@click.argument("archive", type=click.Path(exists=True, allow_dash=True))
@_NODE
def load(archive: str, nodes: tuple[str, ...]) -> None:
    """Import an OCI layout (tar or directory) or what `docker save` wrote; `-` reads a tar from standard input."""
    if archive != "-":
        _load(Path(archive), nodes)
        return
    with tempfile.NamedTemporaryFile(suffix=".tar") as copy:
        _copy(sys.stdin.buffer, copy)
        _load(Path(copy.name), nodes)


@image.command()
@click.argument("references", nargs=-1, required=True)
@_NODE
@click.option("--force", is_flag=True, help="Also if a pod uses it (running containers keep what they have).")
def rm(references: tuple[str, ...], nodes: tuple[str, ...], force: bool) -> None:
    """Remove images by name or id."""
    failed = False
    for name, path in _doors(nodes):
        for reference in references:
            failed |= not _report(name, path, {"op": "rm", "reference": reference, "force": force}, fatal=False)
    sys.exit(1 if failed else 0)


@image.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-t", "--tag", required=True, help="The image's name, e.g. site:1.")
@click.option("--entrypoint", default="", help="As in a shell: '/bin/server --port 80'.")
@click.option("--cmd", default="", help="As in a shell.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("-w", "--workdir", default="")
@click.option("-u", "--user", default="", help="Name or number, and group after a colon.")
@click.option("--stop-signal", default="")
@click.option("--volume", multiple=True, metavar="PATH")
@click.option("--busybox", is_flag=True, help="Put this machine's static busybox and its applets under the folder.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a tar, load nothing.")
@_NODE
def build(
    folder: Path, tag: str, entrypoint: str, cmd: str, env: tuple[str, ...], workdir: str, user: str, stop_signal: str,
    volume: tuple[str, ...], busybox: bool, output: Path | None, nodes: tuple[str, ...],
) -> None:  # fmt: skip
    """Make a small image of what is in FOLDER (one layer, owned by root) and load it. Nothing is run inside."""
    from nodeagent.images import build as builder
    from nodeagent.runtime.interface import ImageConfig, RuntimeFailure

    if bad := [text for text in env if "=" not in text[1:]]:
        _fail(f"not NAME=VALUE: {bad[0]!r}")
    path = () if any(text.startswith("PATH=") for text in env) else (builder.PATH,)
    config = ImageConfig(
        tuple(shlex.split(entrypoint)), tuple(shlex.split(cmd)), (*path, *env), workdir, user, stop_signal, volume
    )
    with tempfile.TemporaryDirectory() as scratch:
        target = output or Path(scratch) / "image.tar"
        try:
            entries = {entry.path: entry for entry in builder.busybox_tree()} if busybox else {}
            entries |= {entry.path: entry for entry in builder.directory(folder)}
            id_ = builder.build(target, entries.values(), config, tag)
        except (OSError, RuntimeFailure) as error:
            _fail(str(error))
        click.echo(f"{id_}  {_size(target.stat().st_size)}")
        if output is None:
            _load(target, nodes)


def _load(path: Path, nodes: Sequence[str]) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        for name, door in _doors(nodes):
            _report(name, door, {"op": "load", "name": path.name}, [fd])
    finally:
        os.close(fd)


def _copy(source: IO[bytes], target: Any) -> None:
    shutil.copyfileobj(source, target)
    target.flush()


# --- whom to ask ------------------------------------------------------------------------------------------------------


def _doors(nodes: Sequence[str]) -> list[tuple[str, Path]]:
    """(node's name, its socket) of those that are meant and up."""
    context = click.get_current_context()
    name = context.find_root().params.get("lab") or ""
    try:
        lab = Lab.saved(name)
    except (PermissionError, ValueError) as error:
        _fail(str(error), "run it as root: sudo wherry image …")
    found = {node.name: node.layout.images_socket for node in lab.nodes} if lab else {}
    if unknown := [node for node in nodes if node not in found]:
        _fail(f"no node {unknown[0]!r} in this lab", "its nodes: " + (", ".join(found) or "there is no lab"))
    try:
        doors = [(node, path) for node, path in found.items() if path.exists() and (not nodes or node in nodes)]
        if not doors and not nodes and DEFAULT.images_socket.exists():
            doors = [("this machine", DEFAULT.images_socket)]
    except PermissionError as error:
        _fail(f"{error.filename}: for root only", "run it as root: sudo wherry image …")
    if not doors:
        _fail("no node agent runs here", "a lab: wherry up; a machine: systemctl start wherry-nodeagent")
    return doors


def _ask(path: Path, message: Message, fds: Sequence[int] = ()) -> Iterator[Message]:
    """The answers, until there are no more."""
    from nodeagent.runtime import wire

    try:
        sock = wire.connect(str(path))
    except PermissionError:
        _fail(f"{path}: for root only", "run it as root: sudo wherry image …")
    except OSError as error:
        _fail(f"{path}: {error.strerror}", "is the node agent running?")
    try:
        wire.send(sock, message, list(fds))
        while (received := wire.receive(sock)) is not None:
            yield received[0]
    except OSError as error:
        _fail(f"{path}: {error.strerror}")
    finally:
        sock.close()


def _report(node: str, path: Path, message: Message, fds: Sequence[int] = (), *, fatal: bool = True) -> bool:
    """Ask, and say how it went; whether well."""
    answer: Message = next(_ask(path, message, fds), {"error": "the agent went away"})
    if "error" in answer:
        click.echo(click.style("✗ ", fg="red") + f"{node}: {answer['error']}", err=True)
        if fatal:
            sys.exit(1)
        return False
    if not answer["images"]:
        click.echo(click.style("✓ ", fg="green") + f"{node}: {message['op']} {message['reference']}")
    for each in answer["images"]:
        what = ", ".join(each["tags"] or [each["id"]])
        click.echo(click.style("✓ ", fg="green") + f"{node}: {message['op']} {what}  {_size(each['size'])}")
    return True


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _fail(what: str, way_out: str = "") -> NoReturn:
    click.echo(click.style("✗ ", fg="red") + what, err=True)
    if way_out:
        click.echo(f"  {way_out}", err=True)
    sys.exit(1)
