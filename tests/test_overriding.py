"""What is written for Hydra's command line is what Hydra reads."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given
from hypothesis import strategies as st

from text2sql import overriding
from text2sql.studies import pruning


def read(value):
    found = OverridesParser.create().parse_override(f"key={value}").value()
    return found.text if isinstance(found, QuotedString) else found


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\\'\"$ ")))
def test_any_text_is_read_as_it_was(text):
    assert read(overriding.quoted(text)) == text


@pytest.mark.parametrize(
    "path", ["multirun/2026-01-01_10-00-00_1", "a b", "\u00e9t\u00e9", "it's", "C:\\new\\", "a,b", "{x}"]
)
def test_a_path_is_read_as_it_was_and_quoted_only_if_it_must_be(path):
    assert read(overriding.literal(path)) == path
    assert (overriding.literal(path) == path) == path.startswith("multirun")


def test_a_job_hears_of_its_study_in_any_folder():
    said = pruning.variable("/\u00e9t\u00e9/it's \\ here/study.journal", "study", 3)
    assert read(overriding.quoted(said)) == said
