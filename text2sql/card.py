"""The model card of a published adapter: its metadata for the Hub and its text, from what the run's folder says and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from text2sql import prompts, provenance
from text2sql.config import Config, Data
from text2sql.example import Column, Example, ForeignKey, Schema, Table
from text2sql.provenance import Carbon, Dataset

SHOWN = Example(
    id="card",
    question="How many singers come from France?",
    sql="SELECT count(*) FROM singer AS T1 JOIN country AS T2 ON T1.country_id = T2.id WHERE T2.name = 'France'",
    db_id="card",
    schema=Schema(
        (
            Table("country", (Column("id", "INTEGER", True), Column("name", "TEXT"))),
            Table(
                "singer",
                (Column("id", "INTEGER", True), Column("name", "TEXT"), Column("country_id", "INTEGER")),
                (ForeignKey(("country_id",), "country", ("id",)),),
            ),
        )
    ),
    context="CREATE TABLE country (id INTEGER PRIMARY KEY, name TEXT);\n"
    "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country_id INTEGER REFERENCES country (id));\n"
    "INSERT INTO country VALUES (1, 'France'), (2, 'Japan');\n"
    "INSERT INTO singer VALUES (1, 'Anne', 1), (2, 'Rei', 2);",
)
"""The question of the card's prompt: made up, since the run's own may be about a private database."""

MEASURED = {
    "eval/execution_accuracy": "execution accuracy",
    "eval/exact_match": "exact match",
    "eval/hallucinated_column_rate": "answers with an invented column",
    "eval/hallucinated_table_rate": "answers with an invented table",
}
LEVELS = ("easy", "medium", "hard", "extra")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of the adapter found, and by which command."""

    metrics: Mapping[str, float]
    data: Data
    settings: Mapping[str, Any]
    command: str

    @property
    def split(self) -> str:
        return str(self.settings.get("split", "test"))

    @property
    def rules(self) -> str:
        return str(self.settings.get("rules", "strict"))

    @property
    def answers(self) -> str:
        """How the answers were made, in words."""
        votes = self.settings.get("votes", 1)
        more = [f"the most frequent result of {votes} answers" if votes > 1 else "greedy decoding"]
        more += ["only names that the schema has"] if self.settings.get("constrained") else []
        more += ["one repair where an answer does not run"] if self.settings.get("repair") else []
        return ", ".join(more)


@dataclass(frozen=True)
class Published:
    """All that a card says, read from a run's folder; `learned_on` are the data of each phase, the first phase first."""

    repo_id: str
    config: Config
    stamp: Mapping[str, Any]
    metrics: Mapping[str, float]
    prompt: str
    learned_on: list[tuple[str, Data]]
    levels_below: int = 0
    lineage_gap: str = ""
    evaluation: Evaluation | None = None
    licence: str | None = None
    named_datasets: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.config.model.hub_id

    @property
    def carbon(self) -> Carbon | None:
        processes = self.stamp.get("processes") or 1
        return provenance.carbon(self.metrics.get("train/seconds"), self.stamp.get("gpu"), processes)

    def datasets(self) -> tuple[list[Dataset], list[str]]:
        """The public data sets it learned on, and what is to be said of the other data."""
        found = {name: provenance.DATASETS[name] for name in self.named_datasets if name in provenance.DATASETS}
        unknown = [
            f"`{name}`: named by the publisher, see its page for the licence."
            for name in self.named_datasets
            if name not in found
        ]
        for _, data in self.learned_on:
            known, others = provenance.origins(data, self.named_datasets)
            found |= {one.hub_id: one for one in known}
            unknown += others
        return list(found.values()), list(dict.fromkeys(unknown))


def rendered_prompt(adapter: Path, config: Config) -> str:
    """The made-up question as this model is asked it, special tokens and all."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(adapter))
    text: str = tokenizer.decode(prompts.encode_prompt(tokenizer, SHOWN, config).ids)
    return text


def metadata(published: Published) -> Any:
    """The card's YAML as the Hub client's ModelCardData, which checks its form."""
    from huggingface_hub import ModelCardData

    known, _ = published.datasets()
    named = [name for name in published.named_datasets if name not in {one.hub_id for one in known}]
    carbon, gpu = published.carbon, published.stamp.get("gpu")
    more: dict[str, Any] = {}
    if carbon is not None:
        more["co2_eq_emissions"] = provenance.metadata(carbon, str(gpu), published.stamp.get("processes") or 1)
    if licence := published.licence or provenance.LICENCES.get(published.base):
        more["license"] = licence
    if evaluation := published.evaluation:
        more |= {"model_name": published.repo_id.partition("/")[2], "eval_results": _results(published, evaluation)}
        more["metrics"] = ["execution_accuracy"]
    return ModelCardData(
        library_name="peft",
        base_model=published.base,
        pipeline_tag="text-generation",
        language="en",
        datasets=[one.hub_id for one in known] + named or None,
        tags=["text-to-sql", "text2sql", "sql", "lora", "base_model:adapter:" + published.base],
        **more,
    )


def _results(published: Published, evaluation: Evaluation) -> list[Any]:
    from huggingface_hub import EvalResult

    known, _ = provenance.origins(evaluation.data, published.named_datasets)
    where = known[0] if known else None
    return [
        EvalResult(
            task_type="text-generation",
            task_name="text-to-SQL",
            dataset_type=where.hub_id if where else evaluation.data.name,
            dataset_name=where.name if where else f"{evaluation.data.name} ({_origin(evaluation.data)})",
            dataset_split=evaluation.split,
            metric_type=key.removeprefix("eval/"),
            metric_name=f"{name}, {evaluation.rules} rules{_interval(evaluation.metrics, key)}",
            metric_value=round(evaluation.metrics[key], 4),
        )
        for key, name in MEASURED.items()
        if key in evaluation.metrics
    ]


def _origin(data: Data) -> str:
    return "made by text2sql" if data.path == "mini" else "the publisher's own copy"


def _interval(metrics: Mapping[str, float], key: str) -> str:
    if f"{key}_low" not in metrics:
        return ""
    low, high = (100 * metrics[f"{key}_{side}"] for side in ("low", "high"))
    return f", 95 % interval {low:.1f} to {high:.1f} %"


def text(published: Published) -> str:
    """The whole card, YAML and all."""
    parts = [
        f"---\n{metadata(published).to_yaml()}\n---\n",
        f"# {published.repo_id.partition('/')[2]}\n",
        _opening(published),
        "## Use\n",
        loading(published.repo_id, published.base, published.levels_below),
        _use(published),
        "## Prompt\n",
        f"The answer is learned for prompts of this form (`prompt={published.config.prompt.style}`), here with a made-up "
        f"question:\n\n```text\n{published.prompt}\n```\n",
        "## Figures\n",
        _figures(published),
        "## Data\n",
        _data(published),
        "## Intended use and limits\n",
        _limits(published),
        "## How it was made\n",
        _how(published),
        "## Hardware and carbon\n",
        _hardware(published),
    ]
    return "\n".join(parts)


def _opening(published: Published) -> str:
    lora, phase = published.config.lora, published.config.phase
    named = f" {phase.name.replace('_', ' ')}" if phase.name else ""
    return (
        f"A LoRA adapter (r {lora.r}, alpha {lora.lora_alpha}) of [{published.base}](https://huggingface.co/{published.base}) "
        f"that writes SQLite queries from a schema and a question. Phase {phase.number}{named}, trained with text2sql.\n"
    )


def loading(repo_id: str, base: str, levels_below: int) -> str:
    """The lines that load the adapter with plain PEFT; `levels_below` adapters were merged into its base, the lowest first."""
    if not levels_below:
        lines = [
            "from peft import AutoPeftModelForCausalLM",
            f'model = AutoPeftModelForCausalLM.from_pretrained("{repo_id}")',
        ]
        return "```python\n" + "\n".join(lines) + "\n```\n"
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        f'model = AutoModelForCausalLM.from_pretrained("{base}")',
    ]
    for level in range(levels_below, 0, -1):
        below = "/".join(["merged"] * level)
        lines.append(f'model = PeftModel.from_pretrained(model, "{repo_id}", subfolder="{below}").merge_and_unload()')
        lines.append('vars(model).pop("peft_config", None)  # PEFT before 0.21 takes the next adapter for a second one')
    lines.append(f'model = PeftModel.from_pretrained(model, "{repo_id}")')
    return "```python\n" + "\n".join(lines) + "\n```\n"


def _use(published: Published) -> str:
    quant, repo_id = published.config.quant, published.repo_id
    said = [f'The tokenizer is `AutoTokenizer.from_pretrained("{repo_id}")`.']
    if published.levels_below:
        said.append("It learned on weights with the adapter in `merged/` merged into them, hence the lines more.")
    if quant.enabled:
        kind = quant.bnb_4bit_quant_type.upper() if quant.load_in_4bit else "8-bit"
        said.append(
            f"In training the base model was quantised ({kind}); a `quantization_config` of that kind loads it so."
        )
    said.append(f"`config.yaml` has every setting, and `python evaluate.py adapter={repo_id}` takes them from there.")
    return " ".join(said) + "\n"


def _figures(published: Published) -> str:
    evaluation = published.evaluation
    loss = published.metrics.get("validation/loss")
    lines = [f"Validation loss at the end of training: {loss:.4f}.\n"] if loss is not None else []
    if evaluation is None:
        return "\n".join(["This adapter was not evaluated: there are no figures on the SQL that it writes.\n", *lines])
    metrics = evaluation.metrics
    rows = ["| measure | value | 95 % interval | questions |", "| --- | --- | --- | --- |"]
    keys = {key: name for key, name in MEASURED.items() if key in metrics}
    keys |= {f"eval/{level}/execution_accuracy": f"execution accuracy, {level}" for level in LEVELS}
    for key, name in keys.items():
        if key not in metrics:
            continue
        interval = _interval(metrics, key).removeprefix(", 95 % interval ") or "-"
        # exact match is over the golds that the official parser takes, whose number is not in the metrics
        count = None if key == "eval/exact_match" else metrics.get(f"{key.rpartition('/')[0]}/examples")
        rows.append(f"| {name} | {100 * metrics[key]:.1f} % | {interval} | {'-' if count is None else int(count)} |")
    known, _ = provenance.origins(evaluation.data, published.named_datasets)
    where = known[0].name if known else f"data={evaluation.data.name}, {_origin(evaluation.data)}"
    said = (
        f"On the {evaluation.split} split of {where}, {evaluation.answers}, judged by execution ({evaluation.rules} rules); "
        f"Wilson intervals over questions, one training run.\n"
    )
    return "\n".join([said, *rows, "", f"By `{evaluation.command}`.", "", *lines])


def _data(published: Published) -> str:
    phases = [f"- {phase}: data={data.name}{_rows(data)}" for phase, data in published.learned_on]
    known, unknown = published.datasets()
    sets = [f"- [{one.name}](https://huggingface.co/datasets/{one.hub_id}), {one.licence}. {one.note}" for one in known]
    gap = [published.lineage_gap] if published.lineage_gap else []
    return "\n".join([*phases, *gap, "", *sets, *(f"- {sentence}" for sentence in unknown), ""])


def _rows(data: Data) -> str:
    return "" if data.max_samples is None else f", at most {data.max_samples:,} rows"


def _limits(published: Published) -> str:
    licence = published.licence or provenance.LICENCES.get(published.base)
    licensed = f"Licence of the adapter: {licence}" if licence else "The publisher has named no licence for the adapter"
    return (
        "For research on text-to-SQL and for drafts of read-only queries that a person or a sandbox checks. Questions are "
        "English and the dialect is SQLite.\n\n"
        "- It can name tables and columns that do not exist, and queries that run can still be wrong.\n"
        "- It does not know which questions a schema cannot answer.\n"
        "- Run what it writes on a read-only connection with limits; a schema or question from strangers is untrusted input.\n"
        "- Not for decisions about people, and not measured for bias of the base model or the data.\n\n"
        f"{licensed}; the base model and the data have licences of their own.\n"
    )


def _how(published: Published) -> str:
    stamp = published.stamp
    versions = stamp.get("versions", {})
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "peft", "trl") if name in versions
    )
    lines = [f"```bash\npython {stamp.get('command', '')}\n```\n"]
    if stamp.get("commit"):
        changed = ", with local changes" if stamp.get("dirty") else ""
        lines.append(f"At commit `{stamp['commit']}` of text2sql{changed}.")
    lines.append(
        f"Seed {stamp.get('seed')}; {named}. `text2sql reproduce RUN` repeats a run from its folder and compares.\n"
    )
    return "\n".join(lines)


def _hardware(published: Published) -> str:
    stamp, seconds = published.stamp, published.metrics.get("train/seconds")
    processes = stamp.get("processes") or 1
    device = stamp.get("gpu") or f"{stamp.get('cpu', 'CPU')} ({stamp.get('cores', '?')} cores)"
    took = f", {seconds / 3600:.2f} h of training" if seconds is not None else ""
    carbon = published.carbon
    if carbon is None:
        said = "Energy and carbon: not measured."
    else:
        said = (
            f"Carbon: estimated at {carbon.grams:,.0f} g CO2 ({carbon.kwh:.2f} kWh), not measured: {carbon.assumption}. "
            "Earlier phases and evaluation are not in it."
        )
    return f"{processes} x {device}{took}. {said}\n"
