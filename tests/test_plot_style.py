"""What all figures look like, and how they are written."""

from matplotlib.figure import Figure

from gbn import plot_style


def test_colours_are_okabe_and_itos():
    published = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert {*plot_style.COLOURS, plot_style.REFERENCE[0]} <= published
    assert len(set(plot_style.COLOURS)) == len(plot_style.COLOURS) == len(set(map(str, plot_style.STYLES)))


def test_an_unchanged_figure_is_an_unchanged_file(tmp_path):
    def written(folder):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        paths = plot_style.save(figure, tmp_path / folder / "a.b")
        assert [path.name for path in paths] == ["a.b.png", "a.b.pdf"]
        return [path.read_bytes() for path in paths]

    assert written("once") == written("again")
