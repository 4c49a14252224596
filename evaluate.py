"""Score a model: `python evaluate.py adapter=RUN/adapter data=spider`, or a file of SQL with `predictions=FILE`."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from text2sql import commandline


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> float:
    """One evaluation in one folder; returns execution accuracy."""
    from text2sql import scoring  # after the first line of progress

    hydra_config = HydraConfig.get()
    settings = scoring.settings(cfg, list(hydra_config.overrides.task))
    return scoring.score(settings, hydra_config.runtime.output_dir)


if __name__ == "__main__":
    with commandline.readable_errors():
        main()
