"""What a run shows: a bar on a terminal, plain lines elsewhere, nothing on request."""

import sys

from gbn.engine.progress import Bar, Plain, Progress, make_progress

POINT = {"update": 10, "train_loss": 0.5, "val_accuracy": 0.75}


def test_the_style_follows_the_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isinstance(make_progress("auto", "run", 0, 10, 64), Plain)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    bar = make_progress("auto", "run", 0, 10, 64)
    assert isinstance(bar, Bar)
    bar.close()
    assert type(make_progress("quiet", "run", 0, 10, 64)) is Progress


def test_a_plain_line_says_where_the_run_stands(capsys):
    progress = Plain("the-run", 0, 20, 64, every=0.0)
    progress.point(POINT)
    line = capsys.readouterr().out
    for words in ("the-run", "update 10/20", "loss 0.500", "val 75.00 %", "images/s", "left"):
        assert words in line


def test_plain_lines_keep_their_distance_but_the_last_always_comes(capsys):
    progress = Plain("the-run", 0, 20, 64, every=1000.0)
    progress.point(POINT)
    assert capsys.readouterr().out == ""
    progress.point({**POINT, "update": 20})
    assert "20/20" in capsys.readouterr().out


def test_the_bar_shows_loss_accuracy_and_speed(capsys):
    progress = Bar("the-run", 0, 20, 64)
    for update in range(1, 11):
        progress.update(update, 0.25)
    progress.point(POINT)
    progress.update(11, None)
    progress.close()
    shown = capsys.readouterr().out
    for words in ("the-run", "11/20", "loss 0.500", "val 75.00 %"):
        assert words in shown


def test_quiet_shows_nothing(capsys):
    progress = make_progress("quiet", "run", 0, 10, 64)
    progress.update(1, 0.5)
    progress.point(POINT)
    progress.close()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")
