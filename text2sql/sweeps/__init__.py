"""A sweep, read back: its jobs side by side as a table, as plots, and as one page that opens offline."""

from __future__ import annotations

from text2sql.sweeps.formats import FORMATS
from text2sql.sweeps.jobs import in_job_order
from text2sql.sweeps.page import write
from text2sql.sweeps.table import read

__all__ = ["FORMATS", "in_job_order", "read", "write"]
