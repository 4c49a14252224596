"""What a run looks like, from the files in its folder: a picture of its losses, and one page with everything it holds."""

from __future__ import annotations

from text2sql.report.losses import plot_losses
from text2sql.report.page import write_page

__all__ = ["plot_losses", "write_page"]
