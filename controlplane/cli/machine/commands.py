"""`wherry init`, `token`, `join`, `reset`: parsing and printing; the work is in the other files of this folder.

Exit codes: 0 done (also when there was nothing to do), 1 refused or failed, 2 usage.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from controlplane import clock
from controlplane.cli.machine.trouble import Trouble
from pki.layout import DEFAULT, Layout

T = TypeVar("T")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> float:
    """`24h` as seconds."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if not found or (not found[2] and int(found[1])):
        raise click.BadParameter(f"{text!r} is no duration such as 30m, 24h or 7d")
    return float(found[1]) * _UNITS[found[2] or "s"]


_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put all files below this directory.",
)
_kubeconfig = click.option("--kubeconfig", help="Who we are (default: the administrator's, of this machine).")


def _fail(trouble: Trouble | str, way_out: str = "") -> NoReturn:
    click.echo(click.style("✗ ", fg="red") + str(trouble), err=True)
    if way_out := getattr(trouble, "way_out", "") or way_out:
        click.echo(f"  {way_out}", err=True)
    sys.exit(1)


def _say(text: str) -> None:
    click.echo(f"{click.style('✓', fg='green')} {text}")


def _layout(root: Path | None) -> Layout:
    """Where files go. Only root may write to their usual places."""
    if root is not None:
        return Layout.under(root.absolute())
    if os.geteuid():
        _fail("not root", "run it as root: sudo wherry …")
    return DEFAULT


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; what can go wrong becomes one line and exit code 1."""
    from controlplane.api.status import StatusError
    from controlplane.client.errors import ConfigurationError, Unreachable

    try:
        return asyncio.run(work)
    except Trouble as trouble:
        _fail(trouble)
    except (StatusError, Unreachable, ConfigurationError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'this machine'}: {error.strerror or error}")


def _now() -> datetime:
    return datetime.fromtimestamp(clock.wall_time(), UTC)


def _hostname() -> str:
    return socket.gethostname().lower()


@click.command()
@click.option("--advertise-address", required=True, help="The address that other machines reach the API server at.")
@click.option("--node-name", default=_hostname, help="This machine's name (default: its hostname).")
@click.option("--service-cidr", default="", help="Addresses of Services (default 10.96.0.0/16).")
@click.option("--cluster-cidr", default="", help="Addresses of pods (default 10.244.0.0/16).")
@click.option("--names", default="", help="More names and addresses of the API server, comma-separated.")
@click.option("--port", type=click.IntRange(1, 65535), default=6443, help="The API server's port (default 6443).")
@_root
def init(
    advertise_address: str, node_name: str, service_cidr: str, cluster_cidr: str, names: str, port: int,
    root: Path | None,
) -> None:  # fmt: skip
    """Make this machine a control plane: keys, certificates, settings. Idempotent; starts nothing."""
    from ipaddress import ip_address, ip_network

    from controlplane.cli.machine.initialise import Plan, initialise

    layout = _layout(root)
    try:
        ip_address(advertise_address)
        for cidr in filter(None, (service_cidr, *cluster_cidr.split(","))):
            ip_network(cidr)
        more = [name.strip() for name in names.split(",") if name.strip()]
        plan = Plan(advertise_address, node_name, port, service_cidr, cluster_cidr, more)
        done = initialise(plan, layout, _now())
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    for change in done.changes:
        _say(change)
    if not done.changes:
        click.echo("nothing to do: this machine is a control plane already")
    click.echo(f"\nAPI server   {done.server}\nCA pin       {done.pin}\nkubeconfig   {layout.kubeconfig('admin')}")
    click.echo("\nTo let a machine join: wherry token create --print-join-command")


@click.group()
def token() -> None:
    """Tokens by which machines join."""


@token.command("create")
@click.option("--ttl", type=duration, default="24h", help="How long it is good: 30m, 24h, 7d; 0 for ever.")
@click.option("--uses", type=click.Choice(["1", "unlimited"]), default="1", help="How many machines it lets in.")
@click.option("--description", default="", help="What it is for.")
@click.option("--print-join-command", is_flag=True, help="Print the whole command for the machine that joins.")
@_kubeconfig
@_root
def token_create(
    ttl: float, uses: str, description: str, print_join_command: bool, kubeconfig: str | None, root: Path | None
) -> None:
    """Make a token and print it."""
    from controlplane.cli.machine import tokens
    from controlplane.cli.machine.administrator import connected, join_command

    async def work() -> str:
        async with connected(kubeconfig, root) as client:
            made = await tokens.create(client, ttl_s=ttl, single=uses == "1", description=description)
        return join_command(kubeconfig, root, made) if print_join_command else made

    click.echo(_run(work()))


@token.command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@_kubeconfig
@_root
def token_list(output: str, kubeconfig: str | None, root: Path | None) -> None:
    """All tokens, without their secrets."""
    import json
    from dataclasses import asdict

    from controlplane.cli.machine import tokens
    from controlplane.cli.machine.administrator import connected

    async def work() -> list[tokens.Token]:
        async with connected(kubeconfig, root) as client:
            return await tokens.listing(client)

    found = _run(work())
    if output == "json":
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    rows = [("ID", "STATE", "USES", "EXPIRES", "USED FOR", "DESCRIPTION")]
    rows += [(t.id, t.state, t.uses, t.expires, t.used_for or "-", t.description or "-") for t in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@token.command("delete")
@click.argument("tokens", nargs=-1, required=True)
@_kubeconfig
@_root
def token_delete(tokens: tuple[str, ...], kubeconfig: str | None, root: Path | None) -> None:
    """Delete TOKENS, by their ids or as a whole."""
    from controlplane.api.status import StatusError
    from controlplane.cli.machine import tokens as service
    from controlplane.cli.machine.administrator import connected

    async def work() -> None:
        async with connected(kubeconfig, root) as client:
            for each in tokens:
                identifier = each.partition(".")[0]
                try:
                    await service.delete(client, identifier)
                except StatusError as error:
                    if error.code == 404:
                        raise Trouble(f"no token {identifier}", "wherry token list shows what there is") from error
                    raise
                _say(f"token {identifier} deleted")

    _run(work())


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--token", "secret", required=True, envvar="WHERRY_TOKEN", help="A token of wherry token create.")
@click.option(
    "--discovery-token-ca-cert-hash", "pins", required=True, multiple=True, help="The cluster's CA: sha256:<hex>."
)
@click.option("--node-name", default=_hostname, help="The Node's name (default: the hostname).")
@click.option("--node-ip", default="", help="The Node's address (default: the one that leads to the API server).")
@click.option("--proxy-mode", type=click.Choice(["iptables", "ipvs"]), default=None, help="How Services are done.")
@click.option("--force", is_flag=True, help="Join anew, with new keys, even if this machine has joined.")
@click.option("--patience", type=duration, default="15s", help="How long to try to reach the API (default 15s).")
@click.option("--timeout", type=duration, default="5m", help="How long to wait for approval (default 5m).")
@_root
def join(
    address: str, secret: str, pins: tuple[str, ...], node_name: str, node_ip: str, proxy_mode: str | None,
    force: bool, patience: float, timeout: float, root: Path | None,
) -> None:  # fmt: skip
    """Make this machine a node of the cluster at HOST:PORT. Idempotent; starts nothing."""
    from ipaddress import ip_address

    from controlplane.cli.machine.join import Options
    from controlplane.cli.machine.join import join as work

    layout = _layout(root)
    try:
        if node_ip:
            ip_address(node_ip)
    except ValueError as error:
        _fail(str(error))
    options = Options(
        address,
        secret.strip(),
        pins,
        node_name,
        node_ip,
        proxy_mode or "",
        force,
        patience,
        timeout,
    )
    if not _run(work(options, layout, _now(), _say)):
        click.echo(f"this machine has joined this cluster already, as node {node_name}")
        return
    click.echo(
        f"\nThis machine is node {node_name} now. Its daemons: wherry-runtime, wherry-nodeagent, wherry-netproxy"
    )


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--control-plane", is_flag=True, help="Also delete the cluster's data and its authority's key.")
@_root
def reset(yes: bool, control_plane: bool, root: Path | None) -> None:
    """Take this machine out of its cluster: stop its daemons and containers, delete its keys and data."""
    from controlplane.cli.machine.reset import plan
    from controlplane.cli.machine.reset import reset as work

    layout = _layout(root)
    if layout.ca_key.exists() and not control_plane:
        click.echo("this machine is a control plane: only what makes it a node goes (--control-plane: everything)")
    if not yes:
        what = "the whole cluster's data and keys" if control_plane else "this node's containers, volumes and keys"
        click.confirm(f"Delete {what}?", abort=True)
    _run(work(plan(layout, control_plane), _say))
    click.echo("this machine is in no cluster" if control_plane or not layout.ca_key.exists() else "no node any more")


COMMANDS: tuple[click.Command, ...] = (init, token, join, reset)
