"""A part of what `python -m tests.chaos.fuzz` tries."""

from __future__ import annotations

import pytest

from tests.chaos import fuzz


@pytest.mark.parametrize(
    ("kind", "n"), [("studies", 200), ("idx_files", 60), ("image_folders", 40), ("text_files", 20)]
)
def test_a_spoilt_file_is_read_or_refused_with_a_message(kind, n):
    report = fuzz.try_kind(kind, range(n))
    assert not report.faults, "\n".join(report.faults)
    assert report.outcomes["refused"] > n // 4


@pytest.mark.slow
def test_a_spoilt_database_is_read_or_refused_and_stays_as_it_is():
    report = fuzz.try_kind("databases", range(5))
    assert not report.faults, "\n".join(report.faults)
    assert report.outcomes["refused"] > 1


def test_an_exported_optimizer_takes_an_argument_or_refuses_it_in_words():
    report = fuzz.try_kind("exports", range(30))
    assert not report.faults, "\n".join(report.faults)
    assert report.outcomes["refused"] > 10


def test_any_table_is_a_configuration_or_refused_with_a_message():
    assert fuzz.tables(120) >= 100


def test_any_parameters_are_a_genome_or_refused_with_a_message():
    assert fuzz.genomes(120) >= 100


def test_an_input_can_be_made_again():
    first, second = (fuzz.try_kind("idx_files", range(20), seed=5).outcomes for _ in range(2))
    assert first == second
