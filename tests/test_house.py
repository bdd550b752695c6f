"""The layout: who may import whom, and what must not stand in any file."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "train_wan22_ti2v_motion_depth"
PARTS = sorted((ROOT / "motion_depth").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# The package in the order in which its parts may build on each other: each imports only from those before it.
ORDER = [
    *("progress", "latents", "files", "processes", "tiny", "data", "pictures", "readouts", "clips", "model"),
    *("settings", "cache", "checkpoints", "doctor", "evaluation", "training", "generation"),
]


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


def test_a_part_imports_only_from_parts_before_it():
    assert {part_of(path) for path in PARTS} == {*ORDER, "__init__"}
    for path in PARTS:
        later = ORDER[ORDER.index(part_of(path)) :] if part_of(path) in ORDER else ORDER
        assert not imported_parts(path) & set(later), f"{by_name(path)} imports from a part that comes after its own"


@pytest.mark.parametrize("path", [*PARTS, *TOOLS], ids=by_name)
def test_parts_and_tools_never_import_the_script(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] == SCRIPT}


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_parts_import_no_tool_and_read_no_command_line(path):
    assert not {name for name in imported_modules(path) if name.split(".")[0] in ("tools", "argparse", "sys.argv")}
    assert "sys.argv" not in path.read_text()


LONGEST_FILE, LONGEST_FUNCTION = 300, 60  # lines


def is_table(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it only says one thing after the other, such as a parser's flags: it asks nothing and repeats nothing."""
    return all(isinstance(statement, ast.Expr | ast.Assign | ast.Return) for statement in function.body)


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", [ROOT / f"{SCRIPT}.py", *PARTS, *TOOLS, *TESTS], ids=by_name)
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    for function in functions(path):
        lines = function.end_lineno - function.lineno + 1
        assert lines <= LONGEST_FUNCTION or is_table(function), f"{function.name} takes {lines} lines"


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_signatures_of_parts_say_what_is_taken_and_given(path):
    for function in functions(path):
        taken = [node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)]
        names = {node for each in (*taken, function.returns) if each for node in ast.walk(each)}
        assert "Any" not in {getattr(name, "id", getattr(name, "attr", "")) for name in names}, function.name


def test_only_the_model_imports_the_pipeline():
    pipelines = "diffsynth.pipelines"
    using = {part_of(path) for path in PARTS if any(name.startswith(pipelines) for name in imported_modules(path))}
    assert using == {"model"}


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
    assert f"motion_depth.clips.dataset.{name}" in imported_modules(ROOT / f"{SCRIPT}.py")
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert name in used


@pytest.mark.parametrize("path", TOOLS, ids=by_name)
def test_a_tool_opens_with_commands_that_run(path):
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    is_program = 'if __name__ == "__main__":' in path.read_text()
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert f"python {by_name(path)}" in docstring or f"python -m {module}" in docstring or not is_program


def test_the_readme_names_every_folder():
    tree = (ROOT / "README.md").read_text().rsplit("```", 2)[1]
    folders = {path.name for top in ("motion_depth", "tools") for path in (ROOT / top).iterdir() if path.is_dir()}
    named = set(re.findall(r"(\w+)/", tree))
    assert folders - {"__pycache__"} <= named
    assert named <= folders | {path.name for path in ROOT.iterdir()}


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
