"""`optevo.search` from Python: the same as from the command line, and with a model of one's own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import Dataset

import optevo
from optevo.api.settings import configuration
from optevo.errors import UserError
from optevo.tasks.own import given

SMALL = {
    "steps": 2,
    "seeds": 1,
    "batch_size": 16,
    "sampler": {"n_elites": 1},
    "generations": 2,
    "population": 3,
    "space": {"presets": ["sgd", "adam"]},
    "rerun": {"candidates": 1, "seeds": 2},
    "progress": False,
}


def points(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.25), nn.Linear(4, 2))


def searched(**changes: Any) -> optevo.SearchResult:
    return optevo.search(**{"model": network, "train": points(), "name": "sums", **SMALL, **changes})


def rules(study: Any) -> list[Any]:
    return sorted(
        (t.user_attrs["optevo:generation"], t.user_attrs["optevo:slot"], t.params) for t in study.trials
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searched")


@pytest.fixture(scope="module")
def result(folder: Path) -> optevo.SearchResult:
    return searched(storage=f"sqlite:///{folder / 'a.db'}")


def test_a_result_tells_of_its_best_in_words_frames_and_figures(result, folder: Path):
    assert result.complete
    assert "sums, 5 of 5 trials, complete" in repr(result)
    assert "Δ" in result.formula
    assert "<table>" in result._repr_html_()
    assert len(result.frame()) == 5
    assert result.figure("fitness").data
    assert result.study.trials[result.best.number].params == result.best.params
    assert result.export(folder / "evolved.py").read_text().startswith('"""')
    with pytest.raises(UserError, match="did you mean 'lineage'"):
        result.figure("linage")


def test_the_best_is_an_optimizer_at_its_own_rate_and_follows_its_schedule(result):
    model = network()
    optimizer = result.optimizer(model.parameters())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(result.candidate.lr)
    schedule = result.scheduler(optimizer, total_steps=10)
    expected = result.candidate.schedule(10)
    for step in range(5):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(result.candidate.lr * expected(step))
        model(points()[0]).sum().backward()
        optimizer.step()
        schedule.step()


def test_the_same_call_resumes_and_another_model_or_other_data_are_refused(result, folder: Path):
    url = f"sqlite:///{folder / 'a.db'}"
    given._here.clear()  # as in another process
    assert rules(searched(storage=url).study) == rules(result.study)
    with pytest.raises(UserError, match="another configuration"):
        searched(storage=url, model=lambda: nn.Linear(2, 2))
    with pytest.raises(UserError, match="another configuration"):
        searched(storage=url, steps=3)


def test_a_search_that_was_stopped_goes_on_with_its_data_and_no_other(url: str, result):
    part = searched(storage=url, stop_after=2)
    assert not part.complete
    assert "the same call goes on" in repr(part)
    with pytest.raises(UserError, match="sums"):
        searched(storage=url, train=points(seed=1))
    assert rules(searched(storage=url).study) == rules(result.study)


def test_a_finished_search_goes_on_with_more_generations_and_is_measured_again(url: str, result):
    searched(storage=url, generations=1)
    told = io.StringIO()
    longer = searched(storage=url, progress=Console(file=told, width=200))
    assert rules(longer.study) == rules(result.study)
    assert longer.complete
    assert seeds_of(longer) == seeds_of(result)
    assert "further than it did: sampler.n_generations: 1 → 2\n" in told.getvalue()
    with pytest.raises(UserError, match="gets no shorter"):
        searched(storage=url, generations=1)


def seeds_of(result: optevo.SearchResult) -> list[Any]:
    return [(row.name, row.by_seed) for row in result.measured.rows]


def test_threads_and_the_global_generator_are_left_as_they_were(url: str):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    searched(storage=url, generations=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_model_of_ones_own_lives_in_its_program_alone(folder: Path, result):
    given._here.clear()
    with pytest.raises(UserError, match=r"call optevo\.search there again"):
        optevo.compare("sums", storage=f"sqlite:///{folder / 'a.db'}", progress=False)


class Pairs(Dataset):
    def __init__(self, *examples: Any) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Any:
        return self.examples[i]


def test_a_map_style_data_set_is_read_once_into_tensors():
    split = given._split("train", Pairs((torch.ones(3), 1), (torch.zeros(3), 0)))
    assert split.inputs.tolist() == [[1.0] * 3, [0.0] * 3]
    assert split.targets.tolist() == [1, 0]
    assert split.targets.dtype == torch.int64
    loader = torch.utils.data.DataLoader(Pairs((torch.ones(3), 1.5)))
    assert given._split("train", loader).targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Pairs((torch.ones(3), 1), (torch.ones(4), 0)), "example 1 has shape"),
        (Pairs(torch.ones(3)), "no pair"),
        (iter([1]), "map-style"),
        ((torch.ones(3, 2), torch.ones(2)), "3 inputs but 2 targets"),
        ((torch.ones(0, 2), torch.ones(0)), "no examples"),
    ],
)
def test_data_that_fit_nothing_are_refused(data: Any, said: str):
    with pytest.raises(UserError, match=said):
        given._split("train", data)


def test_losses_and_metrics_of_ones_own_are_used():
    x, _ = points()
    entry = given.give(
        "line",
        lambda: nn.Linear(2, 1),
        (x, x.sum(1, keepdim=True)),
        loss=lambda outputs, targets: (outputs - targets).abs().mean(),
        metric=lambda outputs, targets: -float((outputs - targets).abs().max()),
    )
    task = given.given(**entry["options"])
    splits = task.load(Path())
    model = task.model(torch.Generator().manual_seed(0))
    inputs, targets = splits["validation"].inputs, splits["validation"].targets
    with torch.no_grad():
        away = (model(inputs) - targets).abs()
        assert task.loss(model, (inputs, targets)).item() == pytest.approx(away.mean().item())
    assert task.score(model, splits["validation"]) == pytest.approx(-away.max().item())
    assert not task.has_bonus
    with pytest.raises(UserError, match="no test data were given"):
        _ = splits["test"].targets


def test_keywords_change_what_a_file_says_and_faults_name_the_key(tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_text(
        'name="a"\n[sampler]\nkind="genetic"\nn_generations=3\n[evaluation]\ntasks=["digits"]\nsteps=9\n'
    )
    config = configuration(file, generations=5, seeds=3)
    assert (config.sampler.n_generations, config.evaluation.steps, config.evaluation.seeds) == (
        5,
        9,
        (0, 1, 2),
    )
    assert configuration(file) == configuration(str(file))
    assert configuration(file, sampler={"kind": "random", "n_trials": 4}).n_trials == 4
    assert configuration(None, tasks="digits").name == "digits"
    with pytest.raises(UserError, match="n_generations"):
        configuration(file, generations=0)
    with pytest.raises(UserError, match="tasks='digits'"):
        configuration(None, generations=3)
    with pytest.raises(UserError, match="model and train together"):
        optevo.search(model=network)


@pytest.mark.slow
def test_python_and_the_command_line_search_the_same_genomes(optevo: Any, tmp_path: Path):
    import optevo as library  # noqa: PLC0415  the fixture has its name

    file = tmp_path / "study.toml"
    file.write_text(
        'name="digits"\nspace={presets=["sgd","adam"]}\n[sampler]\nkind="genetic"\npopulation_size=3\nn_generations=2\nn_elites=1\n'
        '[evaluation]\ntasks=["digits"]\nsteps=2\nseeds=[0]\nbatch_size=16\n[rerun]\ncandidates=1\nseeds=2\n'
    )
    answer = optevo("run", str(file), "--storage", f"sqlite:///{tmp_path / 'cli.db'}", "--workers", "2")
    assert answer.status == 0, answer
    mine = library.search(tasks="digits", storage=f"sqlite:///{tmp_path / 'py.db'}", workers=1, **SMALL)
    theirs = library.search(str(file), storage=f"sqlite:///{tmp_path / 'cli.db'}", progress=False)
    assert rules(mine.study) == rules(theirs.study)
    assert {t.value for t in mine.study.trials} == {t.value for t in theirs.study.trials}
