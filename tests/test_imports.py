"""Imports point one way, and heavy packages are imported where the table says and nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "text2sql"

# A module may import only what is named in its row, and of ours only rows above its own. A folder is one row.
# The last column is imported inside functions only, once it is known to be needed.
TABLE = """
module      | of ours                                        | from outside                         | inside functions only
example     |                                                |                                      |
sql         | example                                        | sqlglot                              | sqlparse
constraint  | example                                        | numpy torch transformers             |
credentials |                                                |                                      |
columns     |                                                |                                      |
overriding  |                                                |                                      | hydra yaml
seeds       |                                                |                                      |
runs        | credentials overriding seeds                   |                                      |
errors      |                                                |                                      |
upstream    |                                                |                                      | huggingface_hub requests transformers safetensors
uploads     | credentials                                    |                                      |
lock        |                                                |                                      |
tracking    | credentials errors uploads upstream            |                                      | wandb
hub         | credentials errors upstream                    |                                      | huggingface_hub
syncing     | runs uploads tracking hub                      |                                      |
cache       |                                                |                                      |
tiny        | cache upstream                                 |                                      | torch transformers tokenizers
smollm2     | cache upstream                                 |                                      | torch transformers tokenizers gguf tqdm
groups      |                                                | omegaconf                            |
ranges      | groups                                         |                                      |
config      | credentials groups ranges                                  | hydra omegaconf                      |
ranks       |                                                |                                      | torch
checkpoints |                                                |                                      |
resuming    | checkpoints config lock runs seeds                  |                                      |
preemption  | ranks                                          |                                      |
driver      | credentials lock overriding runs                     |                                      | yaml
commandline | credentials errors config ranks preemption driver     | hydra omegaconf                      |
relevance   | example                                        |                                      |
values      | cache example relevance sql                    |                                      |
serialise   | example sql                                    |                                      |
shortening  | config example relevance values serialise      |                                      |
prompts     | config example sql serialise shortening        |                                      |
data        | cache config example sql                       | sqlglot                              | datasets pyarrow tqdm
predictions | example                                        |                                      |
scorer      | example sql                                    |                                      |
evaluation  | columns example sql predictions scorer         |                                      | tqdm
report      | sql runs                                       |                                      | matplotlib
comparison  | columns example runs                           |                                      | numpy scipy omegaconf
sweeps      | columns overriding runs evaluation report      |                                      | hydra matplotlib
multirun    |                                                | hydra                                | sweeps
studies     | overriding runs config driver lock multirun sweeps        | hydra omegaconf                      | optuna numpy
geometry    | errors tiny config                                    |                                      | transformers
machines    | config                                         |                                      | torch psutil
speed       | config geometry machines                       |                                      |
memory      | config geometry machines speed                 |                                      |
fitting     | config geometry machines memory                |                                      |
merging     |                                                | torch peft                           |
model       | errors config ranks machines merging tiny smollm2 upstream | torch bitsandbytes peft transformers huggingface_hub |
lineage     | config hub ranks runs merging model                  |                                      |
doctor      | errors config commandline prompts data geometry machines memory fitting speed | hydra          | tqdm packaging model
reproduction | columns errors overriding runs seeds config commandline data evaluation | hydra omegaconf yaml                 | torch model
duckdb_tables |                                              | sqlalchemy                           |
copying     | errors sql                                     |                                      | sqlalchemy duckdb_tables
provenance  | config                                         |                                      |
card        | config example prompts provenance              |                                      | huggingface_hub transformers
publish     | credentials errors card config runs hub upstream |                                     | huggingface_hub omegaconf
fetching    | checkpoints errors runs hub upstream           |                                      | huggingface_hub
attention   |                                                | torch transformers                   |
fused       |                                                | torch bitsandbytes                   |
passes      |                                                | torch                                |
cross_entropy | memory                                       | torch                                |
fast_path   | memory attention fused                         | torch transformers bitsandbytes peft |
graphs      | attention passes                               | torch                                |
step        | ranks attention fused passes cross_entropy fast_path graphs | torch                   |
sharding    | ranks attention passes cross_entropy fast_path step | torch                      |
anomalies   |                                                | torch bitsandbytes                     |
snapshot    |                                                | numpy torch safetensors              |
pushing     | credentials config uploads syncing             |                                      |
checkpointing | config ranks preemption model checkpoints seeds snapshot pushing upstream | torch transformers trl |
trainer     | config runs ranks seeds anomalies speed model passes fast_path graphs step sharding checkpointing upstream | torch datasets transformers trl |
prefixes    |                                                |                                      |
prefill     | attention prefixes                             | numpy torch                                |
guessing    |                                                | torch                                |
steps       | attention fast_path guessing prefixes          | numpy torch                                |
checking    | steps                                          | numpy torch                                |
decoding    | speed prefixes prefill steps checking          | torch                                |
generation  | fast_path decoding checking seeds upstream           | torch bitsandbytes                   | constraint
vllm_engine | config model                                   |                                      | vllm
callbacks   | example runs ranks tracking config prompts scorer sql generation studies | torch transformers |
encoding    | example config passes prompts                  |                                      |
training    | runs seeds uploads lock checkpoints resuming preemption pushing tracking hub config ranks encoding data report studies geometry machines memory fitting lineage merging model passes sharding trainer callbacks | torch |
voting      | example scorer                                 |                                      |
repair      | example sql config prompts scorer              |                                      |
answering   | example hub config prompts merging model fast_path checking generation vllm_engine voting repair | tqdm | constraint
export      | answering checkpoints config data example generation merging model prompts publish runs scorer sql | peft torch tqdm |
scoring     | credentials example sql runs resuming driver hub cache config prompts scorer report | omegaconf                   | tqdm data evaluation voting repair answering
confidence  | attention fast_path passes                     | torch                                |
abstention  | confidence constraint example sql              |                                      |
asking      | cache runs config commandline data example sql prompts serialise scorer generation answering scoring confidence abstention | hydra | torch
database_commands |                                          |                                      | hydra omegaconf commandline data abstention asking copying
launch      | credentials runs config ranks driver commandline preemption resuming |                                      | torch tqdm model training scoring
release_commands |                                           |                                      | publish fetching export
ui          | runs report sweeps data asking database_commands        | fastapi starlette pydantic jinja2 | uvicorn
cli         | credentials runs evaluation comparison sweeps database_commands release_commands ui |                                      | hydra omegaconf driver commandline doctor reproduction hub syncing
train.py    | config commandline                             | hydra omegaconf                      | prompts data launch
evaluate.py | commandline                                    | hydra omegaconf                      | scoring
"""
ROWS = {
    module.strip(): tuple(set(cell.split()) for cell in cells)
    for module, *cells in (line.split("|") for line in TABLE.strip().splitlines()[1:])
}
ORDER = list(ROWS)
LIGHT = [
    "text2sql.config",
    "text2sql.commandline",
    "text2sql.driver.processes",
    "text2sql.launch",
    "text2sql.scoring",
    "text2sql.cli",
    "text2sql.copying",
    "text2sql.ui.app",
    "text2sql.sweeps",
    "text2sql.fitting",
    "text2sql.doctor",
    "text2sql.reproduction",
]
HEAVY = ["torch", "transformers", "datasets", "peft", "trl", "bitsandbytes", "huggingface_hub", "wandb", "matplotlib"]

FILES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "train.py", ROOT / "evaluate.py"]


def row_of(path):
    """The row of a file: its own name, or that of its folder; None for text2sql/__init__.py."""
    if path.parent == ROOT:
        return path.name
    first = path.relative_to(PACKAGE).parts[0]
    return None if first == "__init__.py" else first.removesuffix(".py")


def imports(tree, path=Path("module.py")):
    """Names as in the table, of ours and of others but for the standard library: (at module level, inside functions)."""
    lazy = {node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for node in ast.walk(function)}  # fmt: skip
    found = (set(), set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write text2sql.{node.module} in full"
            names = [f"text2sql.{alias.name}" for alias in node.names] if node.module == "text2sql" else [node.module]
        else:
            continue
        parts = [name.split(".") for name in names]
        found[node in lazy].update(part[1] if part[0] == "text2sql" and len(part) > 1 else part[0] for part in parts)
    return tuple(names - sys.stdlib_module_names for names in found)


def imports_of(path):
    at_once, later = imports(ast.parse(path.read_text(encoding="utf-8")), path)
    return at_once - {row_of(path)}, later - {row_of(path)}


def of_path(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=of_path)
def test_a_module_opens_with_a_sentence_on_what_it_does(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("path", FILES, ids=of_path)
def test_a_module_has_a_row_in_the_table(path):
    assert row_of(path) in {None, *ROWS}


@pytest.mark.parametrize("module", ORDER)
def test_a_row_has_its_module(module):
    assert module in {row_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=of_path)
def test_what_is_imported_at_once_is_in_the_table(path):
    ours, outside, _ = ROWS.get(row_of(path), (set(), set(), set()))
    assert imports_of(path)[0] - ours - outside == set()


@pytest.mark.parametrize("path", FILES, ids=of_path)
def test_what_is_imported_inside_functions_is_in_the_table(path):
    ours, outside, lazy = ROWS.get(row_of(path), (set(), set(), set()))
    assert imports_of(path)[1] - ours - outside - lazy == set()


@pytest.mark.parametrize("module", ORDER)
def test_the_table_allows_no_more_than_is_used(module):
    ours, outside, lazy = ROWS[module]
    used = [imports_of(path) for path in FILES if row_of(path) == module]
    assert (ours | outside) - set().union(*(at_once for at_once, _ in used)) == set()
    assert lazy - set().union(*(later for _, later in used)) == set()


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_none_below_its_row(module):
    ours, _, lazy = ROWS[module]
    above = set(ORDER[: ORDER.index(module)])
    assert ours - above == set()
    assert (lazy & set(ORDER)) - above == set()


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == []


@pytest.mark.parametrize(
    ("source", "at_once", "later"),
    [
        ("import torch.nn as nn, os", {"torch"}, set()),
        ("from text2sql import runs, config as c", {"runs", "config"}, set()),
        ("from text2sql.sql.database import connect", {"sql"}, set()),
        ("def f():\n    import torch\n    def g():\n        from text2sql import model", set(), {"torch", "model"}),
        ("class A:\n    import torch\n    def f(self):\n        import trl", {"torch"}, {"trl"}),
        ("try:\n    import torch\nexcept ImportError:\n    pass", {"torch"}, set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source, at_once, later):
    assert imports(ast.parse(source)) == (at_once, later)
