"""Training: gradient steps, averaged weights, and checkpoints for exact continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from psiflow_core.components import TrainingResult, TrainingTask
from psiflow_core.errors import Interrupted, TrainingFailed
from psiflow_core.potentials.residuals import Residual, training_errors
from psiflow_torch import checkpoints
from psiflow_torch.architecture import Architecture
from psiflow_torch.engine import on, threads, torch
from psiflow_torch.examples import Example, examples, losses, residuals
from psiflow_torch.gradients import Gradients
from psiflow_torch.model import Model
from psiflow_torch.options import TorchOptions
from psiflow_torch.schedule import Average, LearningRate, fitting_batch, minibatch
from psiflow_torch.start import Trained, fingerprint, start

COMPARED = 64
"""Structures on which a child is compared with its parent at the end. [count]"""


def train(options: TorchOptions, architecture: Architecture, task: TrainingTask, trained: Trained) -> TrainingResult:
    """Train one model, from the checkpoint of an earlier attempt if there is one.

    Args:
        trained: gives trained weights to start from where there is no parent.

    Raises:
        TrainingFailed: there is nothing to train on, a label is not finite, a species is not covered, the
            parent has another architecture, or the loss is not finite.
        Interrupted: the worker's time is over; there is a checkpoint.
        OptionError: the device cannot be reached.
    """
    device = on(task.resources.device)
    task.folder.mkdir(parents=True, exist_ok=True)
    with threads(task.resources.cores):
        begin, warm = start(options, architecture, task, trained)
        run = Training(options, architecture, task, begin, device, warm)
        run.resume()
        run.go()
        return run.finish()


class Training:
    """A training after `step` gradient steps.

    Args:
        begin: the model before the first step.
        warm: whether its weights are trained.
    """

    def __init__(
        self,
        options: TorchOptions,
        architecture: Architecture,
        task: TrainingTask,
        begin: Model,
        device: torch.device,
        warm: bool,
    ) -> None:
        self._options, self._architecture, self._task, self._begin = options, architecture, task, begin
        self._device, self._warm = device, warm
        offsets = architecture.offsets(begin)
        self._training = examples(task.training, begin, offsets, "training")
        self._validation = examples(task.validation, begin, offsets, "validation")
        self._steps = task.steps or options.steps
        self._batch_size = options.batch_size or fitting_batch(self._training)
        self._fingerprint = fingerprint(options, task)
        self._checkpoint = task.folder / "checkpoint.pt"
        self._network = architecture.network(begin).to(device).train()
        self._gradients = Gradients(options, architecture, begin, self._network, device, self._batch_size)
        groups = architecture.parameter_groups(self._network, options)
        self._optimizer = torch.optim.Adam(groups, amsgrad=options.amsgrad, fused=True)
        self._rate = LearningRate(options, self._steps, warm)
        self._average = Average(self._network, options.ema_decay, warm)
        self.step = 0
        self._best: dict[str, Any] = {"loss": np.inf, "step": 0, "weights": None}
        self._history: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._stopped = False

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
            if self.step < self._steps and self._task.interrupted():
                self._save_checkpoint()
                raise Interrupted(f"the training stopped at step {self.step} of {self._steps}")

    def finish(self) -> TrainingResult:
        """Write the model and its errors: the best averaged weights, or the last ones without a validation set."""
        with self._average.applied():
            if self._best["weights"] is not None:
                self._network.load_state_dict(self._best["weights"])
            if self._warm:
                self._fall_back()
            weights = {name: tensor.cpu().clone() for name, tensor in self._network.state_dict().items()}
            errors = training_errors(self._residuals(self._validation or self._training))
        if not np.isfinite(list(errors.values())).all():
            raise TrainingFailed("the trained model's predictions are not finite: lower learning_rate")
        model = Model(**{**vars(self._begin), "weights": weights})
        model.save(self._task.folder / "model.pt")
        return TrainingResult(self._task.folder / "model.pt", self.step, errors, self._history)

    def resume(self) -> None:
        """Continue from the checkpoint in the folder if it belongs to this task."""
        state = checkpoints.read(self._checkpoint)
        if state is None or state["fingerprint"] != self._fingerprint:
            return
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.load_state_dict(state["average"])
        self.step, self._best, self._history = state["step"], state["best"], state["history"]
        self._losses, self._stopped = state["losses"], state["stopped"]

    def _save_checkpoint(self) -> None:
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
        checkpoints.write(self._checkpoint, state)

    def _take_step(self) -> float:
        batch = [
            self._training[k] for k in minibatch(self.step, self._task.seed, len(self._training), self._batch_size)
        ]
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate.at(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        value = self._gradients.set(batch)
        if self._options.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._options.gradient_clip)
        if not np.isfinite(value):
            raise TrainingFailed(
                f"the loss is not finite at step {self.step}: lower {self._rate.option}={self._rate.first:g}, "
                "or look for wrong labels in the training set"
            )
        self._optimizer.step()
        self._average.update()
        return value

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
        with self._average.applied():
            found = self._residuals(self._validation)
            value = typical(losses(found, self._options))
            if value < self._best["loss"]:
                weights = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
                self._best = {"loss": value, "step": self.step, "weights": weights}
        return {"validation_loss": value, **training_errors(found)}

    def _at_start(self) -> dict[str, float]:
        """Loss and errors before the first step: how well the initial weights know the labels."""
        found = self._residuals(self._some())
        return {"step": 0.0, "loss": float(np.mean(losses(found, self._options))), **training_errors(found)}

    def _fall_back(self) -> None:
        """Return to the initial weights if the training has made them worse.

        The mean loss decides: the training is meant for the structures on which the parent is wrong.
        """
        learned = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        after = self._mean_loss()
        self._network.load_state_dict(self._begin.weights)
        if after <= self._mean_loss():
            self._network.load_state_dict(learned)

    def _mean_loss(self) -> float:
        return float(np.mean(losses(self._residuals(self._some()), self._options)))

    def _some(self) -> list[Example]:
        """Evenly spaced structures of all sets, at least `COMPARED` if there are as many."""
        known = [*self._training, *self._validation]
        return known[:: max(1, len(known) // COMPARED)]

    def _residuals(self, data: Sequence[Example]) -> list[Residual]:
        return residuals(self._architecture, self._network, data, self._device)


def typical(values: Sequence[float]) -> float:
    """The geometric mean: a single outlier does not dominate a small set."""
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-30)))))
