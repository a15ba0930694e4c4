"""maskless doctor, on models of this disk and without a network."""

import shutil

import pytest

from maskless.interfaces.cli import main
from tiny_models import build_tiny_preview


def run(capsys, *arguments: str) -> tuple[int, list[str], str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    printed = capsys.readouterr()
    return ended.value.code, printed.out.splitlines(), printed.err


def test_each_part_that_is_missing_has_a_line(capsys):
    status, lines, error = run(capsys, "--models", "light", "--offline")
    assert status == 2 and error.startswith("maskless: 6 of the parts of light are missing")
    assert [line.partition(":")[0] for line in lines] == [
        "inpainting",
        "dino",
        "clip",
        "erase",
        "grounder",
        "preview_vae",
    ]
    assert all("is not on this disk" in line for line in lines)


def test_a_set_on_this_disk_is_loaded_and_edits_a_photograph(tiny_models, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from onnx_models import write_eraser

    file = write_eraser(tmp_path / "migan_pipeline_v2.onnx")
    models = shutil.copytree(tiny_models, tmp_path / "models")
    (models / "inpainting" / "maskless.json").write_text('{"steps": 1}')
    options = ["--models", str(models), "--erase", str(file), "--device", "cpu", "--dtype", "float32"]
    status, lines, _error = run(capsys, *options)
    assert status == 0 and [line.partition(":")[0] for line in lines[:4]] == ["inpainting", "dino", "clip", "erase"]
    assert lines[4].startswith("loaded in ") and [line.partition(":")[0] for line in lines[5:]] == ["replace", "remove"]
    assert all("no pixel outside the region changed" in line for line in lines[5:])


def test_a_preview_autoencoder_is_checked_with_its_set(tiny_models, preview_vae, tmp_path, capsys):
    models = shutil.copytree(tiny_models, tmp_path / "models")
    (models / "inpainting" / "maskless.json").write_text('{"steps": 1}')
    options = ["--models", str(models), "--device", "cpu", "--dtype", "float32", "--preview-vae"]
    status, lines, _error = run(capsys, *options, str(preview_vae))
    assert status == 0 and lines[3].startswith(f"preview_vae: {preview_vae}, ")
    assert "preview_vae: shows 1 of 1 denoising steps" in lines
    wrong = build_tiny_preview(tmp_path / "wrong", latent_channels=16)
    status, _lines, error = run(capsys, *options, str(wrong))
    assert status == 2 and "got one for 16" in error
