"""The contracts, run on components that each break one promise: for `tests/core/testing/test_conformance.py`, which
looks at what fails. Not collected by its name."""

from __future__ import annotations

from typing import Any

from psiflow_core.testing import (
    BiasContract,
    PotentialContract,
    ReferenceContract,
    SamplerContract,
    SelectionContract,
    VariableContract,
    WorkContract,
)
from psiflow_toys import policies, wrong

CAUGHT: dict[str, tuple[type[Any], type[Any], dict[str, Any], set[str]]] = {}
"""By name: contract, component, attributes of the test class, the checks that catch it."""


def _add(contract: type[Any], component: type[Any], *checks: str, **attributes: Any) -> None:
    CAUGHT[component.__name__] = (contract, component, attributes, set(checks))


def _having(sound: type[Any], habit: Any, name: str) -> type[Any]:
    body = {"__module__": wrong.__name__, "__qualname__": name, "habit": staticmethod(habit)}
    return type(sound)(name, (sound,), body)


for _contract, _sound in (
    (ReferenceContract, wrong.SoundReference),
    (SamplerContract, wrong.SoundSampler),
    (PotentialContract, wrong.SoundPotential),
):
    _add(_contract, _sound)
    for _check, _habit in wrong.BAD_HABITS.items():
        _add(_contract, _having(_sound, _habit, f"{_sound.__name__}That{_habit.__name__}"), _check)

_add(
    ReferenceContract,
    _having(wrong.SoundReference, wrong.changes_random_numbers, "Seeds"),
    "test_global_random_numbers_are_left_alone",
)
_add(
    ReferenceContract,
    _having(wrong.SoundReference, wrong.leaves_a_temporary_file, "Litters"),
    "test_no_file_is_left_outside_its_folder",
)
_add(ReferenceContract, wrong.IgnoresCharge, "test_the_charge_matters_or_is_refused")
_add(ReferenceContract, wrong.LosesInfo, "test_a_structure_is_left_as_it_was")
_add(ReferenceContract, wrong.WrapsReference, "test_whole_cells_change_nothing")
_add(ReferenceContract, wrong.SeesTheCell, "test_whole_cells_change_nothing")
_add(ReferenceContract, wrong.TurnsStress, "test_stress_is_the_strain_derivative_of_the_energy")
_add(ReferenceContract, wrong.SharesReference, "test_labels_in_threads_do_not_disturb_each_other")
_add(ReferenceContract, wrong.Remembers, "test_a_label_does_not_depend_on_those_before")

_add(PotentialContract, wrong.IgnoresChargePotential, "test_the_charge_matters_or_is_refused")
_add(PotentialContract, wrong.IgnoresSteps, "test_a_training_takes_the_steps_that_it_is_asked_for")
_add(PotentialContract, wrong.MisreportsSteps, "test_a_training_takes_the_steps_that_it_is_asked_for", steps=40)
_add(PotentialContract, wrong.NeverResumes, "test_an_interrupted_training_is_resumed")
_add(PotentialContract, wrong.ForgetsWhenInterrupted, "test_a_training_that_has_to_stop_goes_on_from_there")
_add(PotentialContract, wrong.Undetermined, "test_the_same_seed_gives_the_same_model")
_add(PotentialContract, wrong.ChangesTrainingSet, "test_training_changes_no_structure")
for _fault, *_checks in (
    ("cutoff 0", "test_nothing_is_seen_beyond_the_cutoff"),
    ("no features",),
    ("stays", "test_its_calculator_can_be_copied_and_pickled"),
    ("wraps", "test_predicting_changes_no_structure"),
    ("other order", "test_a_batch_says_what_single_predictions_say"),
    ("averages", "test_a_batch_says_what_single_predictions_say"),
    ("intensive", "test_energies_of_what_is_far_apart_add_up"),
    ("shares", "test_predictions_in_threads_do_not_disturb_each_other"),
    ("remembers", "test_a_prediction_does_not_depend_on_those_before"),
):
    _name = f"Potential{_fault.title().replace(' ', '')}"
    _body = {"__module__": wrong.__name__, "__annotations__": {}, "fault": _fault}
    _add(PotentialContract, type(wrong.WithFault)(_name, (wrong.WithFault,), _body), *_checks)

_add(SamplerContract, wrong.NeverAsks, "test_the_monitor_is_asked_in_time_and_at_the_end")
_add(SamplerContract, wrong.NeverStops, "test_the_monitor_stops_the_walker_where_it_is")
_add(SamplerContract, wrong.MiscountsSteps, "test_the_monitor_is_asked_in_time_and_at_the_end")
_add(SamplerContract, wrong.NeverMoves, "test_a_walker_moves")
_add(SamplerContract, wrong.LosesCharge, "test_what_a_structure_says_of_itself_stays_with_it")
_add(
    SamplerContract,
    wrong.LetsGo,
    "test_fixed_atoms_stay_where_they_are",
    "test_a_state_is_not_continued_with_other_atoms_fixed",
)
_add(SamplerContract, wrong.WrapsSampler, "test_atoms_are_not_folded_into_the_cell")
_add(SamplerContract, wrong.TakesAnyState, "test_a_state_of_another_sampler_is_refused")
_add(SamplerContract, wrong.MovesTheWalker, "test_the_walker_that_is_given_does_not_change")
_add(SamplerContract, wrong.SharesSampler, "test_walkers_in_threads_do_not_disturb_each_other")

_add(ReferenceContract, _having(wrong.SoundReference, wrong.hangs, "Hangs"), "test_a_label_survives_json", patience=1.0)

PEN = {"variable": {"name": "toy-spread"}, "edge": 1.0, "stiffness": 0.1, "pace": 0.01}

for _component, *_checks in (
    (policies.WrongGradient, "test_the_gradient_is_that_of_the_value"),
    (policies.WrongStrain, "test_the_strain_derivative_is_that_of_the_value"),
    (policies.SeesTheOrigin, "test_translation_changes_nothing", "test_whole_cells_change_nothing"),
    (policies.ForgetsImages, "test_whole_cells_change_nothing"),
):
    _add(VariableContract, _component, *_checks)

for _component, *_checks in (
    (policies.HalfForces, "test_forces_are_minus_the_gradient_of_the_energy"),
    (policies.NoStress, "test_stress_is_the_strain_derivative_of_the_energy"),
    (policies.CountsQuestions, "test_its_memory_is_all_that_it_knows"),
    (policies.CannotGoBack, "test_what_a_look_changes_can_be_taken_back"),
):
    _add(BiasContract, _component, *_checks, options=PEN)

for _component, *_checks in (
    (policies.ChoosesTwice, "test_each_index_is_there_and_is_chosen_once"),
    (policies.CountsFromOne, "test_each_index_is_there_and_is_chosen_once"),
    (policies.DrawsAnew, "test_the_same_question_has_the_same_answer"),
    (policies.TakesAll, "test_no_more_are_chosen_than_it_is_told"),
    (policies.ChangesItsMind, "test_a_campaign_gets_the_same_answer_whenever_it_asks"),
):
    _add(SelectionContract, _component, *_checks)

GAPS: dict[type[Any], dict[str, str]] = {
    SamplerContract: {
        "test_frames_carry_energy_and_forces": "no forces are asked for",
        "test_what_the_forces_raise_comes_out_as_it_is": "no forces are asked for",
    },
}
"""What the toys cannot do, wrong or not."""


def _left_out(name: str, contract: type[Any], component: type[Any]) -> dict[str, None]:
    """Checks that tell nothing new of this toy, and cost a process, or that need a registry that has it."""
    checks = {check for check in dir(contract) if check.startswith("test_")}
    if "That" in name:
        return dict.fromkeys(checks - {*vars(WorkContract)})
    elsewhere = {check for check in checks if "process" in check and check not in vars(WorkContract)}
    by_name = {"test_it_is_found_by_its_name", *({"test_it_is_plain_data_and_comes_back"} & checks)}
    return dict.fromkeys({*by_name, *(elsewhere if "Sound" not in name else ())})


for _name, (_contract, _component, _attributes, _) in CAUGHT.items():
    _given = {"patience": 60.0, "expected_failures": GAPS.get(_contract, {}), "component": _component}
    if _contract is PotentialContract:
        _given["options"] = {"cutoff": 5.5}
    if _contract is SamplerContract:
        _given["moves"] = False
    _body = {**_given, **_attributes, **_left_out(_name, _contract, _component), "__module__": __name__}
    globals()[f"Test{_name}"] = type(f"Test{_name}", (_contract,), _body)
