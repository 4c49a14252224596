"""Repeat a run from its folder: what differs here from what it recorded, the run itself again, its results beside the old.

Of the run's folder only .hydra/config.yaml is put into effect, and only the settings that our own schema knows: Hydra's own,
which could name code to call, are refused. Nothing is unpickled. What a setting names (data, a model, an adapter) is
loaded as in any run.
"""

from text2sql.reproduction.differences import Difference as Difference
from text2sql.reproduction.differences import differences as differences
from text2sql.reproduction.differences import not_recorded as not_recorded
from text2sql.reproduction.outcome import Row as Row
from text2sql.reproduction.outcome import compare as compare
from text2sql.reproduction.outcome import footnote as footnote
from text2sql.reproduction.outcome import table as table
from text2sql.reproduction.outcome import tolerance as tolerance
from text2sql.reproduction.plan import Plan as Plan
from text2sql.reproduction.plan import prepare as prepare
from text2sql.reproduction.process import command as command
from text2sql.reproduction.process import repeat as repeat
