"""What one process of several says, and what it does after a restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrobio import cli
from astrobio.errors import InputError
from astrobio.training import launcher, plan, ranks
from astrobio.training.launcher import Stopped, claim, ended_by_a_mistake
from astrobio.training.stopping import watch_signals


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that torchrun makes for a launch."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / "1" / "error.json"))
    monkeypatch.setenv("RANK", "1")
    return tmp_path


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Exit status of the command line when `plan` raises."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(plan, "run_plan", fail)
    monkeypatch.setattr("sys.argv", ["astrobio", "plan"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_a_mistake_is_said_by_one_process_and_not_again_after_restarts(
    launch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not ended_by_a_mistake()
    assert [run_main(monkeypatch, InputError("no such card")) for _ in range(2)] == [2, 2]
    assert capsys.readouterr().err.count("no such card") == 1
    assert not ended_by_a_mistake(), "only restarts end at once"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run_main(monkeypatch, AssertionError("the command must not start")) == 2


def test_a_lost_rank_is_said_once_for_each_start(
    launch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in ("0", "0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert run_main(monkeypatch, launcher.RankLost("a rank is gone")) == 1
    assert capsys.readouterr().err.count("a rank is gone") == 2


def test_without_torchrun_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    assert claim("anything") and claim("anything")
    monkeypatch.setenv("RANK", "3")
    assert not claim("anything")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; finished parts are kept"),
        (Stopped("stopped after step 4", 143), 143, "stopped after step 4"),
    ],
)
def test_any_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(plan, "run_plan", fail)
    found = CliRunner().invoke(cli.app, ["plan"])
    assert found.exit_code == status
    assert said in found.stderr


def test_one_signal_is_noted_and_a_second_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), watch_signals() as request:
        assert request.signal == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert request.code == 130
        os.kill(os.getpid(), signal.SIGINT)
    with watch_signals() as request:
        monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun sends it again
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


def test_errors_of_lost_connections_are_told_from_others() -> None:
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40222")
    assert ranks.is_loss_of_a_rank(gone)
    assert not ranks.is_loss_of_a_rank(RuntimeError("CUDA out of memory"))
    assert not ranks.is_loss_of_a_rank(ValueError("connection reset"))


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/file: No such file or directory; mend that and start again"):
        ranks.together(lambda: (tmp_path / "nowhere" / "file").write_text("x"))
    assert ranks.by_first_rank(lambda: 3) == 3
