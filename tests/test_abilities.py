"""What is said about the weights that ship is one thing, wherever it is said."""

import json

from engine.spaces.builtin import ASSETS


def test_readme_and_page_say_the_same() -> None:
    readme = (ASSETS.parent / "README.md").read_text()
    rows = json.loads((ASSETS / "abilities.json").read_text())["rows"]
    assert len(rows) >= 5
    for task, *figures in rows:
        cells = " | ".join(map(str, figures))
        assert f"| {task[0].lower()}{task[1:]} | {cells} |" in readme
    read = sum(row[1] for row in rows)
    assert f"{read} sentences" in readme
    assert all(figure.endswith(" %") for row in rows for figure in row[2:])
