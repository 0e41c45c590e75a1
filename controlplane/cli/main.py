"""`wherry`: start, stop and look at a cluster on this machine; make this machine part of one (cli/machine/).

Thin: it parses, asks the lab's supervisor (cli/lab/) and prints. Heavy imports happen in the commands that need them,
so that `wherry kubeconfig` takes as long as Python takes to start.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from controlplane.cli.image import image
from controlplane.cli.lab import control, preflight
from controlplane.cli.lab.spec import Lab
from controlplane.cli.machine import commands


def _lab() -> Lab:
    """The lab of this machine: the saved one, else the default."""
    try:
        name = click.get_current_context().find_root().params.get("lab") or ""
        return Lab.saved(name) or Lab(name=name)
    except PermissionError as error:
        _fail(str(error), "run it as root: sudo wherry …")
    except ValueError as error:
        _fail(str(error))


def _check_names(lab: Lab, names: tuple[str, ...]) -> None:
    known = [node.name for node in lab.nodes]
    for name in names:
        if name not in known:
            _fail(f"no node {name!r} in this lab", "its nodes: " + ", ".join(known))


def _fail(what: str, way_out: str = "") -> NoReturn:
    click.echo(click.style("✗ ", fg="red") + what, err=True)
    if way_out:
        click.echo(f"  {way_out}", err=True)
    sys.exit(1)


def _step(message: dict[str, Any]) -> None:
    seconds = f"{message['seconds']:6.2f} s" if "seconds" in message else ""
    click.echo(f"{click.style('✓', fg='green')} {message['step']:<24}{seconds}")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wherry")
@click.option(
    "--lab", envvar="WHERRY_LAB", help="Which lab, if several run on this machine (default: the nameless one)."
)
def main(lab: str | None) -> None:
    """A Kubernetes-compatible cluster in readable Python."""


@main.command()
@click.argument("nodes", nargs=-1)
@click.option("--nodes", "size", type=click.IntRange(1, 100), help="How many nodes the lab has (default 3).")
@click.option("--subnet", help="The nodes' network (default 10.77.0.0/24).")
@click.option(
    "--example", type=click.Path(exists=True, dir_okay=False), help="Deploy this file and prove that it serves."
)
def up(nodes: tuple[str, ...], size: int | None, subnet: str | None, example: str | None) -> None:
    """Start the cluster on this machine, or the NODES of it that are off. Idempotent."""
    saved = _lab()
    try:
        lab = Lab(size=size or saved.size, name=saved.name, subnet=subnet or saved.subnet)
    except ValueError as error:
        _fail(str(error))
    _check_names(lab, nodes)
    if found := preflight.problems(lab):
        for problem in found[:-1]:
            click.echo(click.style("✗ ", fg="red") + problem.what + "\n  " + problem.way_out, err=True)
        _fail(found[-1].what, found[-1].way_out)
    try:
        try:
            status = control.ask(lab, "up", _step, size=lab.size, nodes=list(nodes))
            if status["api"] != lab.api_url:
                _fail(f"the cluster runs already, at {status['api']}", "to move it: wherry down, then up --subnet …")
        except control.NotRunning:
            if Lab.saved(lab.name) and lab.subnet != saved.subnet:
                _fail(
                    f"the stored cluster's addresses and certificates are of {saved.subnet}",
                    "wherry down --purge deletes it; then up --subnet … makes a new one",
                )
            status = _launch(lab)
    except control.CommandFailed as error:
        _fail(str(error), "wherry down cleans up; wherry up starts again from the stored state")
    if example:
        _prove(lab, Path(example))
    _how_to_go_on(status)


def _launch(lab: Lab) -> dict[str, Any]:
    """Clean up after a killed run, if there was one, and start the supervisor."""
    from controlplane.cli.lab import supervisor

    supervisor.clean(lab, purge=False)
    return control.follow(supervisor.launch(lab, lab.size), _step)


def _prove(lab: Lab, example: Path) -> None:
    import asyncio

    from controlplane.cli.lab import proof

    try:
        asyncio.run(proof.run(lab, example, _step))
    except proof.NotProven as error:
        _fail(str(error), "wherry status and kubectl describe say more")


def _how_to_go_on(status: dict[str, Any]) -> None:
    click.echo(f"\nThe cluster answers at {status['api']}. To use it:\n")
    click.echo(f"  export KUBECONFIG={status['kubeconfig']}\n  kubectl get nodes\n")


@main.command()
@click.argument("nodes", nargs=-1)
@click.option("--purge", is_flag=True, help="Also delete the cluster's data.")
def down(nodes: tuple[str, ...], purge: bool) -> None:
    """Stop the cluster (its data stays), or cut the power of some NODES. Leaves nothing running."""
    lab = _lab()
    if problem := preflight.root(lab):
        _fail(problem.what, problem.way_out)
    _check_names(lab, nodes)
    try:
        if nodes:
            control.ask(lab, "stop", _step, nodes=list(nodes))
        else:
            control.stop(lab, _step, purge)
    except control.NotRunning:
        if nodes:
            _fail("the cluster does not run", "wherry up")
        from controlplane.cli.lab import supervisor

        supervisor.clean(lab, purge=purge)  # what a killed run may have left
        click.echo("✓ nothing runs")
    except control.CommandFailed as error:
        _fail(str(error))


@main.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(output: str) -> None:
    """Every node and process of the cluster. Exit code 3 if it does not run."""
    lab = _lab()
    try:
        answer = control.ask(lab, "status")
    except control.NotAllowed:
        _fail("not root", "the lab answers root only: sudo wherry status")
    except control.NotRunning:
        if output == "json":
            click.echo(
                json.dumps({"api": lab.api_url, "kubeconfig": str(lab.kubeconfig), "nodes": [], "processes": []})
            )
        else:
            click.echo("the cluster does not run: wherry up")
        sys.exit(3)
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
        return
    from controlplane.cli.lab import report

    report.show_status(answer)


@main.command()
def kubeconfig() -> None:
    """Print the path of the admin kubeconfig."""
    lab = _lab()
    try:
        there = lab.kubeconfig.exists()
    except PermissionError:
        there = True
    if not there:
        # kubectl would take a path to nothing for "no configuration", and ask localhost:8080.
        _fail(
            "there is no cluster yet, so no kubeconfig", "wherry up; after `wherry init` it is /etc/wherry/admin.conf"
        )
    click.echo(lab.kubeconfig)
    if not os.access(lab.kubeconfig, os.R_OK):
        note = f"for root only; a copy for yourself: sudo install -m 600 -o $USER {lab.kubeconfig} ~/wherry.conf"
        click.echo(click.style("! ", fg="yellow") + note, err=True)


for command in (*commands.COMMANDS, image):
    main.add_command(command)

if __name__ == "__main__":
    main()
