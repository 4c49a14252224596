"""What the documents say can be typed, can be typed; what they point at is there."""

import functools
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from text2sql import config
from text2sql.commandline import quote_phase

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
README = ROOT / "README.md"
DOCUMENTS = [path for path in (README, *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
WITH_A_VALUE = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p"}
FENCE = re.compile(r"^ {0,3}```[^\n]*\n.*?^ {0,3}```", re.MULTILINE | re.DOTALL)


def blocks(text):
    """The commands in ```bash blocks: one a line, prompts stripped, continued lines joined."""
    for block in re.findall(r"^ {0,3}```(?:bash|sh|console)\n(.*?)^ {0,3}```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def words(line):
    """The commands of a line, each as its words: split at && || ; | and without comments and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    commands = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def hydra_commands(text):
    """(primary, arguments) of every train.py and evaluate.py in the bash blocks, but for those that ask for help."""
    for line in blocks(text):
        if not re.search(r"\b(train|evaluate)\.py\b", line):
            continue
        for command in words(line):
            scripts = [number for number, word in enumerate(command) if Path(word).name in ("train.py", "evaluate.py")]
            if scripts and "python" in " ".join(command[: scripts[0]]) and not {"--help", "-h"} & set(command):
                yield Path(command[scripts[0]]).stem, command[scripts[0] + 1 :]


def compose_command(primary, arguments, folder):
    """Compose the command's first job and pass it through load(). ValueError or Hydra's errors if that cannot be done."""
    flags, overrides = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith("-"):
            flags.append(argument)
            if argument in WITH_A_VALUE:
                next(waiting)
        else:
            overrides.append(argument)
    source, name = CONF, primary
    if any(flag.partition("=")[0] in ("--config-dir", "-cd", "--config-name", "-cn") for flag in flags):
        source, name = folder, "config"  # a replay: the saved config has no groups to choose from
        (folder / "config.yaml").write_text(config.to_yaml(first_job(CONF, primary, (), True)))
    return first_job(source, name, tuple(overrides), bool({"-m", "--multirun"} & set(flags)))


@functools.cache
def first_job(source, name, overrides, multirun):
    first = []
    for override in OverridesParser.create().parse_overrides(quote_phase(list(overrides))):
        if (override.is_sweep_override() or override.key_or_group == "sweep") and not multirun:
            raise ValueError(f"{override.input_line} is a sweep and needs -m")
        if override.is_sweep_override():
            discrete = override.is_discrete_sweep()
            value = next(iter(override.sweep_string_iterator())) if discrete else override.value().start
            first.append(f"{override.key_or_group}={value}")
        else:
            first.append(override.input_line)
    with initialize_config_dir(version_base="1.3", config_dir=str(source)):
        return config.load(compose(name, overrides=first))


def make_targets(text):
    """Targets of `make` in bash blocks and in inline code."""
    prose = FENCE.sub("", text)
    for line in [*blocks(text), *re.findall(r"`([^`\n]+)`", prose)]:
        for command in words(line) if re.search(r"\bmake\b", line) else []:
            if command[:1] == ["make"]:
                yield from (word for word in command[1:] if "=" not in word and not word.startswith("-"))


def links(text):
    """Targets of links and pictures that are files: no addresses, no anchors within the document."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    found = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE) + re.findall(r"(?:src|href)=\"([^\"]+)\"", prose)
    for target in found:
        if not re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            yield target.partition("#")[0]


def found_in_documents(find):
    cases = [(path, found) for path in DOCUMENTS for found in find(path.read_text(encoding="utf-8"))]
    return [pytest.param(path, found, id=f"{path.name}: {found}") for path, found in cases]


def test_there_is_a_readme_with_commands_in_it():
    assert README.exists()
    assert list(hydra_commands(README.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("document", "command"), found_in_documents(hydra_commands))
def test_a_documented_command_composes(tmp_path, document, command):
    compose_command(*command, tmp_path)


@pytest.mark.parametrize(("document", "target"), found_in_documents(make_targets))
def test_a_documented_make_target_exists(document, target):
    assert target in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("document", "target"), found_in_documents(links))
def test_a_documented_link_leads_to_a_file(document, target):
    assert (document.parent / target).exists()


# The tests above, on documents made for them.

DOCUMENT = """
Run `make quickstart` to make sure, see [the guide](docs/guide.md#start "Guide"), [this](#below), [that](https://example.org/a.md).

```bash
$ python train.py phase=2 \\
    data=spider   # the second phase
cd here && .venv/bin/python evaluate.py adapter=RUN/adapter 'model.path=${model.hub_id}' > log; make test CONSTRAINTS=latest
python train.py --help
python -m pytest tests
```

```python
# python train.py nothing=here  [no](link.md)
```

![losses](docs/loss.png) and `[no](code.md)`
"""


def test_commands_are_found_in_bash_blocks():
    assert list(hydra_commands(DOCUMENT)) == [
        ("train", ["phase=2", "data=spider"]),
        ("evaluate", ["adapter=RUN/adapter", "model.path=${model.hub_id}"]),
    ]


def test_make_targets_are_found_in_blocks_and_inline_code():
    assert sorted(make_targets(DOCUMENT)) == ["quickstart", "test"]


def test_links_are_found_outside_code():
    assert list(links(DOCUMENT)) == ["docs/guide.md", "docs/loss.png"]


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "train phase=2 data=spider",
        "train -m phase=1,2 experiment=quickstart hydra.sweep.dir=multirun/x",
        "train -m phase=1,2 lora.r=8,16 lora.target_modules=[q_proj,v_proj]",
        "train --multirun sweep=lora_rank",
        "train -m trainer.learning_rate=choice(1e-4,1e-3)",
        "train --config-dir RUN/.hydra --config-name config lora.r=8",
        "train --cfg job model=tiny",
        "evaluate -m experiment=quickstart adapter=null,A/adapter,B/adapter",
    ],
)
def test_commands_that_can_be_typed_compose(tmp_path, command):
    primary, *arguments = command.split()
    compose_command(primary, arguments, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "train phase=3",
        "train phase=1,2",
        "train sweep=lora_rank",
        "train -m lora.rank=8,16",
        "train hub=push",
        "train trainer.batch_size=0",
        "train --config-dir RUN/.hydra --config-name config model=tiny",
        "evaluate phase=2",
    ],
)
def test_commands_that_cannot_be_typed_do_not(tmp_path, command):
    primary, *arguments = command.split()
    with pytest.raises((ValueError, HydraException, OmegaConfBaseException)):
        compose_command(primary, arguments, tmp_path)
