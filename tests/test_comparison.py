"""Runs are compared question by question, with intervals that know about databases, and nothing is paired that differs."""

import json
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from text2sql import comparison, config
from text2sql.comparison import as_text, compare
from text2sql.comparison.settings import TAKEN_FROM_ADAPTER
from text2sql.comparison.statistics import clustered_interval, holm, mcnemar


def row(number, correct=True, **changes):
    """A row as predictions.jsonl has them; three questions a database."""
    verdict, reason = ("match", "") if correct else ("mismatch", "1 row instead of 2")
    made = {
        "id": f"q{number}",
        "db_id": f"db{number // 3}",
        "question": f"How many {number}?",
        "gold": f"SELECT {number}",
    }
    return {**made, "prediction": "SELECT 1", "verdict": verdict, "reason": reason, "correct": correct, **changes}


def rows(answers):
    return [row(number, answer == "1") for number, answer in enumerate(answers)]


@pytest.fixture
def evaluated(tmp_path):
    """A function that writes the run folder of an evaluation: from its rows, or from 0 and 1 for wrong and right."""

    def write(name, content, cfg=None, overrides=(), **stamp):
        folder = tmp_path / name
        (folder / ".hydra").mkdir(parents=True)
        record = {"kind": "evaluate", "status": "finished", "label": name, **stamp}
        (folder / "run.json").write_text(json.dumps(record))
        content = rows(content) if isinstance(content, str) else content
        (folder / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in content))
        if cfg is not None:
            OmegaConf.save(OmegaConf.create(cfg), folder / ".hydra" / "config.yaml")
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
        return folder

    return write


def by_binomial(only_first, only_second):
    """Twice the smaller tail of a fair coin, at most 1."""
    total, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(total, k) for k in range(least + 1)) / 2**total)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(10, 2, 158 / 4096), (5, 0, 2 / 32), (0, 1, 1.0), (3, 3, 1.0), (1, 8, 20 / 512), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_pairs(only_first, only_second, p):
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_smaller_tail_whichever_run_comes_first(only_first, only_second):
    assert mcnemar(only_first, only_second) == pytest.approx(by_binomial(only_first, only_second), rel=1e-9)
    assert mcnemar(only_first, only_second) == pytest.approx(mcnemar(only_second, only_first), rel=1e-12)


def test_holm_multiplies_the_smallest_by_their_number_and_never_steps_down():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_holm_stops_at_one_and_leaves_a_single_value_alone():
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]


def interval(values, clusters, seed=0, resamples=2000):
    return clustered_interval(values, clusters, resamples=resamples, seed=seed)


def test_values_that_are_all_zero_have_the_interval_zero_to_zero():
    assert interval([0] * 6, list("aabbcc")) == (0.0, 0.0)


def test_one_cluster_has_no_interval():
    assert interval([0, 1, 1], ["a"] * 3) is None


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values, clusters = [number**0.5 for number in range(40)], [str(number // 4) for number in range(40)]
    assert interval(values, clusters) == interval(values, clusters)
    assert interval(values, clusters) != interval(values, clusters, seed=1)


def test_two_clusters_are_drawn_whole():
    # The mean of a draw is 0, 1/4 (one of each: one right of four) or 1; each end has a quarter of the draws.
    assert interval([1, 0, 0, 0], list("abbb")) == (0.0, 1.0)


def test_as_many_clusters_are_drawn_as_there_are():
    # Four draws with one right of four: all four in 1/256 of the resamples, at least three in 13/256.
    assert interval([1, 0, 0, 0], list("abcd")) == (0.0, 0.75)


def test_a_cluster_weighs_by_its_questions():
    # The large cluster is in nearly every draw of sixteen and outweighs all others there.
    values, clusters = [1] * 1000 + [0] * 15, ["large"] * 1000 + [str(number) for number in range(15)]
    low, high = interval(values, clusters)
    assert low == 0.0
    assert 0.98 < high < 1


def test_the_interval_is_that_of_the_binomial_where_every_question_is_its_own_cluster():
    low, high = interval([1] * 200 + [0] * 200, [str(number) for number in range(400)], resamples=10_000)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_questions_that_fall_together_widen_the_interval():
    values = [number < 200 for number in range(400)]
    together = interval(values, [str(number // 20) for number in range(400)])
    apart = interval(values, [str(number) for number in range(400)])
    assert together[1] - together[0] > 3 * (apart[1] - apart[0])


def test_the_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    values, clusters = [number**0.5 for number in range(40)], [str(number // 4) for number in range(40)]
    whole = interval(values, clusters)
    monkeypatch.setattr(comparison.statistics, "CELLS_AT_ONCE", 70)
    assert interval(values, clusters) == whole


def test_identical_runs_differ_by_exactly_nothing(evaluated):
    compared = compare([evaluated("a", "101011001"), evaluated("b", "101011001")])
    (only,) = compared.differences
    assert (only.difference, only.interval, only.p_value, only.gained, only.lost) == (0.0, (0.0, 0.0), 1.0, [], [])


def test_accuracy_and_difference_are_of_the_same_questions(evaluated):
    compared = compare([evaluated("a", "110000"), evaluated("b", "101100")])
    assert [(one.run, one.correct, one.questions, one.accuracy) for one in compared.results] == [
        ("A", 2, 6, 2 / 6),
        ("B", 3, 6, 3 / 6),
    ]
    (only,) = compared.differences
    assert only.difference == pytest.approx(1 / 6)
    assert ([one.id for one in only.gained], [one.id for one in only.lost]) == (["q2", "q3"], ["q1"])
    assert only.p_value == 1.0  # two against one


def test_a_flip_tells_why_the_wrong_run_was_wrong(evaluated):
    before = [row(0, False, verdict="unknown_table", reason="no such table: x"), row(1), row(3)]
    after = [row(0), row(1, False, reason="0 rows instead of 1"), row(3)]
    (only,) = compare([evaluated("a", before), evaluated("b", after)]).differences
    (gained,), (lost,) = only.gained, only.lost
    assert (gained.baseline_verdict, gained.verdict, gained.reason) == ("unknown_table", "match", "no such table: x")
    assert (lost.baseline_verdict, lost.verdict, lost.reason) == ("match", "mismatch", "0 rows instead of 1")


def test_runs_are_paired_by_id_and_not_by_place(evaluated):
    content = rows("100110")
    (only,) = compare([evaluated("a", content), evaluated("b", content[::-1])]).differences
    assert (only.gained, only.lost) == ([], [])


def test_old_rows_count_by_their_verdict(evaluated):
    old = [row(0), row(3, False), row(6, verdict="empty_both")]
    for one in old:
        del one["correct"]
    folder = evaluated("a", old)
    assert compare([folder, folder]).results[0].correct == 2


def test_several_runs_are_each_compared_with_the_first_and_corrected_together(evaluated):
    folders = [evaluated("a", "0" * 12), evaluated("b", "1" * 8 + "0" * 4), evaluated("c", "1" * 6 + "0" * 6)]
    first, second = compare(folders).differences
    assert (first.p_value, second.p_value) == (2 / 2**8, 2 / 2**6)
    assert (first.p_holm, second.p_holm) == (4 / 2**8, 2 / 2**6)


@pytest.mark.parametrize("verdict", ["gold_error", "gold_budget"])
def test_a_question_whose_gold_fails_in_one_run_is_left_out_of_all(evaluated, verdict):
    failing = [row(0), row(1, False, verdict=verdict), *rows("001100")[2:]]
    compared = compare([evaluated("a", "111100"), evaluated("b", failing)])
    assert [one.questions for one in compared.results] == [5, 5]
    assert list(compared.left_out.values()) == [1]
    assert "left out, as their gold fails or hits a limit in a run: 1" in as_text(compared)


def test_another_metric_compares_another_column(evaluated):
    runs = [[row(number, official=number < right) for number in range(6)] for right in (2, 5)]
    compared = compare([evaluated("a", runs[0]), evaluated("b", runs[1])], metric="official")
    assert [one.correct for one in compared.results] == [2, 5]
    assert [one.id for one in compared.differences[0].gained] == ["q2", "q3", "q4"]


def test_a_question_without_the_metric_in_one_run_is_left_out_and_counted(evaluated):
    runs = [[row(number, strict=True) for number in range(6)] for _ in range(2)]
    runs[1][4]["strict"] = None
    compared = compare([evaluated("a", runs[0]), evaluated("b", runs[1])], metric="strict")
    assert compared.questions == 5
    assert compared.left_out == {"as a run has no value of strict for them": 1}


def test_a_metric_that_a_run_lacks_is_an_error(evaluated):
    with pytest.raises(ValueError, match=r"b has no values of exact_match; choose another --metric"):
        compare(
            [evaluated("a", [row(n, exact_match=True) for n in range(4)]), evaluated("b", "1111")], metric="exact_match"
        )


def test_runs_of_which_no_gold_works_leave_nothing_to_compare(evaluated):
    failing = [row(number, False, verdict="gold_error") for number in range(3)]
    with pytest.raises(ValueError, match="all 3 questions are left out"):
        compare([evaluated("a", failing), evaluated("b", failing)])


@pytest.mark.parametrize("stamp", [{"kind": "train"}, {"status": "failed"}, {"status": "running"}])
def test_what_is_no_finished_evaluation_cannot_be_compared(evaluated, stamp):
    with pytest.raises(ValueError, match=r"b is no finished evaluation: its run.json says (train|evaluate)"):
        compare([evaluated("a", "10"), evaluated("b", "10", **stamp)])


def test_a_folder_without_a_run_cannot_be_compared(evaluated, tmp_path):
    with pytest.raises(ValueError, match="nothing is no finished evaluation: it has no run.json"):
        compare([evaluated("a", "10"), tmp_path / "nothing"])


@pytest.mark.parametrize("content", [[], [row(0), row(0)]])
def test_predictions_that_are_missing_or_double_cannot_be_compared(evaluated, content):
    with pytest.raises(ValueError, match=r"b/predictions.jsonl has . rows with . different ids; evaluate again"):
        compare([evaluated("a", "1"), evaluated("b", content)])


def test_one_run_is_too_few(evaluated):
    with pytest.raises(ValueError, match="1 run folders to compare; name 2"):
        compare([evaluated("a", "1")])


@pytest.mark.parametrize(("first", "second", "short"), [("1111", "11", "b"), ("11", "1111", "a")])
def test_questions_missing_in_one_run_are_counted_and_one_is_named(evaluated, first, second, short):
    with pytest.raises(ValueError, match=rf"{short} lacks 2 of the 4 questions of .*, such as q2; --common compares"):
        compare([evaluated("a", first), evaluated("b", second)])


def test_common_compares_the_questions_that_all_runs_have_and_says_so(evaluated):
    folders = [evaluated("a", "1111"), evaluated("b", rows("11111")[1:]), evaluated("c", "1110")]
    compared = compare(folders, common=True)
    assert compared.questions == 3
    assert "only the 3 questions that all runs share are compared" in compared.warnings[0]


def test_common_cannot_help_where_no_question_is_shared(evaluated):
    with pytest.raises(ValueError, match="such as q0; all runs share none"):
        compare([evaluated("a", rows("1111")[:2]), evaluated("b", rows("1111")[2:])], common=True)


@pytest.mark.parametrize("field", ["gold", "question", "db_id"])
@pytest.mark.parametrize("common", [False, True])
def test_one_id_must_mean_one_question(evaluated, field, common):
    changed = [row(0), row(1, **{field: "another"})]
    with pytest.raises(ValueError, match=f"1 of the 2 shared ids have another {field} in .*b than in .*a, such as q1"):
        compare([evaluated("a", "11"), evaluated("b", changed)], common=common)


def test_another_data_hash_is_a_warning(evaluated):
    folders = [
        evaluated(name, "1010", data={"sha256": sha256}) for name, sha256 in (("a", "f00d" * 16), ("b", "beef" * 16))
    ]
    compared = compare(folders)
    assert any("the data hashes differ (A f00df00d, B beefbeef)" in warning for warning in compared.warnings)
    assert compared.settings["data.sha256"] == ["f00d" * 16, "beef" * 16]


@pytest.mark.parametrize(("databases", "warned"), [(9, True), (10, False)])
def test_intervals_from_few_databases_are_called_not_dependable(evaluated, databases, warned):
    folder = evaluated("a", "100" * databases)
    assert any("not dependable" in warning for warning in compare([folder, folder]).warnings) is warned


def test_one_database_gives_no_interval(evaluated):
    folder = evaluated("a", "101")
    compared = compare([folder, folder])
    assert compared.results[0].interval is None
    assert compared.differences[0].interval is None
    assert as_text(compared)


def test_a_run_that_is_wrong_throughout_is_said_to_have_no_bound(evaluated):
    compared = compare([evaluated("a", "0" * 30), evaluated("b", "10" * 15)])
    assert "all right or all wrong, so resampling gives no bound on the accuracy: A" in compared.warnings


def test_settings_that_differ_are_listed_with_their_values_in_every_run(evaluated):
    one = {"seed": 1, "lora": {"r": 16, "target_modules": ["q"]}, "eval": {"split": "test"}}
    two = {"seed": 1, "lora": {"r": 32, "target_modules": ["q", "v"]}, "eval": {"split": "test"}, "beams": 2}
    settings = compare([evaluated("a", "10", one), evaluated("b", "10", two)]).settings
    assert settings == {"beams": [None, "2"], "lora.r": ["16", "32"], "lora.target_modules": ['["q"]', '["q", "v"]']}


def test_a_reference_is_worth_what_it_refers_to(evaluated):
    one = {"model": {"path": "${model.hub_id}", "hub_id": "m"}, "job": "${now:%Y}"}
    two = {"model": {"path": "m", "hub_id": "m"}, "job": "${now:%Y}"}
    assert compare([evaluated("a", "10", one), evaluated("b", "10", two)]).settings == {}


def test_commit_and_versions_are_settings_too(evaluated):
    one = evaluated("a", "10", commit="abc", versions={"torch": "2.8", "trl": "1"})
    two = evaluated("b", "10", commit="def", versions={"torch": "2.9", "trl": "1", "scipy": "1.17"})
    assert compare([one, two]).settings == {
        "commit": ["abc", "def"],
        "versions.scipy": [None, "1.17"],
        "versions.torch": ["2.8", "2.9"],
    }


def test_a_run_without_its_config_is_compared_without_it_and_named(evaluated):
    compared = compare([evaluated("a", "10", {"seed": 1}), evaluated("b", "10")])
    assert compared.settings == {}
    assert "B: its folder has no .hydra/config.yaml, so its config is not compared" in compared.warnings


def test_runs_judged_by_other_rules_are_warned_of_but_not_by_the_number_of_workers(evaluated):
    one, two, three = (
        evaluated(name, "10", {"eval": {"rules": rules, "workers": workers}})
        for name, rules, workers in (("a", "strict", 1), ("b", "official", 1), ("c", "strict", 2))
    )
    assert "the runs were not judged alike: eval.rules differ" in compare([one, two]).warnings
    assert not any("judged" in warning for warning in compare([one, three]).warnings)


def adapter(folder, **cfg):
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(cfg), folder / "config.yaml")
    return str(folder)


def test_the_settings_an_adapter_brings_replace_those_of_the_evaluation_but_for_what_was_typed(evaluated, tmp_path):
    defaults = {"model": {"name": "default"}, "prompt": {"style": "ddl", "max_sql_tokens": 64}}
    trained = adapter(tmp_path / "adapter", model={"name": "small"}, prompt={"style": "terse", "max_sql_tokens": 200})
    base = evaluated("a", "10", {**defaults, "model": {"name": "small"}})
    tuned = evaluated("b", "10", defaults, ["prompt.max_sql_tokens=64"], adapter=trained)
    assert compare([base, tuned]).settings == {"prompt.style": ["ddl", "terse"]}


def test_a_typed_group_stays_the_evaluations(evaluated, tmp_path):
    defaults = {"prompt": {"style": "ddl"}}
    trained = adapter(tmp_path / "adapter", prompt={"style": "terse"})
    tuned = evaluated("b", "10", defaults, ["prompt=ddl"], adapter=trained)
    assert compare([evaluated("a", "10", defaults), tuned]).settings == {}


def test_what_two_adapters_were_trained_with_is_compared_beside_a_run_without_one(evaluated, tmp_path):
    trained = [adapter(tmp_path / name, phase={"number": number}) for number, name in ((1, "one"), (2, "two"))]
    runs = [evaluated("a", "10"), *(evaluated(f"run{n}", "10", adapter=path) for n, path in enumerate(trained))]
    assert compare(runs).settings == {"adapter: phase.number": [None, "1", "2"]}


def test_what_an_adapter_sets_is_not_compared_when_its_folder_is_gone(evaluated, tmp_path):
    base = evaluated("a", "10", {"model": {"name": "small"}, "seed": 1})
    tuned = evaluated("b", "10", {"model": {"name": "default"}, "seed": 2}, adapter=str(tmp_path / "gone"))
    compared = compare([base, tuned])
    assert compared.settings == {"seed": ["1", "2"]}
    assert any(f"is not compared: B {tmp_path / 'gone'}" in warning for warning in compared.warnings)


def test_the_groups_an_adapter_brings_are_those_of_an_evaluation():
    assert TAKEN_FROM_ADAPTER == config.SAVED_WITH_ADAPTER


def test_the_text_shows_the_first_ten_flips_of_a_kind_or_all(evaluated):
    compared = compare([evaluated("a", "0" * 12 + "1"), evaluated("b", "1" * 12 + "0")])
    assert as_text(compared).count("mismatch -> match") == 10
    assert "right in B, wrong in A: 12; the first 10, all with --all" in as_text(compared)
    assert as_text(compared, all_flips=True).count("mismatch -> match") == 12
    assert "--all" not in as_text(compared, all_flips=True)


def test_corrected_p_values_are_shown_for_more_than_two_runs_only(evaluated):
    folders = [evaluated("a", "0000"), evaluated("b", "1100"), evaluated("c", "1110")]
    assert "p (Holm)" in as_text(compare(folders))
    assert "p (Holm)" not in as_text(compare(folders[:2]))


def test_the_text_fits_a_hundred_columns_whatever_questions_and_settings_are_like(evaluated):
    long = {"question": "Which " * 40, "db_id": "d" * 30}
    one = evaluated("a", [row(0, False, reason="no such column: " + "x" * 200, **long)], {"instruction": "a" * 300})
    two = evaluated("b", [row(0, **long)], {"instruction": "a" * 200 + "b" * 100, "adapter": "none"})
    printed = as_text(compare([one, two])).splitlines()[2:]  # after the folders' names, which may be long
    assert max(map(len, printed)) <= 100


def test_long_values_are_cut_so_that_their_difference_is_seen(evaluated):
    folders = [
        evaluated(name, "10", {"adapter": value})
        for name, value in (("a", None), ("b", f"/results/{'x' * 90}/one"), ("c", f"/results/{'x' * 90}/two"))
    ]
    (shown,) = [line for line in as_text(compare(folders)).splitlines() if line.startswith("adapter")]
    assert shown.split() == ["adapter", "null", "...xxx/one", "...xxx/two"]


def test_what_a_terminal_would_obey_is_not_printed(evaluated):
    before = [row(0, False, reason="no such column: \x1b[2J\n\ud800")]
    printed = as_text(compare([evaluated("a", before), evaluated("b", "1")]))
    assert "no such column:  [2J" in printed
    assert "\x1b" not in printed
    printed.encode()
