"""`newtriton inspect`: costs, graphs and diagnoses."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from safetensors.torch import save_file

import newtriton as nt
from newtriton.command import catalogue
from newtriton.command import main as cli
from tests.command.test_main import one_line, small_cnn
from tests.pages import blocks, commands
from tests.sources import ROOT


def test_inspect_prints_what_programs_cost(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--batch", "32"]) == 0
    shown = capsys.readouterr().out
    assert "batch 32" in shown
    assert "hvp" in shown


def test_inspect_says_what_is_computed_in_passing(tmp_path: Path, capsys):
    body = "nt.Flatten(2), nt.Permute((0, 2, 1)), nt.SelfAttention(1), nt.Flatten(), nt.Linear(3)"
    (tmp_path / "net.py").write_text(
        f"import newtriton as nt\n\n\ndef attention():\n    return nt.Sequential({body})\n"
    )
    command = ["inspect", "--net", f"{tmp_path / 'net.py'}:attention", "--input", "8x16x16"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "\nstreams: linearize 2, evaluate 1, " in shown
    assert "\n2 (SelfAttention): N×1×256×256 in passing\n" in shown


@pytest.mark.parametrize("net", catalogue.NETWORKS)
def test_inspect_knows_every_network(net: str, capsys):
    size = "784" if net == "autoencoder" else "3x32x32"
    command = ["inspect", "--net", net, "--input", size, "--program", "evaluate"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("evaluate: ")


def test_inspect_prints_graphs(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--graph"]) == 0
    shown = capsys.readouterr().out
    titles = [line.partition(":")[0] for line in shown.splitlines() if line[0] != " "]
    assert titles[:4] == ["evaluate", "linearize", "hvp", "ggnvp"]
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--program", "hvp"]) == 0
    assert capsys.readouterr().out.startswith("hvp: ")


def test_inspect_draws_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", "--net", "cnn", "--input", "1x8x8", "--batch", "3"]
    picture, page = tmp_path / "out.svg", tmp_path / "out.html"
    assert cli.main([*command, "--svg", str(picture), "--html", str(page)]) == 0
    assert ElementTree.parse(picture).getroot().get("class") == "nt"
    assert "linearize: kernels for sm_90" in picture.read_text("utf-8")
    assert cli.main([*command, "--html", str(page), "--program", "all", "--net", "mlp"]) == 0
    assert page.read_text("utf-8").count('<section id="p') == len(catalogue.PROGRAMS)
    assert "mlp with loss ce, the default<" in page.read_text("utf-8")
    assert cli.main([*command, "--svg", str(picture), "--backend", "aten"]) == 0
    assert "PyTorch's operators" in picture.read_text("utf-8")
    assert not capsys.readouterr().out


def test_inspect_draws_what_would_run_here(tmp_path: Path) -> None:
    command = ["inspect", "--net", "mlp", "--input", "1x8x8", "--backend", "triton"]
    assert cli.main([*command, "--svg", str(tmp_path / "out.svg"), "--program", "hvp"]) == 0
    assert "kernels for Triton's interpreter" in (tmp_path / "out.svg").read_text("utf-8")


def test_a_page_says_why_a_program_is_missing(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    command = ["inspect", "--net", "mlp", "--loss", "margin", "--input", "4", "--classes", "2"]
    assert cli.main([*command, "--html", str(page), "--program", "all"]) == 0
    assert "ggnvp: " in page.read_text("utf-8")
    assert "mlp with loss margin<" in page.read_text("utf-8")


def test_inspect_refuses_images_that_are_too_small(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x2x2", "--graph"]) == 2
    assert "layer" in one_line(capsys.readouterr().err)


INSPECT = ["inspect", "--net", "cnn", "--data", "digits", "--batch", "8", "--diagnose"]


def test_inspect_prints_diagnoses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    assert cli.main([*INSPECT, "errors", "--of", "bias"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["bias", "‖|H|‖", "kfac"]
    assert cli.main([*INSPECT, "alignment", "--damping", "1"]) == 0
    assert capsys.readouterr().out.startswith("cosine with exact GN")
    assert cli.main([*INSPECT, "spectrum"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("hessian\n")
    assert "\n\nggn\n" in first
    assert cli.main([*INSPECT, "spectrum", "--set", "k=1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(first.splitlines()) - 2 * 2
    model = nt.compile(small_cnn(), (1, 8, 8), nt.CrossEntropyLoss(), seed=1)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "weights")
    assert cli.main([*INSPECT, "spectrum", "--weights", str(tmp_path / "weights")]) == 0
    assert capsys.readouterr().out != first


@pytest.mark.parametrize("diagnosis", ["trace", "diagonal", "density"])
def test_inspect_diagnoses_both_matrices_on_all_data(
    diagnosis: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = nt.Samples(*(part[:40] for part in nt.digits()[0]))
    net = nt.Sequential(nt.AdaptiveAvgPool2d(2), nt.Flatten(), nt.Linear(10))
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: (few, few))
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", lambda: net)
    shown = set[str]()
    for batch in ("40", "13"):
        command = ["inspect", "--net", "cnn", "--data", "digits", "--batch", batch, "--all"]
        assert cli.main([*command, "--diagnose", diagnosis]) == 0
        shown.add(capsys.readouterr().out)
    (text,) = shown
    assert text.startswith("hessian\n")
    assert "\n\nggn\n" in text


def test_inspect_draws_densities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = nt.Samples(*(part[:40] for part in nt.digits()[0]))
    net = nt.Sequential(nt.AdaptiveAvgPool2d(2), nt.Flatten(), nt.Linear(10))
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: (few, few))
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", lambda: net)
    monkeypatch.chdir(tmp_path)
    assert cli.main([*INSPECT, "density", "--plot", "a.svg"]) == 0
    text = Path("a.svg").read_text("utf-8")
    assert "Hessian" in text and "Gauss–Newton matrix" in text
    assert cli.main([*INSPECT, "density", "--plot", "a.docx"]) == 2


def test_inspect_takes_networks_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inspected_net.py").write_text("import newtriton as nt\nnet = nt.Linear(3)")
    assert cli.main(["inspect", "--net", "inspected_net:net", "--input", "4"]) == 0
    assert "hvp" in capsys.readouterr().out
    module = "import torch\nnet = torch.nn.Linear(4, 3)"
    (tmp_path / "inspected_module.py").write_text(module)
    path = f"{tmp_path / 'inspected_module.py'}:net"
    assert cli.main(["inspect", "--net", path, "--input", "4", "--program", "hvp"]) == 0
    assert capsys.readouterr().out.startswith("hvp: ")


@pytest.mark.usefixtures("own_nodes")
def test_the_pictures_of_how_it_works_are_what_its_commands_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks((ROOT / "docs" / "how.md").read_text(encoding="utf-8"))
    (net,) = (block for block in found if block.title)
    Path("small.py").write_text(net.text, encoding="utf-8")
    drawn = [w for b in found if b.language == "sh" for w, _ in commands(b) if "--svg" in w]
    for words in drawn:
        assert cli.main(words[1:]) == 0
    pictures = sorted(tmp_path.glob("how-*.svg"))
    assert len(pictures) == len(drawn)
    for picture in pictures:
        kept = ROOT / "docs" / "images" / picture.name
        assert picture.read_bytes() == kept.read_bytes(), f"make {picture.name} by docs/how.md"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diagnose", "spectrum"], "--data is needed with --diagnose"),
        ([], "--input is needed without --diagnose"),
        (["--input", "1x8x8", "--data", "digits"], "--data means nothing without --diagnose"),
        (["--input", "1x8x8", "--damping", "0"], "--damping means nothing without --diagnose"),
        (["--input", "1x8x8", "--plot", "x"], "--plot means nothing without --diagnose"),
        ([*INSPECT[3:], "spectrum", "--plot", "x"], "--plot is for --diagnose density"),
        (["--input", "1x8x8", "--all"], "--all means nothing without --diagnose"),
        (["--diagnose", "errors", "--graph"], "--graph means nothing with --diagnose"),
        (["--diagnose", "errors", "--svg", "x"], "--svg means nothing with --diagnose"),
        (["--input", "1x8x8", "--graph", "--svg", "x"], "--graph prints, and --svg and --html"),
        (["--input", "1x8x8", "--program", "all", "--svg", "x"], "--svg draws one program"),
        (["--input", "1x8x8", "--svg", "x", "--batch", "0"], "--batch is 0"),
        (["--input", "1x8x8", "--svg", "no/such/x.svg"], "no/such/x.svg"),
        ([*INSPECT[3:], "spectrum", "--damping", "1"], "--damping is not for spectrum"),
        ([*INSPECT[3:], "errors", "--of", "weight"], "above the limit of 4096"),
        ([*INSPECT[3:], "spectrum", "--weights", "no/such"], "no/such"),
        ([*INSPECT[3:], "spectrum", "--backend", "triton"], "triton"),
        ([*INSPECT[3:], "spectrum", "--weights", __file__], "safetensors.torch.save_file makes"),
        ([*INSPECT[3:], "spectrum", "--weights", "."], ". is a folder: name the weights.safetens"),
        ([*INSPECT[3:], "density", "--set", "vectrs=4"], "did you mean 'vectors'?"),
        ([*INSPECT[3:], "density", "--set", "matrix=ggn"], "density has no 'matrix'"),
        (["--input", "1x8x8", "--set", "k=1"], "--set means nothing without --diagnose"),
    ],
)
def test_inspect_refuses(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["inspect", "--net", "cnn", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
