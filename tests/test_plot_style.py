"""What all figures look like, and how they are written."""

import pytest
from matplotlib.figure import Figure

from gbn import plot_style as style


def test_colors_are_okabe_and_itos():
    published = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert {*style.COLORS} <= published
    assert len(set(style.COLORS)) == len(style.COLORS)


def drawn(**changed):
    """A small figure with some of everything."""
    has = {
        "y": (0.0, 1.0, 3.0),
        "color": "#0072B2",
        "band": 0.5,
        "word": "a",
        "title": "t",
        "cell": 1.0,
    } | changed
    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    axes.plot([1, 2, 3], has["y"], color=has["color"], label="arm")
    axes.fill_between([1, 2, 3], 0, has["band"])
    axes.annotate(has["word"], (1, 1))
    axes.imshow([[0.0, has["cell"]]])
    axes.set_title(has["title"])
    return figure


def test_an_unchanged_figure_is_an_unchanged_file(tmp_path):
    def written(folder):
        paths = style.save([style.Picture("a.b", drawn())], tmp_path / folder, paper=True)
        assert [path.name for path in paths] == ["a.b.png", "a.b.pdf"]
        return [path.read_bytes() for path in paths]

    assert written("once") == written("again")


def test_a_pdf_is_written_on_request_only(tmp_path):
    (path,) = style.save([style.Picture("one", drawn())], tmp_path)
    assert path.name == "one.png"


@pytest.mark.parametrize(
    "changed",
    [
        {"y": (0.0, 1.0, 3.0001)},
        {"color": "#D55E00"},
        {"band": 0.6},
        {"word": "b"},
        {"title": "u"},
        {"cell": 2.0},
    ],
)
def test_a_digest_is_of_what_is_shown(changed):
    assert style.digest(drawn()) == style.digest(drawn())
    assert style.digest(drawn(**changed)) != style.digest(drawn())


def test_rounding_of_another_processor_is_no_change():
    assert style.digest(drawn(y=(1e-17, 1.0, 3 + 1e-15))) == style.digest(drawn())


def test_a_picture_says_what_it_was_made_from_and_what_it_shows(tmp_path):
    source = {"experiment": "experiments/é", "linear": False}
    (path,) = style.save([style.Picture("one", drawn(), source=source)], tmp_path)
    assert style.source_and_digest(path) == (source, style.digest(drawn()))
    (path,) = style.save([style.Picture("two", drawn())], tmp_path)
    assert style.source_and_digest(path) == (None, style.digest(drawn()))
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is no picture: draw it again"):
        style.source_and_digest(path)
