"""The reference of the command line, generated from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from builder.cli import app


def page() -> str:
    """Return the page with every command, its arguments and its options."""
    lines = ["# Command line", "", "`builder COMMAND --help` prints the same in a terminal.", ""]
    for path, command in _commands(typer.main.get_command(app), "builder"):
        lines += [f"## {path}", "", _text(command.help), ""]
        lines += ["```", _usage(path, command), "```", ""]
        rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        rows = [row for row in rows if row]
        if rows:
            lines += ["| argument or option | what it says | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
    for name, one in sorted((below or {}).items()):
        if not one.hidden:
            yield from _commands(one, f"{path} {name}")


def _usage(path: str, command: Any) -> str:
    places = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
    needed = [f"{p.opts[0]} {_metavar(p)}" for p in command.params if _needed(p)]
    return " ".join([path, *places, *needed, "[OPTIONS]"])


def _needed(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option" and parameter.required)


def _row(parameter: Any) -> str:
    names = [_metavar(parameter)] if parameter.param_type_name == "argument" else parameter.opts
    names = [*names, *parameter.secondary_opts]
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, False, ()) or callable(default) else default
    text = _text(getattr(parameter, "help", "") or "").replace("\n", " ").replace("|", "\\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {text} | {f'`{shown}`' if shown else ''} |"


def _text(text: str | None) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(text or "").replace("\b", "")).replace("\f", "").strip()


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())
