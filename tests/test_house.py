"""The layout: who may import whom, and what must not stand in any file."""

import ast
import graphlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "train_wan22_ti2v_motion_depth"
PARTS = sorted((ROOT / "motion_depth").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))

# Which other parts a part may import. A new part gets its line here; a folder is one part.
ALLOWED = {
    "__init__": set(),
    "assemble": {"checkpoint", "heads", "lora", "schema", "statistics", "wan"},
    "batch": {"data", "losses", "noise"},
    "cache": {"batch", "data", "entries", "identity", "losses", "packing", "progress"},
    "checkpoint": {"folders", "schema"},
    "clips": {"frame_files", "motion", "resting", "scenes"},
    "colours": set(),
    "compiling": set(),
    "consistency": {"motion"},
    "csv_files": {"files"},
    "data": {"clips", "csv_files", "scenes"},
    "devices": set(),
    "doctor": {
        "colours",
        "csv_files",
        "files",
        "findings",
        "frame_files",
        "identity",
        "motion",
        "prompts",
        "resting",
        "scenes",
        "progress",
    },
    "encoding": {"batch", "cache", "data", "entries", "identity", "packing", "progress"},
    "endings": {"stopping"},
    "entries": set(),
    "evaluation": {"batch", "losses", "metrics", "noise", "wan"},
    "export": {"files"},
    "files": set(),
    "folders": set(),
    "findings": set(),
    "frame_files": {"files"},
    "generation": {"assemble", "checkpoint", "heads", "noise", "schema", "wan", "weights"},
    "heads": {"layers"},
    "layers": set(),
    "health": set(),
    "loader": {"batch", "data", "noise", "stopping", "wan"},
    "identity": {"files"},
    "inputs": {"clips", "csv_files", "media", "motion"},
    "lora": set(),
    "losses": {"motion"},
    "machines": set(),
    "media": {"files", "frame_files", "scenes"},
    "memory": {"losses", "run", "wan"},
    "metrics": {"losses", "motion"},
    "motion": {"motion_convention", "resizing", "sampling"},
    "motion_convention": set(),
    "noise": set(),
    "occupation": set(),
    "packing": {"losses"},
    "panels": {"colours"},
    "preflight": {
        *("checkpoint", "data", "doctor", "findings", "heads", "loader", "lora", "memory", "motion", "settings"),
        *("wan", "weights"),
    },
    "presentation": {
        *("batch", "clips", "colours", "consistency", "evaluation", "export", "files", "generation", "media", "panels"),
    },
    "progress": set(),
    "prompts": set(),
    "provenance": {"checkpoint", "data", "identity", "weights"},
    "report": {"files"},
    "resizing": {"sampling"},
    "resuming": {"checkpoint", "files", "folders", "machines", "occupation", "run", "settings", "tracking"},
    "resting": {"motion"},
    "rope": set(),
    "run": {
        *("assemble", "checkpoint", "health", "occupation", "statistics", "tracking", "training_state"),
        *("validation", "wan"),
    },
    "sampling": set(),
    "scenes": {"findings", "frame_files"},
    "schema": {"heads", "settings"},
    "settings": set(),
    "sharding": set(),
    "source": {"settings", "batch", "cache", "data", "encoding", "loader", "machines", "statistics", "wan", "weights"},
    "statistics": {"losses"},
    "split": {"csv_files", "files"},
    "stopping": set(),
    "tiny": {"files", "tiny_vae"},
    "tiny_vae": set(),
    "tracking": {"batch", "files", "health", "noise", "progress"},
    "training_state": set(),
    "validation": {"batch", "colours", "evaluation", "losses", "media", "panels", "statistics", "wan"},
    "wan": {"heads", "losses", "rope", "weights"},
    "weights": {"files", "identity", "machines", "tiny"},
}


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules, and of what is taken from them, that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def part_of(path: Path) -> str:
    return Path(path.relative_to(ROOT / "motion_depth").parts[0]).stem


def imported_parts(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imported_modules(path) if name.startswith("motion_depth.")}
    return names & {part_of(part) for part in PARTS} - {part_of(path)}


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_a_part_imports_only_the_parts_that_it_may(path):
    part = part_of(path)
    assert part in ALLOWED, f"say in ALLOWED which parts {part} may import"
    assert imported_parts(path) <= ALLOWED[part]


def test_the_allowed_directions_have_no_circle():
    assert set(graphlib.TopologicalSorter(ALLOWED).static_order()) >= {part_of(part) for part in PARTS}


@pytest.mark.parametrize("path", [*PARTS, *TOOLS], ids=by_name)
def test_parts_and_tools_never_import_the_script(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] == SCRIPT}


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_parts_import_no_tool_and_read_no_command_line(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] in ("tools", "argparse", "sys.argv")}
    assert "sys.argv" not in path.read_text()


def test_only_wan_imports_the_pipeline():
    pipelines = "diffsynth.pipelines"
    using = {part_of(path) for path in PARTS if any(name.startswith(pipelines) for name in imported_modules(path))}
    assert using == {"wan"}


def test_importing_the_script_runs_nothing():
    *statements, last = ast.parse((ROOT / f"{SCRIPT}.py").read_text()).body
    harmless = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    assert isinstance(statements[0], ast.Expr)
    assert isinstance(statements[0].value, ast.Constant)  # the docstring
    assert not [node.lineno for node in statements[1:] if not isinstance(node, harmless)]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    main()"


@pytest.mark.parametrize("name", ["LoadImageSequenceWithMotionWrapper", "create_motion_data_operator"])
def test_the_script_imports_and_uses_the_data_operator(name):
    source = (ROOT / f"{SCRIPT}.py").read_text()
    assert f"motion_depth.data.{name}" in imported_modules(ROOT / f"{SCRIPT}.py")
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert name in used


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=by_name)
def test_a_tool_opens_with_commands_that_run(path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    is_program = 'if __name__ == "__main__":' in path.read_text()
    assert f"python tools/{path.name}" in docstring or not is_program


def test_the_readme_names_every_part_and_tool():
    # Of a part that is a folder, the tree names the folder.
    files = [
        *(ROOT / "motion_depth").glob("*.py"),
        *(path.parent for path in (ROOT / "motion_depth").glob("*/__init__.py")),
        *(ROOT / "tools").glob("*.py"),
        *(ROOT / "tools").glob("*.sh"),
    ]
    tree = (ROOT / "README.md").read_text().rsplit("```", 2)[1]
    named = set(re.findall(r"\w+\.(?:py|sh)|doctor(?=/)", tree))
    assert not sorted(by_name(path) for path in files if path.name not in named | {"__init__.py"})
    existing = {path.name for path in files} | {path.name for path in ROOT.iterdir()} | {"run.sh"}
    assert named <= existing


# What belongs to one machine or one way of working, and not to the project. Split, so that this file passes too.
FORBIDDEN = {
    "a folder of one machine": r"(?<![\w./~$}])/(work|root|home|tm" + r"p)/\w",
    "the address of a package registry": r"(pypi\.or" + r"g|pythonhoste" + r"d|registry\.npm|--index-ur" + r"l)",
    "a note to do it later": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a work item's number": r"\b[Ii]ssue #?\d",
}


def test_no_file_names_what_is_not_the_projects():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix in (".png", ".gif", ".mp4", ".safetensors", ".npy"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            found += [f"{name}:{number}: {what}" for what, pattern in FORBIDDEN.items() if re.search(pattern, line)]
    assert not found
