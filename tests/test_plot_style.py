"""What all figures look like, and how they are written."""

from matplotlib.figure import Figure

from gbn import plot_style as style


def test_colours_are_okabe_and_itos():
    published = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert {*style.COLOURS, style.REFERENCE[0]} <= published
    assert len(set(style.COLOURS)) == len(style.COLOURS) == len(set(map(str, style.STYLES)))


def test_an_unchanged_figure_is_an_unchanged_file(tmp_path):
    def written(folder):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        paths = style.save(figure, tmp_path / folder / "a.b")
        assert [path.name for path in paths] == ["a.b.png", "a.b.pdf"]
        return [path.read_bytes() for path in paths]

    assert written("once") == written("again")
