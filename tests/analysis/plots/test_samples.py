"""The figure of samples: which pictures it takes, what of them, and what it says where some are missing."""

import numpy as np
import pytest
from PIL import Image

from gbn.analysis.plots import samples
from gbn.plot_style import Picture, save


@pytest.fixture
def folders(tmp_path):
    """Two runs with pictures of updates 5 and 20, the first also of 10; image (i, j) of a grid is 8 i + j."""
    made = {}
    for label, updates in {"bn": (5, 10, 20), "mixture[few]": (5, 20)}.items():
        made[label] = tmp_path / label
        made[label].mkdir()
        values = np.arange(64, dtype=np.uint8).reshape(8, 8)
        grid = np.repeat(np.kron(values, np.ones((32, 32), np.uint8))[..., None], 3, axis=2)
        for update in updates:
            Image.fromarray(grid).save(made[label] / f"samples-{update:06d}.png")
        Image.fromarray(grid).save(made[label] / "interpolation-000020.png")
    return made


def test_a_row_for_each_update_that_all_runs_have_and_a_column_for_each_arm(folders, tmp_path):
    figure = samples.draw(folders)
    assert len(figure.axes) == 4
    assert [axes.get_ylabel() for axes in figure.axes] == ["update 5", "", "update 20", ""]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["bn", "mixture\n[few]"]
    paths = save([Picture("trial", figure)], tmp_path / "figures", paper=True)
    assert [path.name for path in paths] == ["trial.png", "trial.pdf"]
    before = [path.read_bytes() for path in paths]
    again = save([Picture("trial", samples.draw(folders))], tmp_path / "figures", paper=True)
    assert [path.read_bytes() for path in again] == before


def test_the_same_latents_are_shown_of_each(folders):
    part = samples.part(folders["bn"] / "samples-000005.png", 3)
    assert part.shape == (96, 96, 3)
    assert part[::32, ::32, 0].tolist() == [[0, 1, 2], [8, 9, 10], [16, 17, 18]]
    with pytest.raises(ValueError, match="1 to 8"):
        samples.part(folders["bn"] / "samples-000005.png", 9)


def test_what_is_missing_is_said(folders, tmp_path):
    assert len(samples.draw(folders, at=[20]).axes) == 2
    with pytest.raises(ValueError, match=r"update 10: all have 5, 20"):
        samples.draw(folders, at=[10])
    with pytest.raises(ValueError, match="the archive holds none"):
        samples.draw({**folders, "none": tmp_path / "nowhere"})
