"""Train one phase of the curriculum: `python train.py phase=2 data=spider`; `--help` lists every choice."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from text2sql import commandline, config


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    """One run in one folder; returns the validation loss, which is what a sweep minimises."""
    from text2sql import data, launch, prompts  # after the first line of progress

    settings = config.load(cfg)
    prompts.check_style(settings.prompt)
    data.check(settings.data)
    return launch.run(settings, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    with commandline.readable_errors():
        main()
