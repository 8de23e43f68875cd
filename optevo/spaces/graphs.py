"""`GraphSpace`: update equations as graphs, after arXiv 2404.06679, with a crossover besides.

A trial has the parameters of what its graph expresses. The genes that it doesn't express, and what they
would be, are one more parameter, `GENES`, which no trial suggests: individuals that are bred have it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from optuna.distributions import BaseDistribution

from optevo.naming import hint
from optevo.optim.candidate import Candidate, Variants
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome
from optevo.optim.graphs.graph import UpdateGraph
from optevo.optim.graphs.operations import BINARY, SEARCHED_OPERANDS, UNARY
from optevo.optim.graphs.presets import PRESETS
from optevo.optim.graphs.variants import variants
from optevo.spaces.base import Params, Space, suggest
from optevo.spaces.graph_crossover import crossover
from optevo.spaces.graph_parameters import Ask, asked, decode, distributions, encode
from optevo.spaces.graph_variation import Rates, mutate, random_graph

if TYPE_CHECKING:
    from optuna.trial import Trial

GENES = "genes"  # all of a graph, see `UpdateGraph.to_dict`
CROSSOVER = 0.5  # of children of two parents
MUTATION = 0.5  # of those, times what anneals; all other children are mutated
DRAWS = 10_000  # of a random graph; about half of them pass
CHILDREN = 100  # that are bred for one that passes

_EXAMPLE = "nesterov g"
#: Presets in other words, where the search has none for theirs.
_FORMS = {"opt4": "none div([erfc(erfc(a4))]*qh_v,[dtanh(a8)]*clip(two,[arctan(a13)]*exp(v_hat)))"}


class GraphSpace(Space):
    """All update graphs, with the published prior and mutations.

    The sign of an update is no gene: it is the one with which the shifted sphere is descended.

    Args:
        presets: What `presets()` offers: names of published optimizers, or equations as text, such as
            "nesterov g". Default: none.
        viable: Whether random and bred graphs are drawn until one descends the shifted sphere, which imports
            torch. Default: True.
        as_published: Whether to do what the published program does by mistake, see `Rates`. A bred graph
            then keeps its parent's negated sign, decays may leave [0, 1] by mutation, and an active moving
            average "ema0.95" makes a graph that cannot train. Default: False.
        warmup: Share of a run over which the rate rises; above 1, a number of steps. Default: 0.1.
        hold: Share of it over which the rate stays after that, or likewise steps. Default: 0.
        edge_decay: Probability of a decay on an edge of a random graph. Default: 0.15.

    Raises:
        ValueError: A preset is unknown, or no graph of the space; or a number is out of range.

    Example:
        >>> import numpy as np, torch
        >>> from optevo.spaces import GraphSpace
        >>> space = GraphSpace(presets=["nesterov g"], viable=False)
        >>> rule = space.candidate(space.sample(np.random.default_rng(0))).at_rate(0.1)
        >>> optimizer, schedule = rule.build(torch.nn.Linear(4, 2).parameters(), total_steps=100)
    """

    name = "graph"
    title = "update graphs"
    evolves = True
    own_rate: str | None = None
    needs_rates = True
    part_names = (*SEARCHED_OPERANDS, *UNARY, *BINARY)

    def __init__(
        self,
        presets: Sequence[str] = (),
        *,
        viable: bool = True,
        as_published: bool = False,
        warmup: float = 0.1,
        hold: float = 0.0,
        edge_decay: float = 0.15,
    ) -> None:
        if not 0 <= edge_decay <= 1:
            raise ValueError(f"Invalid edge_decay: {edge_decay}, expected a probability, 0 to 1")
        self.only_viable, self.as_published = viable, as_published
        self.rates = Rates(edge_decay=edge_decay, as_published=as_published)
        self._known = distributions(self.rates.wrappers, signs=as_published)
        self._genome = functools.partial(GraphGenome, warmup=warmup, hold=hold)
        self._genome(Equation.parse("none g"))  # refuses wrong shares
        self._presets = {name: self.params(preset_graph(name, as_published)) for name in presets}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter that can occur; a trial has about ten of them."""
        return dict(self._known)

    def suggest(self, trial: Trial) -> Params:
        """Ask `trial` for the parameters that matter, given those before."""
        params: Params = {}

        def ask(name: str) -> Any:
            params[name] = suggest(trial, name, self._known[name])
            return params[name]

        self._decode(ask)
        return params

    def candidate(self, params: Mapping[str, Any]) -> GraphGenome:
        """The equation of a trial's parameters, with the sign that descends.

        Raises:
            ValueError: A parameter is missing, or none of its choices.
        """
        equation = self._expressed(params).equation()
        fault = _fault(equation, self.as_published)
        if fault is None and not self.as_published:
            equation = replace(equation, negated=bool(_sign(equation)))
        return self._genome(equation, fault=fault)

    def params(self, graph: UpdateGraph) -> Params:
        """The parameters of a graph; with `GENES`, nothing of it is lost."""
        return {**encode(graph, self.as_published), GENES: graph.to_dict()}

    def graph(self, params: Mapping[str, Any]) -> UpdateGraph:
        """The graph of parameters: its genes, unless they express something else.

        Raises:
            ValueError: A parameter is missing or out of range.
        """
        expressed = self._expressed(params)
        if GENES in params:
            graph = _graph_of(params[GENES])
            if encode(graph, self.as_published).items() <= params.items():
                return graph
        return expressed

    def dormant_fault(self, dormant: Params) -> str | None:
        """Why the genes are none of a graph."""
        try:
            if GENES in dormant:
                _graph_of(dormant[GENES])
        except ValueError as error:
            return str(error)
        return None

    def presets(self) -> dict[str, Params]:
        """The presets that this space was made with."""
        return dict(self._presets)

    def express(self, candidate: Candidate, steps: int) -> Params:
        """The parameters of an equation under this space's schedule."""
        if not isinstance(candidate, GraphGenome):
            return super().express(candidate, steps)
        ours = self._genome(candidate.equation)
        if (candidate.warmup, candidate.hold) != (ours.warmup, ours.hold):
            raise ValueError(
                f"its warmup and hold are {candidate.warmup:g} and {candidate.hold:g}, those of this space "
                f"{ours.warmup:g} and {ours.hold:g}"
            )
        return self.params(preset_graph(candidate.text(), self.as_published))

    def sample(self, rng: np.random.Generator) -> Params:
        """A random graph.

        Raises:
            RuntimeError: None of 10,000 passes.
        """
        for _ in range(DRAWS):
            graph = random_graph(rng, self.rates)
            if graph is not None and (passed := self._passed(graph)) is not None:
                return self.params(passed)
        raise RuntimeError(
            f"none of {DRAWS:,} random graphs can descend; edge_decay is {self.rates.edge_decay}"
        )

    def vary(self, parents: Sequence[Params], rng: np.random.Generator, decay: float) -> Params:
        """A mutant of the first parent; with two parents, every other child is a crossover.

        A crossover is mutated with probability ½·`decay`. What makes no graph, and what cannot descend where
        that is asked for, is bred anew; after 100 times the first parent itself is the child.
        """
        graphs = [self.graph(parent) for parent in parents]
        for _ in range(CHILDREN):
            child = self._child(graphs, rng, decay)
            if child is not None and (passed := self._passed(child)) is not None:
                return self.params(passed)
        return dict(parents[0])

    def viable(self, params: Params) -> Params | None:
        """The parameters with the sign that descends; None where neither does."""
        graph = self._signed(self.graph(params))
        return None if graph is None else self.params(graph)

    def whole(self, params: Mapping[str, Any]) -> bool:
        """Whether all parameters that matter are there."""
        try:
            self._expressed(params)
        except ValueError:
            return False
        return True

    def identity(self, params: Params) -> int:
        """A number that graphs share, within one process, that are one optimizer, whatever the sign."""
        return hash(replace(self._expressed(params).equation(), negated=False).normal().text())

    def caveats(self) -> list[str]:
        """Where published optimizers are presets: on what they were selected."""
        if not self._presets.keys() & PRESETS.keys():
            return []
        return ["names published optimizers as presets, which their authors selected on CIFAR-10"]

    def parts(self, params: Mapping[Any, Any]) -> Counter[str]:
        """How often each operation is in use, and how many edges come from each operand."""
        if not self.whole(params):
            return Counter()
        graph = self._expressed(params)
        operations = [graph.genes(number).operation for number in graph.active()]
        operands = [SEARCHED_OPERANDS[i] for _, i in graph.active_pairs() if i < len(SEARCHED_OPERANDS)]
        return Counter([*operations, *operands])

    def expressed(self, params: Params) -> Params:
        """Those that matter."""
        used: Params = {}
        ask = asked(params, self._known)

        def noted(name: str) -> Any:
            used[name] = ask(name)
            return used[name]

        self._decode(noted)
        return used

    def variants(self, winner: Candidate, tuned: Candidate | None) -> Variants:
        """Without each decay and operation, and under the other wrappers."""
        return variants(cast(GraphGenome, winner), tuned)

    def _decode(self, ask: Ask) -> UpdateGraph:
        return decode(ask, self.as_published)

    def _expressed(self, params: Mapping[str, Any]) -> UpdateGraph:
        return self._decode(asked(params, self._known))

    def _child(
        self, parents: Sequence[UpdateGraph], rng: np.random.Generator, decay: float
    ) -> UpdateGraph | None:
        child: UpdateGraph | None = parents[0]
        crossed = len(parents) > 1 and rng.random() < CROSSOVER
        if crossed:
            child = crossover(parents[0], parents[1], rng)
        if child is not None and (not crossed or rng.random() < MUTATION * decay):
            child = mutate(child, rng, self.rates)
        return child

    def _passed(self, graph: UpdateGraph) -> UpdateGraph | None:
        return self._signed(graph) if self.only_viable else graph

    def _signed(self, graph: UpdateGraph) -> UpdateGraph | None:
        """A graph with the sign that descends, or None."""
        equation = replace(graph.equation(), negated=False)
        if _fault(equation, self.as_published) is not None or (negated := _sign(equation)) is None:
            return None
        return replace(graph, negated=negated or (self.as_published and graph.negated))


def preset_graph(text: str, as_published: bool = False) -> UpdateGraph:
    """The graph of a published optimizer, by its name, or of an equation's text.

    Raises:
        ValueError: There is none; the message says why.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected the name of a preset or an equation, such as {_EXAMPLE!r}")
    if text in PRESETS:
        equation = Equation.parse(_FORMS[text]) if text in _FORMS else PRESETS[text].equation
    elif " " in text.strip():
        equation = Equation.parse(text)
    else:
        otherwise = f"expected one of {', '.join(PRESETS)}, or an equation, such as {_EXAMPLE!r}"
        raise ValueError(f"unknown preset {text!r}: {hint(text, PRESETS, otherwise)}")
    if as_published and equation.wrapper == "nesterov":
        equation = replace(equation, wrapper="lookahead")
    wrappers = Rates(as_published=as_published).wrappers
    try:
        if equation.wrapper not in wrappers:
            raise ValueError(f"the wrapper is {equation.wrapper!r}, expected {', '.join(wrappers)}")
        graph = UpdateGraph.from_equation(equation)
        for decay in graph.decays.values():
            if (fault := decay.decay().phenotype_fault()) is not None:
                raise ValueError(f"the decay {fault}")
    except ValueError as error:
        raise ValueError(f"{text!r} is no graph of the space: {error}") from None
    return graph


def _graph_of(genes: Any) -> UpdateGraph:
    if not isinstance(genes, Mapping):
        raise ValueError(f"Invalid {GENES}: {genes!r}, expected those of an update graph")
    return UpdateGraph.from_dict(genes)


@functools.lru_cache(maxsize=4096)
def _fault(equation: Equation, as_published: bool) -> str | None:
    """Why an equation cannot train, whatever its sign and rate."""
    if as_published:
        averages = any(node.name == "ema0.95" for node in equation.nodes())
        return "gate: ema0.95 is not finite in the published program" if averages else None
    decays = dict.fromkeys(edge.decay for edge in equation.edges() if edge.decay is not None)
    faults = (fault for decay in decays if (fault := decay.phenotype_fault()) is not None)
    return next((f"gate: the decay {fault}" for fault in faults), None)


@functools.lru_cache(maxsize=4096)
def _sign(equation: Equation) -> bool | None:
    """See `optevo.optim.graphs.gate.sign`."""
    from optevo.optim.graphs.gate import sign  # noqa: PLC0415  torch only where it is needed

    return sign(equation)
