"""Training: gradient steps, averaged weights, and checkpoints for exact continuation."""

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
from psiflow_nequip import _dataset, _start
from psiflow_nequip._dataset import Example, residuals
from psiflow_nequip._engine import on, threads, torch
from psiflow_nequip._graphs import Integers
from psiflow_nequip._model import Model
from psiflow_nequip.options import EquivariantOptions

COMPARED = 64
"""Structures on which a child is compared with its parent at the end. [count]"""

WARM_UP = 50
"""Steps over which the learning rate rises if the initial weights are trained: Adam's first steps are as long as the
learning rate, whatever the gradient, since it has no estimate of the variances yet. [count]"""


def train(options: EquivariantOptions, task: TrainingTask) -> TrainingResult:
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
        options: EquivariantOptions,
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
        self._network = start.network().to(device).train()
        self._optimizer = torch.optim.Adam(self._network.parameters(), amsgrad=options.amsgrad, fused=True)
        self._warm = task.parent is not None
        self._average = _average(self._network, options.ema_decay, self._warm)
        self.step = 0
        self._best: dict[str, Any] = {"loss": np.inf, "step": 0, "weights": None}
        self._history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._stopped = False

    # The loop ----------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Take the remaining steps."""
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
        final = self._average.module
        if self._best["weights"] is not None:
            final.load_state_dict(self._best["weights"])
        if self._warm and self._has_got_worse(final):
            final = self._start.network().to(self._device).eval()
        errors = training_errors(residuals(final, self._validation or self._training, self._device))
        if not np.isfinite(list(errors.values())).all():
            raise TrainingFailed("the trained model's predictions are not finite: lower learning_rate")
        weights = {name: tensor.cpu().clone() for name, tensor in final.state_dict().items()}
        model = Model(**{**vars(self._start), "weights": weights})
        model.save(self._folder / "model.pt")
        return TrainingResult(self._folder / "model.pt", self.step, errors, self._history)

    def _has_got_worse(self, child: Any) -> bool:
        """Whether the child is worse than its parent.

        The mean loss decides: the training is meant for the structures on which the parent is wrong.
        """
        known = [*self._training, *self._validation]
        some = known[:: max(1, len(known) // COMPARED)]
        parent = self._start.network().to(self._device).eval()
        before, after = (np.mean(self._losses_of(residuals(one, some, self._device))) for one in (parent, child))
        return not after <= before

    def _take_step(self) -> float:
        batch = [self._training[k] for k in minibatch(self.step, self._seed, len(self._training), self._batch_size)]
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        loss = _dataset.loss(self._network, batch, self._options, self._device)
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
        self._average.update_parameters(self._network)
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
        averaged = self._average.module
        errors = residuals(averaged, self._validation, self._device)
        loss = self._typical_loss(errors)
        if loss < self._best["loss"]:
            weights = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
            self._best = {"loss": loss, "step": self.step, "weights": weights}
        return {"validation_loss": loss, **training_errors(errors)}

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


def _average(network: Any, decay: float, warm: bool) -> Any:
    """The moving average of the weights; it forgets random initial weights quickly, and a parent's slowly."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    def follow(average: Any, current: Any, updates: Any) -> None:
        count = float(updates)
        get_ema_multi_avg_fn(decay if warm else min(decay, (1 + count) / (10 + count)))(average, current, updates)

    averaged = AveragedModel(network, multi_avg_fn=follow)
    averaged.update_parameters(network)  # the first update copies
    averaged.module.eval()
    return averaged
