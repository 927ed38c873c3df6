"""`newtriton bench`: lists measurements, runs one, refuses others."""

import sys
from pathlib import Path

from newtriton import bench
from newtriton.command import main as cli
from tests.command.test_main import one_line


def test_bench_lists_runs_and_refuses(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "speed.py").write_text(
        "import sys\nif __name__ == '__main__':\n    print('measured', *sys.argv[1:])\n"
    )
    monkeypatch.setattr(bench, "__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["newtriton"])
    assert cli.main(["bench"]) == 0
    assert capsys.readouterr().out == "speed\n"
    assert cli.main(["bench", "speed", "--batch", "64"]) == 0
    assert capsys.readouterr().out == "measured --batch 64\n"
    assert cli.main(["bench", "sped"]) == 2
    assert one_line(capsys.readouterr().err).endswith("'sped': speed; did you mean 'speed'?\n")


def test_quick_is_the_reduced_form_of_one_measurement(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "peers.py").write_text(
        "import sys\nif __name__ == '__main__':\n    print('peers', *sys.argv[1:])\n"
    )
    monkeypatch.setattr(bench, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "newtriton.bench.peers", raising=False)  # the real one
    monkeypatch.setattr(sys, "argv", ["newtriton"])
    assert cli.main(["bench", "--quick"]) == 0
    assert capsys.readouterr().out == "peers --quick\n"
    assert cli.main(["bench", "peers", "--quick", "--rounds", "3"]) == 0
    assert capsys.readouterr().out == "peers --quick --rounds 3\n"
    assert cli.main(["bench", "--quick", "speed"]) == 2
    assert "--quick is for 'peers' alone" in one_line(capsys.readouterr().err)
