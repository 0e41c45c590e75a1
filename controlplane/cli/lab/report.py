"""Tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    view = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        view.add_column(column, no_wrap=True)
    for row in rows:
        view.add_row(*row)
    Console(soft_wrap=True).print(view)


def show_status(status: dict[str, Any]) -> None:
    print(f"API         {status['api']}\nkubeconfig  {status['kubeconfig']}\n")
    table("", ["NODE", "ADDRESS", "STATE"], [[n["name"], n["address"], n["state"]] for n in status["nodes"]])
    print()
    rows = [
        [p["component"], p["node"], str(p["pid"] or "-"), p["state"], str(p["restarts"])] for p in status["processes"]
    ]
    table("", ["COMPONENT", "NODE", "PID", "STATE", "RESTARTS"], rows)
