"""Files are replaced whole, also where a reader of the old one stands in the way for a moment."""

import os

import pytest

from gbn.store import files


@pytest.mark.parametrize("refusals", [0, 3])
def test_windows_is_asked_again_until_the_reader_is_gone(tmp_path, monkeypatch, refusals):
    real, asked = os.replace, []

    def replace(new, path):
        asked.append(path)
        if len(asked) <= refusals:
            raise PermissionError(13, "Access is denied")
        real(new, path)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files.sys, "platform", "win32")
    path = tmp_path / "summary.json"
    path.write_text("old", encoding="utf-8")
    files.write_atomically(path, "µ\n")
    assert len(asked) == refusals + 1
    assert path.read_bytes() == b"\xc2\xb5\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_file_that_cannot_be_replaced_is_an_error(tmp_path, monkeypatch, platform):
    waited = []

    def refuse(new, path):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(files.time, "sleep", waited.append)
    with pytest.raises(PermissionError):
        files.write_atomically(tmp_path / "summary.json", "new")
    assert list(tmp_path.iterdir()) == []
    assert bool(waited) == (platform == "win32")
