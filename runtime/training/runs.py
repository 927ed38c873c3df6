"""The folder of a training run: what is kept after each epoch, so that the run can go on.

The files are `options.json`, `history.json`, `weights.safetensors`, and `state.pt` with the state
of the optimizer and the order of the data, which is read as plain data and never as code. Where the
weights are an average, `state.pt` also has the parameters that training goes on from.
"""

import json
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...compiler.graph.errors import NewtritonError
from .history import History
from .loop import Averaged


class Stateful(Protocol):
    """A model, an optimizer or batches: what a run saves of them."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on."""
        ...

    def load_state_dict(self, state: Any) -> Any:
        """Takes up a saved state."""
        ...


@dataclass(frozen=True)
class RunFolder:
    """Saves and restores a training run.

    Attributes:
        path: the folder.
        options: what the run was started with, except for its length. A run can go on under the
            same options only.
        defaults: what an option was that an older folder does not have; None unless given.
    """

    path: Path
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def begin(self) -> History:
        """Makes the folder for a new run and returns an empty history.

        Raises:
            NewtritonError: the folder holds a run, which is left alone.
        """
        if (self.path / "history.json").exists():
            raise NewtritonError(
                f"{self.path} holds a run already: resume it, or choose another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(self.options), indent=1) + "\n"
        (self.path / "options.json").write_text(text, encoding="utf-8")
        return History()

    def save(
        self,
        model: Stateful,
        optimizer: Stateful,
        batches: Stateful,
        history: History,
        average: Averaged | None = None,
    ) -> None:
        """Keeps everything as it is now; the weights are the average's where one is given."""
        state = {"optimizer": optimizer.state_dict(), "batches": batches.state_dict()}
        if average is not None:
            state["model"] = model.state_dict()
        with nullcontext() if average is None else average.in_place(model):
            weights = model.state_dict()
        on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(on_host, self.path / "weights.safetensors")
        torch.save(state, self.path / "state.pt")
        history.save(self.path / "history.json")

    def load(self, model: Stateful, optimizer: Stateful, batches: Stateful) -> History:
        """Restores what `save` kept, and returns the history.

        Raises:
            NewtritonError: there is no run, it is damaged, or it was started with other options.
        """
        self._check_options()
        for name in ("weights.safetensors", "state.pt", "history.json"):
            if not (self.path / name).exists():
                raise NewtritonError(
                    f"{self.path} holds no completed epoch ({name} is missing): start the run "
                    "again without resuming"
                )
        try:
            weights = load_file(self.path / "weights.safetensors")
            state = torch.load(self.path / "state.pt", map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
            raise NewtritonError(f"{self.path} holds a damaged run: {error}") from error
        history = History.load(self.path / "history.json")
        model.load_state_dict(state.get("model", weights))
        optimizer.load_state_dict(state["optimizer"])
        batches.load_state_dict(state["batches"])
        return history

    def _check_options(self) -> None:
        """Raises an error where the saved options are not the present ones."""
        try:
            saved = json.loads((self.path / "options.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NewtritonError(f"{self.path} holds no run to resume") from error
        except ValueError as error:
            raise NewtritonError(f"{self.path}/options.json is damaged: {error}") from error
        for name, value in self.options.items():
            before = saved.get(name, self.defaults.get(name))
            if before != value:
                raise NewtritonError(
                    f"{self.path} was started with {name} {before}, not {value}: resume it with "
                    "the same options"
                )
