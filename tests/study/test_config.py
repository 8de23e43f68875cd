"""What a study file may say, and what is said to the person whose file is wrong."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optevo.errors import UserError
from optevo.study.config import StudyConfig, differences, load_config, parse_config

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
FULL: dict[str, Any] = {
    "name": "a study",
    "seed": 1,
    "space": {"kind": "terms", "presets": ["sgd", "adam"]},
    "sampler": {
        "kind": "genetic",
        "population_size": 6,
        "n_generations": 3,
        "n_elites": 2,
        "tournament_size": 3,
    },
    "evaluation": {
        "tasks": ["digits"],
        "steps": 30,
        "seeds": [0, 1],
        "batch_size": 64,
        "split": "validation",
        "precision": "float32",
        "gate": True,
        "pruner": "none",
        "batch_candidates": 1,
    },
    "rerun": {"candidates": 2, "seeds": 4},
}
# Another valid value for every key.
OTHER: dict[str, Any] = {
    "name": "another",
    "seed": 2,
    "space.presets": ["adam", "sgd"],
    "space.viable": True,
    "sampler.population_size": 7,
    "sampler.n_generations": 4,
    "sampler.n_elites": 0,
    "sampler.tournament_size": 2,
    "sampler.asynchronous": True,
    "evaluation.tasks": ["digits", "mnist"],
    "evaluation.steps": 31,
    "evaluation.seeds": [1, 0],
    "evaluation.batch_size": 32,
    "evaluation.split": "test",
    "evaluation.precision": "bfloat16",
    "evaluation.gate": False,
    "evaluation.pruner": "median",
    "evaluation.batch_candidates": 3,
    "rerun.candidates": 1,
    "rerun.seeds": 5,
}
WRONG: dict[str, list[Any]] = {
    "evaluation.precision": ["float16", 32, True],
    "evaluation.gate": ["yes", 1, []],
    "evaluation.batch_candidates": [0, -1, 1.5, "2", 1001, True],
    "sampler.asynchronous": ["yes", 1, None],
    "name": ["", "a\0b", "x" * 201, 3, ["a"], True],
    "seed": [-1, 2**31, 1.0, "0", True, 10**30],
    "space": [3, "terms", []],
    "space.kind": ["trees", 1, []],
    "space.viable": ["yes", 1, None],
    "space.presets": ["sgd", ["lion"], [3], ["sgd", "sgd"], {"sgd": 1}, [True]],
    "sampler": [3, "genetic", []],
    "sampler.kind": ["annealing", 1],
    "sampler.population_size": [1, 0, -5, 2.5, "six", 100_001, True],
    "sampler.n_generations": [0, -1, 1.5, "3", 100_001],
    "sampler.n_elites": [-1, 6, 7, 0.5, "2"],
    "sampler.tournament_size": [0, -1, 1.5, "4"],
    "evaluation": [3, []],
    "evaluation.tasks": [
        [],
        "digits",
        ["imagenet"],
        [3],
        ["digits", "digits"],
        [{"options": {}}],
        [["digits"]],
    ],
    "evaluation.steps": [0, -1, 1.5, "500", 10_000_001, True],
    "evaluation.seeds": [[], [-1], ["0"], 0, [0, 0], [2**31], [1.5]],
    "evaluation.batch_size": [0, -1, 1.5, "128"],
    "evaluation.split": ["train", "Test", 3, ""],
    "rerun": [3, []],
    "rerun.candidates": [-1, 1.5, "3"],
    "rerun.seeds": [1, 0, -1, [0, 1], "5"],
}


def with_value(key: str, value: Any, base: dict[str, Any] = FULL) -> dict[str, Any]:
    data = copy.deepcopy(base)
    *path, last = key.split(".")
    section = data
    for part in path:
        section = section[part]
    section[last] = value
    return data


def without(key: str) -> dict[str, Any]:
    data = copy.deepcopy(FULL)
    *path, last = key.split(".")
    section = data
    for part in path:
        section = section[part]
    del section[last]
    return data


def complaint(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(data, "study.toml")
    return str(caught.value)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_that_comes_with_optevo_loads(path: Path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=repr
)
def test_a_wrong_value_names_file_and_key(key: str, value: Any):
    message = complaint(with_value(key, value))
    assert "study.toml" in message
    assert key.rsplit(".", maxsplit=1)[-1] in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("seed", "zero", "integer"),
        ("sampler.population_size", 1, "greater than or equal to 2"),
        ("sampler.kind", "annealing", "'genetic'"),
        ("space.kind", "trees", "'terms'"),
        ("space.presets", ["lion"], "adamw"),
        ("evaluation.split", "train", "'validation'"),
        ("evaluation.tasks", ["speech"], "digits"),
        ("evaluation.steps", 0, "greater than or equal to 1"),
        ("sampler.n_elites", 6, "population_size"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_expected(key: str, value: Any, expected: str):
    message = complaint(with_value(key, value))
    assert str(value).strip("[]'") in message
    assert expected in message


@pytest.mark.parametrize("key", ["nme", "space.preset", "sampler.n_trials", "evaluation.step", "rerun.seed"])
def test_an_unknown_key_is_named(key: str):
    message = complaint(with_value(key, 1))
    assert f"unknown key '{key}'" in message
    assert "study.toml" in message


@pytest.mark.parametrize("key", ["genetic", "random", "sampler.genetic", "sampler.random"])
def test_an_unknown_key_that_is_also_a_samplers_name_is_named(key: str):
    assert f"unknown key '{key}'" in complaint(with_value(key, 1))


def test_an_unknown_section_is_named():
    assert "unknown key 'baselines'" in complaint({**FULL, "baselines": {"lr": 0.1}})


@pytest.mark.parametrize("key", ["name", "sampler", "sampler.kind", "evaluation", "evaluation.tasks"])
def test_a_missing_key_is_named(key: str):
    message = complaint(without(key))
    assert key in message
    assert "missing" in message


def test_a_seed_named_twice_is_refused():
    message = complaint(with_value("evaluation.seeds", [4, 4]))
    assert "seeds" in message
    assert "twice" in message


def test_two_mistakes_are_told_together():
    message = complaint({**with_value("seed", -1), "nme": 1})
    assert "seed" in message
    assert "nme" in message


def test_presets_that_do_not_fit_into_the_population_are_refused():
    message = complaint(
        with_value("sampler", {"kind": "genetic", "population_size": 2, "n_elites": 0}) | {"space": {}}
    )
    assert "presets" in message
    assert "2 places" in message


@pytest.mark.parametrize("presets", [[["sgd"]], [{"name": "sgd"}]])
def test_presets_that_are_no_names_are_refused(presets: Any):
    assert "presets" in complaint(with_value("space.presets", presets))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_task_option_that_is_not_finite_is_refused_or_kept(value: float):
    data = with_value("evaluation.tasks", [{"name": "m:f", "options": {"x": value}}])
    try:
        config = parse_config(data, "study.toml")
    except UserError:
        return
    assert parse_config(config.to_dict(), "stored").fingerprint() == config.fingerprint()


# Files


@pytest.mark.parametrize(
    "text",
    [
        'name = "x',
        "name = ",
        "[sampler",
        "a = 1\na = 2",
        "name = x",
        "\x00",
        "seed = " + "9" * 5000,
        "a = " + "[" * 3000,
    ],
    ids=["string", "no value", "table", "twice", "bare", "null byte", "long integer", "deep"],
)
def test_toml_that_does_not_parse_is_refused_with_the_file(tmp_path: Path, text: str):
    path = tmp_path / "broken.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.toml"):
        load_config(path)


def test_a_missing_file_says_where_studies_are(tmp_path: Path):
    with pytest.raises(UserError, match=r"no\.toml.*studies that come with optevo are .*quickstart"):
        load_config(tmp_path / "no.toml")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="cannot read study file"):
        load_config(tmp_path)


@pytest.mark.parametrize("content", [b'name = "\xff\xfe"', "name = 'x'".encode("utf-16")])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "latin.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"latin\.toml"):
        load_config(path)


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(UserError, match="'name' is missing"):
        load_config(tmp_path / "empty.toml")


# Fingerprint and differences


@pytest.mark.parametrize("key", OTHER)
def test_the_fingerprint_changes_with_each_key_that_decides_the_search(key: str):
    changed = parse_config(with_value(key, OTHER[key]), "x").fingerprint()
    assert (changed == parse_config(FULL, "x").fingerprint()) is key.startswith("rerun.")


@pytest.mark.parametrize("key", [key for key in OTHER if key != "name"])
def test_differences_name_exactly_the_changed_key(key: str):
    old, new = parse_config(FULL, "x").to_dict(), parse_config(with_value(key, OTHER[key]), "x").to_dict()
    (line,) = differences(old, new)
    assert line.startswith(f"{key}: ")
    assert "→" in line


def test_every_key_of_the_configuration_is_among_those_tested():
    def leaves(value: Any, prefix: str) -> set[str]:
        if not isinstance(value, dict):
            return {prefix}
        return set().union(*(leaves(v, f"{prefix}.{k}" if prefix else k) for k, v in value.items()))

    whole = parse_config(with_value("space.viable", True), "x")  # a key that is stored where it is true alone
    assert leaves(whole.to_dict(), "") - {"space.kind", "sampler.kind"} == set(OTHER)


def test_equal_configurations_have_no_differences():
    assert differences(parse_config(FULL, "x").to_dict(), parse_config(FULL, "y").to_dict()) == []


def test_another_sampler_is_among_the_differences():
    other = parse_config(with_value("sampler", {"kind": "tpe", "n_trials": 9}), "x").to_dict()
    keys = {line.split(":")[0] for line in differences(parse_config(FULL, "x").to_dict(), other)}
    assert {"sampler.kind", "sampler.n_trials", "sampler.population_size"} <= keys


def test_the_fingerprint_ignores_order_comments_and_written_out_defaults(tmp_path: Path):
    short, long = tmp_path / "short.toml", tmp_path / "long.toml"
    short.write_text('name = "x"\n[sampler]\nkind = "tpe"\nn_trials = 5\n[evaluation]\ntasks = ["digits"]\n')
    long.write_text(
        '# a comment\nseed = 0\nname = "x"\n[evaluation]\nbatch_size = 128\nsplit = "validation"\n'
        'tasks = [{ name = "digits" }]\n[sampler]\nn_trials = 5\nkind = "tpe"\n[rerun]\nseeds = 5\n'
    )
    assert load_config(short).fingerprint() == load_config(long).fingerprint()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_stored_configuration_reads_back_as_the_same(path: Path):
    config = load_config(path)
    assert parse_config(config.to_dict(), "stored") == config


def test_n_trials_leaves_out_the_elites_that_are_not_trained_again():
    assert parse_config(FULL, "x").n_trials == 6 + 2 * (6 - 2)


def test_the_quickstart_runs_at_least_a_hundred_trials():
    (path,) = [path for path in STUDIES if path.stem == "quickstart"]
    assert load_config(path).n_trials >= 100


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse_config(FULL, "x").seed = 3  # type: ignore[misc]


# Whatever TOML can say

leaf = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.sampled_from(["terms", "genetic", "tpe", "random", "digits", "sgd", "validation", "a:b"]),
)
value = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
key = st.sampled_from([*OTHER, *WRONG, "evaluation.x", "x", "random", "sampler.tpe"])


@settings(max_examples=100)
@given(st.lists(st.tuples(key, value), max_size=3))
def test_a_file_changed_anywhere_raises_user_errors_alone(changes: list[tuple[str, Any]]):
    data = copy.deepcopy(FULL)
    for name, new in changes:
        *path, last = name.split(".")
        section: Any = data
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[last] = new
    try:
        config = parse_config(data, "x")
    except UserError:
        return
    assert isinstance(config, StudyConfig)


@settings(max_examples=100)
@given(st.dictionaries(st.one_of(st.text(max_size=6), st.sampled_from(list(FULL))), value, max_size=5))
def test_arbitrary_tables_raise_user_errors_alone(data: dict[str, Any]):
    with contextlib.suppress(UserError):
        parse_config(data, "x")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_user_errors_alone(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        load_config(path)
