"""What is said once all jobs of a sweep are done: its table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

log = logging.getLogger(__name__)


class LogTable(Callback):
    """Hydra calls it when a multirun has ended without an error."""

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        log_table(Path(config.hydra.sweep.dir))


def log_table(folder: Path) -> None:
    """Log the table of the sweep in `folder`; a sweep that cannot be read is a warning, for its jobs are done."""
    from text2sql import sweeps

    try:
        text = sweeps.FORMATS["terminal"](sweeps.read([folder]))
    except (ValueError, OSError) as error:
        log.warning("the table of the sweep cannot be made: %s", error)
        return
    log.info("text2sql table %s\n%s", folder, text.rstrip("\n"))
