"""What holds for every selection strategy."""

from __future__ import annotations

import json
from math import isfinite
from typing import TypeAlias

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones

from psiflow_core.components import CalculatorPredictor, Met, OnlineStrategy, Predictor, SelectionStrategy
from psiflow_core.environments.catalogue import one_of
from psiflow_core.potentials.predictors import Committee
from psiflow_core.structures import digest, displaced, to_plain
from psiflow_core.testing.component import ComponentContract, fresh_python
from psiflow_core.testing.traces import portrait

CHOOSE_ELSEWHERE = """
import json, sys
from psiflow_core.environments.catalogue import one_of
from psiflow_core.structures import from_plain
from psiflow_core.testing.selection import committee
plain, candidates, data = json.load(sys.stdin)
strategy = one_of("selection", plain)
given = [[from_plain(one) for one in several] for several in (candidates, data)]
print(json.dumps(strategy.indices(*given, committee())))
"""


def committee() -> Predictor:
    """Two potentials of pairs that differ: they have an uncertainty and cost nothing."""
    return Committee([CalculatorPredictor(LennardJones(sigma=0.8, epsilon=depth, rc=8.0)) for depth in (0.1, 0.12)])


Question: TypeAlias = tuple[list[Atoms], list[Atoms], Predictor]


class SelectionContract(ComponentContract):
    """What is chosen is there, is chosen once, and would be chosen again."""

    @pytest.fixture
    def candidates(self) -> list[Atoms]:
        """Structures to choose from; override it."""
        random = np.random.default_rng(1)
        return [displaced(molecule("CH3CH2OH"), 0.2, 0.0, random) for _ in range(12)]

    @pytest.fixture
    def data(self) -> list[Atoms]:
        """Structures that have a label; override it."""
        random = np.random.default_rng(2)
        return [displaced(molecule("CH3CH2OH"), 0.05, 0.0, random) for _ in range(4)]

    @pytest.fixture
    def model(self) -> Predictor:
        """What predicts with an uncertainty; override it."""
        return committee()

    @pytest.fixture
    def question(self, candidates: list[Atoms], data: list[Atoms], model: Predictor) -> Question:
        """What the strategy is asked."""
        return candidates, data, model

    def test_each_index_is_there_and_is_chosen_once(self, question: Question) -> None:
        found = self._strategy().indices(*question)
        assert found, "give options by which something is chosen of the candidates"
        assert all(type(number) is int and 0 <= number < len(question[0]) for number in found)
        assert len(set(found)) == len(found)

    def test_the_same_question_has_the_same_answer(self, question: Question) -> None:
        strategy = self._strategy()
        first = strategy.indices(*question)
        strategy.indices(question[0][::-1], *question[1:])
        assert strategy.indices(*question) == first
        assert self._strategy().indices(*question) == first

    def test_it_chooses_alike_in_every_process(self, candidates: list[Atoms], data: list[Atoms]) -> None:
        given = [self._strategy().to_plain(), *([to_plain(one) for one in several] for several in (candidates, data))]
        said = fresh_python(CHOOSE_ELSEWHERE, given, PYTHONHASHSEED="42")
        assert json.loads(said.splitlines()[-1]) == self._strategy().indices(candidates, data, committee())

    def test_no_more_are_chosen_than_it_is_told(self, question: Question) -> None:
        if "count" not in self.component.model_fields:
            pytest.skip("it has no option 'count'")
        for count in (1, 2, 5):
            few = self.component.parse({**self.options, "count": count})
            assert len(few.indices(*question)) <= count

    def test_of_nothing_nothing_is_chosen(self, data: list[Atoms], model: Predictor) -> None:
        assert self._strategy().indices([], data, model) == []

    def test_structures_are_left_as_they_were(self, question: Question) -> None:
        before = [portrait(atoms) for atoms in (*question[0], *question[1])]
        self._strategy().indices(*question)
        assert [portrait(atoms) for atoms in (*question[0], *question[1])] == before

    def test_it_is_plain_data_and_comes_back(self, question: Question) -> None:
        """A campaign that is run again has the same strategy."""
        again = one_of("selection", json.loads(json.dumps(self._strategy().to_plain(), allow_nan=False)))
        assert again == self._strategy()
        assert isinstance(again, SelectionStrategy)
        assert again.indices(*question) == self._strategy().indices(*question)

    def test_a_campaign_gets_the_same_answer_whenever_it_asks(self, candidates: list[Atoms]) -> None:
        """The state of a campaign follows from its journal alone: after a restart the strategy is asked again."""
        if not issubclass(self.component, OnlineStrategy):
            pytest.skip("campaigns cannot follow it")
        met = [
            Met(digest(atoms), spread) for atoms, spread in zip(candidates, (None, 0.0, 0.1, 1.0, np.inf), strict=False)
        ]
        first = [(strategy.wanted(one), strategy.priority(one)) for strategy in [self._online()] for one in met]
        strategy = self._online()
        again = [(strategy.wanted(one), strategy.priority(one)) for one in reversed(met)]
        assert again[::-1] == first
        assert all(isinstance(wanted, bool) for wanted, _ in first)
        assert all(isfinite(first[number][1]) for number, one in enumerate(met) if one.deviation != np.inf)

    def _strategy(self) -> SelectionStrategy:
        strategy: SelectionStrategy = self.build()
        return strategy

    def _online(self) -> OnlineStrategy:
        strategy: OnlineStrategy = self.build()
        return strategy
