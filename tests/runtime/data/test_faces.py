"""FACES are turned and enlarged photographs, the first 25 people's in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from scipy.io import savemat

import newtriton as nt
from newtriton.runtime.data import faces as module
from newtriton.runtime.data.faces import faces, photographs

PIXELS = np.random.default_rng(0).integers(1, 240, (400, 4096), np.uint8)
IMAGES = torch.from_numpy(PIXELS).reshape(400, 64, 64).mT  # columns come first in the file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    savemat(tmp_path / "olivettifaces.mat", {"faces": PIXELS.T})
    return tmp_path


def test_the_papers_have_414_of_each_photograph() -> None:
    assert 25 * 10 * module.COPIES == 103_500
    assert 10 * 10 * module.COPIES == 41_400


def test_people_are_either_trained_on_or_tested_on() -> None:
    person = torch.arange(400.0).div(10, rounding_mode="floor")[:, None, None].expand(400, 64, 64)
    train, test = faces(person, copies=3)
    assert (tuple(train.x.shape), tuple(test.x.shape)) == ((750, 1, 25, 25), (300, 1, 25, 25))
    assert train.x.flatten(1).mean(1).round().unique().tolist() == list(range(25))
    assert test.x.flatten(1).mean(1).round().unique().tolist() == list(range(30, 40))


def test_an_image_is_turned_about_its_middle_and_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear ramp stays one: its slope tells factor and angle."""
    ramp = torch.arange(64.0).expand(400, 64, 64) - 31.5
    train, _ = faces(ramp, copies=40)
    x = train.x[:400, 0]
    right, down = x[:, 12, 13] - x[:, 12, 12], x[:, 13, 12] - x[:, 12, 12]
    factor = 64 / 25 / torch.hypot(right, down)
    assert float(x[:, 12, 12].abs().max()) < 1e-3
    assert float(factor.min()) > 1.39
    assert float(factor.max()) < 1.81
    assert float(factor.std()) > 0.1
    angle = torch.atan2(down, right)
    assert float(right.min()) > -1e-3  # by 90 degrees at most
    assert float(angle.min()) < -1.4
    assert float(angle.max()) > 1.4


def test_the_seed_decides() -> None:
    assert torch.equal(faces(IMAGES.float(), 2)[0].x, faces(IMAGES.float(), 2)[0].x)
    assert not torch.equal(faces(IMAGES.float(), 2)[0].x, faces(IMAGES.float(), 2, seed=1)[0].x)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_both_files_hold_the_same_photographs(kind: Any, folder: Path) -> None:
    expected = (IMAGES.float() - 1) / (PIXELS.max() - 1)
    assert torch.allclose(photographs(folder), expected)
    (folder / "olivettifaces.mat").unlink()
    joblib.dump(PIXELS.astype(kind), folder / "olivetti_py3.pkz", compress=1)
    assert nt.available("faces", folder)
    assert torch.allclose(photographs(folder), expected)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    joblib.dump([PIXELS, Hostile()], tmp_path / "olivetti_py3.pkz", compress=1)
    try:
        photographs(tmp_path)
    except nt.NewtritonError as error:
        assert ", byte 0: " in str(error)
    assert not (tmp_path / "executed").exists()


def test_loaded_faces_have_zero_means_and_unit_variance(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newtriton.runtime.data.sets.faces", lambda x: faces(x, copies=2))
    train, test = nt.load("faces", folder)
    assert tuple(train.x.shape) == (500, 1, 25, 25)
    assert torch.equal(train.y, train.x.flatten(1))
    assert torch.equal(test.y, test.x.flatten(1))
    assert float(train.x.mean(0).abs().max()) < 1e-5
    assert abs(float(train.x.var(0, correction=0).mean()) - 1) < 1e-4


@pytest.mark.parametrize("content", [b"", b"no file of theirs", b"x\x9c" + bytes(90)])
@pytest.mark.parametrize("name", ["olivettifaces.mat", "olivetti_py3.pkz"])
def test_damage_has_its_place(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(nt.NewtritonError, match=rf"{name}, byte \d+: "):
        photographs(tmp_path)


def test_photographs_of_another_number_are_told(tmp_path: Path) -> None:
    savemat(tmp_path / "olivettifaces.mat", {"faces": PIXELS[:390].T})
    with pytest.raises(nt.NewtritonError, match=r"byte 128: faces has shape \(4096, 390\)"):
        photographs(tmp_path)
    savemat(tmp_path / "olivettifaces.mat", {"faces": np.zeros((4096, 400), np.uint8)})
    with pytest.raises(nt.NewtritonError, match=r"byte 0: pixels from 0\.0 to 0\.0"):
        photographs(tmp_path)


def test_scikit_learn_downloads_into_its_own_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def fetch(data_home: Path) -> Any:
        asked.append(data_home)
        return type("Bunch", (), {"images": np.zeros((400, 64, 64), np.float32)})

    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fetch)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "theirs"))
    monkeypatch.delenv("NEWTRITON_DATA", raising=False)
    assert photographs(None).shape == (400, 64, 64)
    assert not nt.available("faces")
    with pytest.raises(nt.NewtritonError, match=r"expects olivettifaces\.mat or olivetti_py3\.pkz"):
        photographs(tmp_path)
    assert asked == [tmp_path / "theirs"]
