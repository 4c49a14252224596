"""The subcommand `ui`: serve the page."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Any

from text2sql import database_commands

PACKAGES = ("fastapi", "uvicorn", "jinja2")
PORT = 8321


def add(commands: Any) -> None:
    """Add the parser of the command to what argparse's add_subparsers() returns."""
    ui = commands.add_parser(
        "ui",
        help="ask databases and look at runs in a browser, on this machine",
        usage="text2sql ui [FOLDER ...] [--database DATABASE ...] [--run RUN ...] [options]",
        description="Serve a page on 127.0.0.1: ask the databases with the model of a run, and see the SQL, what it reads and\n"
        "its rows, or why there are none; lists of the runs and sweeps below each FOLDER, with their reports; the answers of\n"
        "two runs side by side. Only these runs and databases can be opened. Ctrl-C ends it.",
        epilog="examples:\n  text2sql ui --database shop.sqlite --run outputs/RUN\n"
        "  text2sql ui outputs multirun --database data/spider/database --no-browser",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ui.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="of runs and sweeps; default: outputs and multirun"
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "type": Path}
    ui.add_argument("--database", metavar="DATABASE", help="SQLite files, or folders of them", **several)
    ui.add_argument("--run", metavar="RUN", dest="run_folders", help="trainings whose models answer", **several)
    ui.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0: any that is free")
    ui.add_argument(
        "--host",
        metavar="ADDRESS",
        help="serve other machines too, by an address of this one (0.0.0.0: all of them); then the page wants a token,\n"
        "which is in the printed address or, if it is set, TEXT2SQL_UI_TOKEN",
    )
    ui.add_argument("--no-browser", action="store_true", help="only print the address")
    database_commands.add_answering(ui)
    ui.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C. ValueError for what cannot be opened, a port that is taken, or packages that are missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(f"text2sql ui needs {', '.join(missing)}: pip install -e '.[ui]'")
    import uvicorn

    from text2sql.asking import trained
    from text2sql.ui import access, app, places
    from text2sql.ui.answerer import Answerer

    database_commands.prepare(options)
    for run in options.run_folders:
        trained.adapter_of(run)
    found = places.find(options.folders, options.database, options.run_folders)
    token = access.token_for(options.host, os.environ.get(access.VARIABLE, ""))
    host = options.host or access.LOOPBACK
    with listen(host, options.port) as listening:
        allowed = access.Access(host, listening.getsockname()[1], token)
        page = app.build(found, Answerer(opener(options)), allowed)
        address = _address(allowed)
        print(f"text2sql ui: {address}   (Ctrl-C ends it)", flush=True)
        if not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # some open in this terminal
        settings_ = uvicorn.Config(page, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings_).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes requests from now on, so that a browser can be sent to it at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(
            f"--host {host} --port {port}: {reason}; name another port with --port, or 0 for any"
        ) from None


def _address(allowed: Any) -> str:
    """What to open; for all addresses of this machine, by its name."""
    name = socket.gethostname() if allowed.host in ("0.0.0.0", "::") else allowed.host
    host = f"[{name}]" if ":" in name else name
    return f"http://{host}:{allowed.port}/" + (f"?token={allowed.token}" if allowed.token else "")


def opener(options: argparse.Namespace) -> Any:
    """How a session is opened with these options; torch is imported when the first one is."""

    def open_session(run: Path, database: Path, speaker: Any) -> Any:
        from text2sql.asking import trained
        from text2sql.asking.session import Session

        config = speaker.config if speaker else database_commands.compose(options, trained.adapter_of(run))
        session = Session(config, database, database_commands.thresholds(options), options.rows, speaker)
        session.load()
        return session

    return open_session
