from tests.analysis.conftest import grid, make_grid, results  # noqa: F401 - fixtures
