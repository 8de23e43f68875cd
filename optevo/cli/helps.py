"""Examples below each command's help, and in which order and under which heading commands are listed."""

from __future__ import annotations

import typer

#: What `optevo --help` ends with.
EPILOG = (
    "Examples:\n\n"
    "  $ optevo init first && cd first\n"
    "  $ optevo run search.toml\n"
    "  $ optevo top 5\n"
    "  $ optevo export best\n\n"
    "Exit status: 0 done; 1 it failed, or `doctor` found something to mend; 2 something given is wrong, as "
    "the message says; 130 stopped by Ctrl-C or SIGTERM. Where NO_COLOR is set, nothing is coloured."
)

#: The headings of the list of commands, with the commands under each in the order of their use.
PANELS = {
    "Search": ("run", "init", "status", "top", "show", "export", "promote"),
    "Judge": ("compare", "ablate", "correlate", "report"),
    "Look after": ("dashboard", "doctor", "repair", "task", "data", "storage"),
}

#: Of each command, one or two.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("optevo init first", "optevo init prices --task table"),
    "run": (
        "optevo run studies/quickstart.toml --export evolved.py",
        "optevo run search.toml --workers 2 --trials 50",
    ),
    "status": ("optevo status", "optevo status --json | jq '.studies[].best'"),
    "top": ("optevo top 10 quickstart", "optevo top 3 --json"),
    "show": ("optevo show best --study quickstart", "optevo show 42 --json"),
    "export": ("optevo export best", "optevo export 42 --output rule42.py"),
    "promote": ("optevo promote quickstart stages.toml",),
    "compare": ("optevo compare adamw_sweep quickstart --steps 100 --seeds 10",),
    "ablate": ("optevo ablate quickstart --seeds 5",),
    "correlate": ("optevo correlate cheap dear --top 10",),
    "report": ("optevo report quickstart adamw_sweep --output report.html",),
    "dashboard": ("optevo dashboard --port 8081",),
    "doctor": ("optevo doctor", "optevo doctor --storage postgresql+psycopg://me@host/studies"),
    "repair": ("optevo repair quickstart",),
    "task check": ("optevo task check rings:Rings",),
    "data check": ("optevo data check mnist cifar10",),
    "data get": ("optevo data get fashion_mnist",),
    "storage copy": ("optevo storage copy --from sqlite:///optevo.db --to sqlite:///new.db",),
    "storage save": ("optevo storage save quickstart --output quickstart.json.gz",),
    "storage load": ("optevo storage load quickstart.json.gz",),
    "storage upgrade": ("optevo storage upgrade --storage sqlite:///old.db",),
    "storage serve": ("optevo storage serve --host 0.0.0.0 --port 13000",),
}


def add_to(app: typer.Typer) -> None:
    """Give every command and group of commands its examples, heading and place in the list."""
    place = {name: (panel, i) for panel, names in PANELS.items() for i, name in enumerate(names)}
    order = [name for names in PANELS.values() for name in names]
    for command, name in _commands(app):
        command.epilog = examples(EXAMPLES.get(name, ()))
        command.rich_help_panel = place[name][0] if name in place else command.rich_help_panel
    for group in app.registered_groups:
        name = str(group.name)
        group.rich_help_panel = place[name][0] if name in place else group.rich_help_panel
        for command, inner in _commands(group.typer_instance or typer.Typer()):
            command.epilog = examples(EXAMPLES.get(f"{name} {inner}", ()))
    known = {name: i for i, name in enumerate(order)}
    app.registered_commands.sort(key=lambda one: known.get(_name(one), len(known)))
    app.registered_groups.sort(key=lambda one: known.get(str(one.name), len(known)))


def examples(lines: tuple[str, ...]) -> str | None:
    """The end of a help."""
    return "Examples:\n\n" + "\n".join(f"  $ {line}" for line in lines) if lines else None


def _commands(app: typer.Typer) -> list[tuple[typer.models.CommandInfo, str]]:
    return [(one, _name(one)) for one in app.registered_commands]


def _name(command: typer.models.CommandInfo) -> str:
    return str(command.name or getattr(command.callback, "__name__", ""))
