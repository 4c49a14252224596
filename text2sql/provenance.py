"""Where a published adapter comes from, as facts: data sets and their licences, base models, and what computing it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from text2sql.config import Data


@dataclass(frozen=True)
class Dataset:
    """A public data set: its id on the Hub, its name, licence and, in a sentence, what that asks for."""

    hub_id: str
    name: str
    licence: str
    note: str


DATASETS = {
    one.hub_id: one
    for one in (
        Dataset(
            "xlangai/spider",
            "Spider 1.0 (Yu et al., EMNLP 2018)",
            "CC BY-SA 4.0",
            "Name its authors; what is adapted from the data is shared alike.",
        ),
        Dataset(
            "gretelai/synthetic_text_to_sql",
            "gretel synthetic_text_to_sql (Meyer et al., April 2024)",
            "Apache-2.0",
            "Its questions and SQL were written by language models.",
        ),
        Dataset(
            "Salesforce/wikisql",
            "WikiSQL (Zhong et al., 2017)",
            "BSD-3-Clause",
            "Copyright (c) 2017, Salesforce Research.",
        ),
    )
}
DEFAULT_PATHS = {"data/spider": "xlangai/spider"}
"""Where a data set is unpacked by default, and which it is then."""

LICENCES = {
    "mistralai/Mistral-Nemo-Instruct-2407": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}
"""Of base models, by their id on the Hub."""

WATTS = {
    "T4": 70,
    "P100": 250,
    "V100": 300,
    "L4": 72,
    "A10": 150,
    "A100": 400,
    "H100": 700,
    "H200": 700,
    "RTX 3090": 350,
    "RTX 4090": 450,
}
"""The most that a GPU draws by its data sheet (SXM boards where there are several kinds)."""
GRAMS_PER_KWH = 480
"""Carbon dioxide of a kilowatt hour of electricity, a round average over the world in 2023."""


def origins(data: Data, named: list[str]) -> tuple[list[Dataset], list[str]]:
    """The public data sets that `data` stands for, and a sentence for each part whose origin nobody has named.

    A local path says nothing about what lies there: `named`, ids on the Hub, says what it is. Data made by this package
    (`mini`) are no public data set.
    """
    paths = [data.path]
    if data.gretel_path and data.max_gretel_samples:
        paths.append(data.gretel_path)
    found, unknown = [], []
    for path in paths:
        hub_id = DEFAULT_PATHS.get(path, path)
        if path == "mini":
            unknown.append(f"data={data.name} data.path=mini: made by text2sql for tests, Apache-2.0.")
        elif hub_id in DATASETS:
            found.append(DATASETS[hub_id])
        elif not named:
            unknown.append(f"data={data.name}, read from a path of the publisher's: origin and licence are not stated.")
    return found, unknown


@dataclass(frozen=True)
class Carbon:
    """An estimate from above: what the GPUs would have drawn at full power all the time, and the carbon dioxide of that."""

    kwh: float
    grams: float
    assumption: str


def carbon(seconds: float | None, gpu: str | None, processes: int) -> Carbon | None:
    """The estimate for a training of so many seconds on so many GPUs; None where there was no GPU or its power is not known."""
    names = [name for name in WATTS if gpu is not None and name in gpu.replace("-", " ").split()]
    names = names or [name for name in WATTS if gpu is not None and " " in name and name in gpu]
    if seconds is None or not names:
        return None
    watts = WATTS[names[0]]
    kwh = seconds / 3600 * watts * processes / 1000
    assumption = (
        f"{seconds:.0f} s x {processes} x {watts} W (the data sheet's maximum of a {names[0]}, the GPU alone) x "
        f"{GRAMS_PER_KWH} g CO2 a kWh (a round world average)"
    )
    return Carbon(kwh, kwh * GRAMS_PER_KWH, assumption)


def metadata(found: Carbon, gpu: str, processes: int) -> dict[str, Any]:
    """The estimate as the Hub's `co2_eq_emissions`, in grams."""
    return {
        "emissions": round(found.grams, 1),
        "source": f"estimated, not measured: {found.assumption}",
        "training_type": "fine-tuning",
        "hardware_used": f"{processes} x {gpu}",
    }
