"""TensorBoard gets every step and epoch once, whatever a run that was killed had written."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import newtriton as nt

from .runs import missing, run, stand_in


class SummaryWriter:
    """Stands in for TensorBoard's writer."""

    made: list[SummaryWriter]

    def __init__(
        self, log_dir: Any = None, comment: str = "", purge_step: int | None = None,
        max_queue: int = 10, flush_secs: int = 120, filename_suffix: str = "",
    ) -> None:  # fmt: skip
        self.log_dir, self.purge_step = Path(log_dir), purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: list[str] = []
        self.closed = False
        self.made.append(self)
        self.log_dir.mkdir(exist_ok=True)
        (self.log_dir / f"events.out.tfevents.{len(self.made)}").touch()

    def add_scalar(
        self, tag: str, scalar_value: float, global_step: int | None = None,
        walltime: float | None = None, new_style: bool = False, double_precision: bool = False,
    ) -> None:  # fmt: skip
        assert isinstance(scalar_value, float) and global_step is not None
        self.scalars.append((tag, scalar_value, global_step))

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        self.texts.append(text_string)

    def flush(self) -> None:
        """Does nothing, since nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def of(self, name: str) -> list[tuple[float, int]]:
        return [(value, at) for tag, value, at in self.scalars if tag == name]


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[SummaryWriter]:
    SummaryWriter.made = []
    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    return SummaryWriter.made


def test_it_gets_every_step_and_epoch_once(writers: list[SummaryWriter], tmp_path: Path) -> None:
    history = run(tmp_path, 2, "never", log_dir=tmp_path / "events")
    (writer,) = writers
    assert (writer.log_dir, writer.purge_step) == (tmp_path / "events", None)
    assert writer.of("step/loss") == [(step["loss"], step["step"]) for step in history.steps]
    assert writer.of("epoch/loss") == [(epoch.loss, epoch.steps) for epoch in history.epochs]
    assert '"class": "KFAC"' in writer.texts[0]
    assert writer.closed


def test_a_run_that_goes_on_hides_what_was_written_beyond(
    writers: list[SummaryWriter], tmp_path: Path
) -> None:
    run(tmp_path, 2, "never", nt.TensorBoard(tmp_path / "events"))
    run(tmp_path, 3, "previous", nt.TensorBoard(tmp_path / "events"))
    first, second = writers
    assert (first.purge_step, second.purge_step) == (None, 4), "from step 4 on"
    assert [at for _, at in second.of("step/loss")] == [4, 5, 6]
    assert [at for _, at in second.of("epoch/loss")] == [4, 6]
    run(tmp_path, 4, "last", nt.TensorBoard(tmp_path / "new"))
    assert writers[2].purge_step is None
    assert [at for _, at in writers[2].of("step/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_its_file_is_closed_where_a_run_fails(writers: list[SummaryWriter], tmp_path: Path) -> None:
    def fail(history: nt.History) -> None:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError):
        run(tmp_path, 2, "never", fail, log_dir=tmp_path / "events")
    assert writers[0].closed


def test_where_it_is_not_installed_that_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing(monkeypatch, "torch.utils.tensorboard")
    with pytest.raises(nt.NewtritonError, match=r"log_dir='events' needs .* pip install tensorb"):
        nt.TensorBoard("events")
    with pytest.raises(nt.NewtritonError, match="pip install tensorboard"):
        run(tmp_path, 2, "never", log_dir="events")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_what_tensorboard_reads_has_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    run(tmp_path, 2, "never", nt.TensorBoard(tmp_path / "events"))
    history = run(tmp_path, 3, "previous", nt.TensorBoard(tmp_path / "events"))
    read = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in read.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in read.Scalars("epoch/loss")] == pytest.approx(
        [epoch.loss for epoch in history.epochs]
    )
