"""The edge between a typed command line and Hydra: `phase=2` as people type it, and one readable error instead of a stack."""

from __future__ import annotations

import difflib
import os
import re
import string
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from text2sql import credentials, ranks
from text2sql.config import Config
from text2sql.driver import resume
from text2sql.driver.summary import SUMMARY, JobsFailed
from text2sql.errors import first_line
from text2sql.preemption import Interrupted

CONF = Path(__file__).resolve().parent.parent / "conf"
UNWRITABLE = (NotADirectoryError, FileExistsError, PermissionError)
WRITES_NOTHING = {  # Hydra makes the folder in any case: it gets one that is there
    "hydra.run.dir=": f"'{tempfile.gettempdir()}'",
    "hydra.output_subdir=": "null",
    "hydra/job_logging=": "none",
    "hydra/hydra_logging=": "none",
}
NOT_JUST_HELP = {"--hydra-help", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--resolve"}
BARE_PHASES = re.compile(r"phase=\d+(,\d+)*")


def quote_phase(arguments: list[str]) -> list[str]:
    """Quote the digits of `phase=2` and `phase=1,2`: Hydra reads a bare 2 as an int and refuses it as a group's choice."""
    return [
        "phase=" + ",".join(f"'{number}'" for number in argument.removeprefix("phase=").split(","))
        if BARE_PHASES.fullmatch(argument)
        else argument
        for argument in arguments
    ]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Prepare sys.argv for Hydra, and end on a user's mistake with one message and exit code 2.

    Jobs of a sweep that failed are exit code 1. Says at once that it has begun, for composing takes Hydra half a second.
    Everything else (our own bugs, a full disk, a lost GPU) keeps its traceback. HYDRA_FULL_ERROR=1 keeps all of them.
    """
    sys.excepthook = credentials.redact_traceback
    sys.argv[1:] = quote_phase(sys.argv[1:])
    _refuse_tokens()
    prints_and_ends = any(argument.startswith("-") for argument in sys.argv[1:])  # --help, --cfg and the like
    if set(sys.argv[1:]) & {"-h", "--help"} and not set(sys.argv[1:]) & NOT_JUST_HELP:
        sys.exit(_print_help(Path(sys.argv[0]).stem))
    if ranks.is_main() and not prints_and_ends:
        print(f"{Path(sys.argv[0]).name}: composing the config", file=sys.stderr, flush=True)
    if os.environ.get("HYDRA_FULL_ERROR"):
        with _one_rank_writes(), _interrupted(), _sweep(), _untouched_run():
            yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on instead of printing its own version
    try:
        with _one_rank_writes(), _interrupted(), _sweep(), _untouched_run():
            yield
    except (HydraException, OmegaConfBaseException, ValueError, RuntimeError, OSError) as error:
        if not is_users_mistake(error):
            raise
        said = credentials.redact(explain(error))
        print(f"{'' if ranks.is_main() else f'[rank {ranks.rank()}] '}error: {said}", file=sys.stderr)
        sys.exit(1 if isinstance(error, JobsFailed) else 2)


def _refuse_tokens() -> None:
    """End with exit code 2 before anything is written, if the command or the saved config that it names holds a token."""
    known, _ = resume.options(sys.argv[1:])
    saved = Path(known.config_dir or CONF) / f"{(known.config_name or 'train').removesuffix('.yaml')}.yaml"
    try:
        credentials.refuse(sys.argv[1:])
        if known.config_dir and saved.is_file() and credentials.redact(text := saved.read_text("utf-8")) != text:
            raise ValueError(f"{saved} holds a token or a password; {credentials.CURE}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _interrupted() -> Iterator[None]:
    """End with the exit code that says how a run was interrupted."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if not isinstance(stopped, Interrupted):
            sys.exit(130)
        print(f"interrupted: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)


def _print_help(primary: str) -> int:
    """Print what Hydra's --help prints, in half its time: that one copies every registered config once a group, twice over.

    With overrides, shows the config that they make; returns the exit code.
    """
    overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = compose(primary, overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    text = string.Template(cfg.hydra.help.template)
    chosen = [group for group in groups() if group in cfg.hydra.runtime.choices]
    choices = "".join(f"{group}: {', '.join(_choices(group))}\n" for group in chosen)
    with open_dict(cfg):
        del cfg["hydra"]
    with suppress(BrokenPipeError):  # ... | head
        print(text.safe_substitute(APP_CONFIG_GROUPS=choices, CONFIG=OmegaConf.to_yaml(cfg)), flush=True)
    return 0


@contextmanager
def _sweep() -> Iterator[None]:
    """Name the folder of a sweep that is resumed, say at the end what became of the jobs, and end with 1 if some failed."""
    asked = sys.argv[1:]
    sys.argv[1:] = resume.prepare(asked, Path(sys.argv[0]).stem)
    if len(sys.argv) - 1 > len(asked):
        print(f"{Path(sys.argv[0]).name}: going on with {sys.argv[-1].partition('=')[2]}", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if text := SUMMARY.text():
            print(text, file=sys.stderr, flush=True)
    if not SUMMARY.all_finished:
        sys.exit(1)


@contextmanager
def _untouched_run() -> Iterator[None]:
    """Give the run in hydra.run.dir its .hydra back if it was refused or left alone: Hydra writes there before anybody asks."""
    named = resume.value(sys.argv[1:], "hydra.run.dir")
    stamp, saved = Path(named or "") / "run.json", Path(named or "") / ".hydra"
    if named is None or not ranks.is_main() or not stamp.is_file():
        yield
        return
    before, files = stamp.read_bytes(), {path: path.read_bytes() for path in saved.glob("*.yaml")}
    try:
        yield
    finally:
        if stamp.read_bytes() == before:
            for path in set(saved.glob("*.yaml")) - set(files):
                path.unlink()
            for path, content in files.items():
                path.write_bytes(content)


@contextmanager
def _one_rank_writes() -> Iterator[None]:
    """Under torchrun each rank composes the config for itself: let Hydra make a run folder and its log in rank 0 alone.

    ValueError for a sweep, whose jobs the ranks could not go through in step.
    """
    if ranks.world_size() > 1 and {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(sys.argv[1:]):
        raise ValueError(
            "a sweep (-m) does not run under torchrun or accelerate launch; type `python train.py -m ... "
            "hardware.devices=N`, which starts N processes for each job itself"
        )
    if ranks.is_main():
        yield
        return
    typed = [argument for argument in sys.argv[1:] if not argument.startswith(tuple(WRITES_NOTHING))]
    sys.argv[1:] = [*typed, *(f"{setting}{value}" for setting, value in WRITES_NOTHING.items())]
    yield


def is_users_mistake(error: BaseException) -> bool:
    """Config errors, and what our package raised itself; errors from inside a library are bugs and keep their stack."""
    if isinstance(error, (HydraException, OmegaConfBaseException, *UNWRITABLE, FileNotFoundError)):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and Path(frame.tb_frame.f_code.co_filename).parent.is_relative_to(Path(__file__).parent)


def explain(error: BaseException) -> str:
    """The error in one paragraph, with what exists in place of what was asked for."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = "\n".join(str(link) for link in chain)
    first = first_line(error)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if "No match in the defaults list" in text and key:
        return f"{key[1]} is not a config group; there are {_closest(key[1], groups())}"
    if (choice := re.search(r"Could not find '([^']+)/([^/']+)'", text)) and (CONF / choice[1]).is_dir():
        return f"{choice[1]}={choice[2]} does not exist; {choice[1]} can be {_closest(choice[2], _choices(choice[1]))}"
    if missing := re.search(r"Could not (?:find|load) 'hydra/launcher/(submitit|ray)\w*'", text):
        extra = {"submitit": "slurm", "ray": "ray"}[missing[1]]
        return f"this launcher needs the extra `{extra}`: pip install -e '.[{extra}]'"
    if (key and "is not in struct" in text) or (key and re.search(r"Key '[^']+' not in", text)):
        return _unknown_key(key[1])
    if isinstance(error, ValueError) and not isinstance(error, (HydraException, OmegaConfBaseException)):
        return str(error)
    if isinstance(error, UNWRITABLE) and error.filename:
        cure = "choose another folder with hydra.run.dir=DIR (hydra.sweep.dir=DIR in a multirun)"
        return f"cannot write {error.filename}: {error.strerror}; {cure}"
    detail = first_line(chain[-1])
    named = f" ({key[1]})" if key and key[1] not in first + detail else ""
    return (first if detail in first else f"{first.rstrip('.')}: {detail}") + named


def groups() -> list[str]:
    """The config's groups; conf/hydra/ has choices for Hydra's own."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _unknown_key(key: str) -> str:
    parent, _, name = key.rpartition(".")
    section: Any = OmegaConf.select(OmegaConf.structured(Config), parent) if parent else OmegaConf.structured(Config)
    if section is None:
        return _unknown_key(parent)
    where = f"{parent} has" if parent else "the config has"
    known = {str(child) for child in section} | (set() if parent else set(groups()))
    return f"{key} is not a setting; {where} {_closest(name, known)}"


def _closest(wrong: str, known: Iterable[str]) -> str:
    known = sorted(known)
    guess = difflib.get_close_matches(wrong, known, n=1)
    return ", ".join(known) + (f" (did you mean {guess[0]}?)" if guess else "")
