"""What a Hub or W&B that is away costs a run, as the table of docs/reliability.md: python benchmarks/outages.py (five minutes).

Each run is a process of its own that trains the tiny model for ten steps with five checkpoints, hub=push and tracking=wandb,
against servers on loopback: both well, then one of them with a fault from the start. Wall times with the start of Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fake_hub import FakeHub
from fake_wandb import FakeWandb

from text2sql import runs, uploads

ROOT = Path(__file__).resolve().parent.parent
RUN = (
    "phase=1 model=tiny hardware=cpu hardware.bf16=false data.path=mini prompt.max_sql_tokens=64 data.max_samples=24 "
    "data.max_validation_samples=4 trainer.batch_size=5 trainer.num_train_epochs=2 trainer.save_steps=2 "
    "eval.num_live_samples=0 hub=push hub.hub_model_id=tester/x tracking=wandb"
).split()
FAULTS = ("unreachable", "slow", "cut", 401, 403, 429, 500)


def measure(service: str, fault: object) -> None:
    with tempfile.TemporaryDirectory() as folder, FakeHub(Path(folder) / "hub") as hub, FakeWandb() as wandb:
        addresses = {"HF_ENDPOINT": hub.url, "WANDB_BASE_URL": wandb.url}
        if fault == "unreachable":
            addresses["HF_ENDPOINT" if service == "Hub" else "WANDB_BASE_URL"] = "http://127.0.0.1:1"
        elif fault is not None:
            (hub if service == "Hub" else wandb).fault = fault
        run = Path(folder) / "run"
        key = {"WANDB_API_KEY": "ab" * 20, "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}
        settings = {**os.environ, **hub.environment(), **key, **addresses}
        began = time.monotonic()
        command = [sys.executable, str(ROOT / "train.py"), *RUN, f"hydra.run.dir={run}"]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=folder, check=False)
        seconds = time.monotonic() - began
        said = len(re.findall(r"not uploaded to the Hub|W&B goes offline", (run / "train.log").read_text()))
        status, left = (runs.read(run) or {}).get("status"), len(uploads.pending(run))
        hub.fault = wandb.fault = None
        settings |= {"HF_ENDPOINT": hub.url, "WANDB_BASE_URL": wandb.url}
        sync = [sys.executable, "-c", "import sys; from text2sql import cli; sys.exit(cli.main())", "sync", str(run)]
        synced = subprocess.run(sync, env=settings, capture_output=True, cwd=folder, check=False).returncode
        after = len(uploads.pending(run))
    print(
        f"| {service} {fault or 'well'} | {status}, exit code {done.returncode} | {seconds:.1f} s | {said} | {left} | "
        f"{after}, exit code {synced} |",
        flush=True,
    )


if __name__ == "__main__":
    print(
        "| server | run | wall time | warnings | queued | left after text2sql sync |\n| --- | --- | --- | --- | --- | --- |"
    )
    measure("both", None)
    for service in ("Hub", "W&B"):
        for fault in FAULTS:
            measure(service, fault)
