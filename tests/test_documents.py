"""What the documents promise: the README's Python runs, and what they point to is there."""

import re

import pytest

from tests.support.runs import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readmes_python_loads_a_trained_model(lora_checkpoint, tiny_wan, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for said, here in (
        ("models/Wan-AI/Wan2.2-TI2V-5B", tiny_wan), ("outputs/stage2/final", lora_checkpoint),
        ('"cuda"', '"cpu"'), ("torch.bfloat16", "torch.float32"),
    ):  # fmt: skip
        assert said in code
        code = code.replace(said, str(here))
    exec(code, names := {})
    assert any(".lora_" in name for name, _ in names["model"].named_parameters())
    assert "HeadConfig(" in capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_points_to_is_there(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        name, _, heading = target.partition("#")
        linked = (path.parent / name) if name else path
        assert linked.exists(), target
        titles = [re.sub(r"[^\w -]", "", line.lstrip("# ")).lower() for line in linked.read_text().splitlines()
                  if line.startswith("#")] if heading else []  # fmt: skip
        assert not heading or heading in [title.strip().replace(" ", "-") for title in titles], target
    named = set(re.findall(r"(?:tests|tools|configs|docs|motion_depth)/[\w/.]*\w", text))
    assert not {name for name in named if "NAME" not in name and not (ROOT / name).exists()}
