"""Training: gradient steps on MACE's loss, averaged weights, and checkpoints for exact continuation."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psiflow_core.components import TrainingResult, TrainingTask
from psiflow_core.errors import Interrupted, TrainingFailed
from psiflow_core.files import write_atomically
from psiflow_core.potentials.residuals import Residual, training_errors
from psiflow_mace import _dataset, _start
from psiflow_mace._dataset import Example, residuals
from psiflow_mace._engine import modules, on, precision, threads, torch
from psiflow_mace._graphs import Integers
from psiflow_mace._model import Model
from psiflow_mace.options import MaceOptions

COMPARED = 64
"""Structures on which a child is compared with its parent at the end. [count]"""

WARM_UP = 50
"""Steps over which the learning rate rises if the initial weights are trained: Adam's first steps are as long as the
learning rate, whatever the gradient, since it has no estimate of the variances yet. [count]"""


def train(options: MaceOptions, task: TrainingTask) -> TrainingResult:
    """Train one model, from the checkpoint of an earlier attempt if there is one.

    Raises:
        TrainingFailed: there is nothing to train on, a label is not finite, a species is not covered, the
            parent has another architecture, or the loss is not finite.
        Interrupted: the worker's time is over; there is a checkpoint.
        OptionError: the device cannot be reached.
    """
    device = on(task.resources.device)
    task.folder.mkdir(parents=True, exist_ok=True)
    with threads(task.resources.cores):
        start = _start.model(options, task)
        training = _dataset.examples(task.training, start, "training")
        validation = _dataset.examples(task.validation, start, "validation")
        run = Run(options, task, start, training, validation, device)
        run.resume()
        run.go()
        return run.finish()


class Run:
    """The state of a training after `step` gradient steps."""

    def __init__(
        self,
        options: MaceOptions,
        task: TrainingTask,
        start: Model,
        training: Sequence[Example],
        validation: Sequence[Example],
        device: torch.device,
    ) -> None:
        self._options = options
        self._folder = task.folder
        self._seed = task.seed
        self._interrupted = task.interrupted
        self._steps = task.steps or options.steps
        self._batch_size = options.batch_size or fitting_batch(training)
        self._start = start
        self._device = device
        self._training = training
        self._validation = validation
        self._fingerprint = _start.fingerprint(options, task)
        self._stresses = any(example.stress_weight for example in training)
        self._network = start.network().to(device)
        self._optimizer = _optimizer(self._network, options)
        self._loss = _loss(options, start.dtype, self._stresses).to(device)
        self._warm = _start.is_warm(options, task)
        self._average = _average(self._network, options.ema_decay, self._warm)
        self.step = 0
        self._best: dict[str, Any] = {"loss": np.inf, "step": 0, "weights": None}
        self._history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._stopped = False

    # The loop ----------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Take the remaining steps."""
        if self._warm and self.step == 0:
            self._history.append(self._at_start())
        while self.step < self._steps and not self._stopped:
            self._losses.append(self._take_step())
            self.step += 1
            if self.step % self._options.evaluate_every == 0 or self.step == self._steps:
                self._evaluate()
                self._save_checkpoint()
            if self.step < self._steps and self._interrupted():
                self._save_checkpoint()
                raise Interrupted(f"the training stopped at step {self.step} of {self._steps}")

    def finish(self) -> TrainingResult:
        """Write the model and its errors: the best averaged weights, or the last ones without a validation set."""
        with self._average.average_parameters():
            if self._best["weights"] is not None:
                self._network.load_state_dict(self._best["weights"])
            if self._warm:
                self._fall_back()
            weights = {name: tensor.cpu().clone() for name, tensor in self._network.state_dict().items()}
            errors = training_errors(self._residuals(self._validation or self._training))
        if not np.isfinite(list(errors.values())).all():
            raise TrainingFailed("the trained model's predictions are not finite: lower learning_rate")
        model = Model(**{**vars(self._start), "weights": weights})
        model.save(self._folder / "model.pt")
        return TrainingResult(self._folder / "model.pt", self.step, errors, self._history)

    def _fall_back(self) -> None:
        """Return to the initial weights if the training has made them worse.

        The mean loss decides: the training is meant for the structures on which the parent is wrong.
        """
        some = self._some()
        learned = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        after = np.mean(self._losses_of(self._residuals(some)))
        self._network.load_state_dict(self._start.network().to(self._device).state_dict())
        if after <= np.mean(self._losses_of(self._residuals(some))):
            self._network.load_state_dict(learned)

    def _at_start(self) -> dict[str, float]:
        """Loss and errors before the first step: how well the parent or the foundation model knows the labels."""
        initial = self._residuals(self._some())
        return {"step": 0.0, "loss": float(np.mean(self._losses_of(initial))), **training_errors(initial)}

    def _some(self) -> list[Example]:
        """Evenly spaced structures of all sets, at least `COMPARED` if there are as many."""
        known = [*self._training, *self._validation]
        return known[:: max(1, len(known) // COMPARED)]

    def _take_step(self) -> float:
        batch = [self._training[k] for k in minibatch(self.step, self._seed, len(self._training), self._batch_size)]
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of(batch, training=True)
        loss.backward()
        if self._options.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._options.gradient_clip)
        value = float(loss.detach())
        if not np.isfinite(value):
            option = "warm_learning_rate" if self._warm else "learning_rate"
            raise TrainingFailed(
                f"the loss is not finite at step {self.step}: lower {option}={self._first_rate:g}, "
                "or look for wrong labels in the training set"
            )
        self._optimizer.step()
        self._average.update()
        return value

    def _learning_rate(self) -> float:
        progress = self.step / max(1, self._steps - 1)
        rate = self._first_rate * self._options.learning_rate_decay**progress
        return float(rate * min(1.0, (self.step + 1) / WARM_UP)) if self._warm else float(rate)

    @property
    def _first_rate(self) -> float:
        if not self._warm:
            return self._options.learning_rate
        return self._options.warm_learning_rate or self._options.learning_rate

    def _loss_of(self, examples: Sequence[Example], training: bool) -> torch.Tensor:
        return _dataset.loss(self._network, self._loss, examples, self._start, self._device, self._stresses, training)

    def _evaluate(self) -> None:
        entry = {"step": float(self.step), "loss": float(np.mean(self._losses))}
        self._losses = []
        if self._validation:
            entry |= self._validate()
            patience = self._options.patience
            waited = (self.step - self._best["step"]) / self._options.evaluate_every
            self._stopped = patience is not None and waited >= patience
        self._history.append(entry)

    def _validate(self) -> dict[str, float]:
        """Loss and errors of the averaged weights on the validation set; the best weights so far are kept."""
        with self._average.average_parameters():
            residuals = self._residuals(self._validation)
            errors, loss = training_errors(residuals), self._typical_loss(residuals)
            if loss < self._best["loss"]:
                weights = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
                self._best = {"loss": loss, "step": self.step, "weights": weights}
        return {"validation_loss": loss, **errors}

    def _residuals(self, examples: Sequence[Example]) -> list[Residual]:
        return residuals(self._network, examples, self._start, self._device)

    def _typical_loss(self, errors: Sequence[Residual]) -> float:
        """The geometric mean of the structures' losses: a single outlier does not dominate a small set."""
        return float(np.exp(np.mean(np.log(np.maximum(self._losses_of(errors), 1e-30)))))

    def _losses_of(self, errors: Sequence[Residual]) -> list[float]:
        weights = self._options
        return [
            float(
                weights.energy_weight * one.energy**2
                + weights.forces_weight * np.mean(one.forces**2)
                + (0.0 if one.stress is None else weights.stress_weight * np.mean(one.stress**2))
            )
            for one in errors
        ]

    # Checkpoints -------------------------------------------------------------------------------------------

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "checkpoint.pt"

    def _save_checkpoint(self) -> None:
        content = io.BytesIO()
        state = {
            "fingerprint": self._fingerprint,
            "step": self.step,
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict(),
            "best": self._best,
            "history": self._history,
            "losses": self._losses,
            "stopped": self._stopped,
        }
        torch.save(state, content)
        write_atomically(self._checkpoint, content.getvalue())

    def resume(self) -> None:
        """Continue from the checkpoint in the folder if it belongs to this task."""
        state = _read(self._checkpoint)
        if state is None or state["fingerprint"] != self._fingerprint:
            return
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.load_state_dict(state["average"])
        self.step, self._best, self._history = state["step"], state["best"], state["history"]
        self._losses, self._stopped = state["losses"], state["stopped"]


def _read(checkpoint: Path) -> dict[str, Any] | None:
    """The contents of a checkpoint; None if it is missing or damaged, which only costs its steps again."""
    if not _is_whole(checkpoint):
        return None
    return dict(torch.load(checkpoint, map_location="cpu", weights_only=True))


DAMAGED = (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)
"""Errors from a zip archive that is missing, unreadable, truncated or changed."""


def _is_whole(checkpoint: Path) -> bool:
    """Whether all checksums in the file are right: torch's files are zip archives."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except DAMAGED:
        return False


def fitting_batch(training: Sequence[Example]) -> int:
    """Structures in a gradient step: about 64 atoms, at most 8 structures, and no more than there are."""
    atoms = float(np.mean([len(example.graph) for example in training]))
    return max(1, min(8, round(64 / atoms), len(training)))


def minibatch(step: int, seed: int, count: int, size: int) -> list[int]:
    """Indices of the examples of a step; each pass over the data has its own order, drawn with the seed."""
    places = range(step * size, (step + 1) * size)
    orders: dict[int, Integers] = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {k // count for k in places}
    }
    return [int(orders[k // count][k % count]) for k in places]


def _optimizer(network: Any, options: MaceOptions) -> torch.optim.Optimizer:
    """Adam, with weight decay on the weights that `mace_run_train` decays."""
    decayed: list[torch.Tensor] = []
    free: list[torch.Tensor] = []
    for name, parameter in network.named_parameters():
        inside = name.startswith("interactions.") and ("linear.weight" in name or "skip_tp_full.weight" in name)
        (decayed if inside or name.startswith("products.") else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=options.learning_rate, amsgrad=options.amsgrad, fused=True)


def _loss(options: MaceOptions, dtype: str, stresses: bool) -> Any:
    with precision(dtype):
        if not stresses:
            return modules.WeightedEnergyForcesLoss(options.energy_weight, options.forces_weight)
        return modules.WeightedEnergyForcesStressLoss(
            options.energy_weight, options.forces_weight, options.stress_weight
        )


def _average(network: Any, decay: float, warm: bool) -> Any:
    """The moving average of the weights; it forgets random initial weights quickly, and a parent's slowly."""
    from torch_ema import ExponentialMovingAverage

    return ExponentialMovingAverage(network.parameters(), decay=decay, use_num_updates=not warm)
