"""Fixtures that tests of several rooms share."""

import os
from pathlib import Path

import pytest

# Small kernels are split among threads too: libraries read this when they are loaded.
os.environ["LPGEN_TASK_US"] = "0"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and for the user's logs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lpgen(home, capfd):
    """Runs a command that has to end with `status`; returns what it printed."""
    from lpgen.cli import app

    def run(*arguments: str, status: int = 0) -> str:
        capfd.readouterr()
        result = app.run(arguments)
        out, err = capfd.readouterr()
        assert result == status, f"{arguments}: {err}"
        return out + err

    return run
