"""Seeds on a command line."""

import argparse

import pytest

from gbn.config.seeds import seed_list


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", {0}), ("4-7", {4, 5, 6, 7}), ("0,2,4-5", {0, 2, 4, 5}), ("3-3", {3})]
)
def test_lists_and_ranges(text, seeds):
    assert seed_list(text) == seeds


@pytest.mark.parametrize("text", ["", "-1", "a", "1,,2", "1-", "1-2-3", "1 2", "9" * 5000, "٣"])
def test_another_text_says_what_is_allowed(text):
    with pytest.raises(argparse.ArgumentTypeError, match="use 3 or 4-7"):
        seed_list(text)


@pytest.mark.parametrize("text", ["5-4", "0-3,5-4"])
def test_a_range_that_holds_no_seed_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="upward"):
        seed_list(text)


@pytest.mark.parametrize("text", ["0-999999999", "1-9,0-100000", "0-" + "9" * 18])
def test_a_range_that_no_memory_holds_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="100,000 at most"):
        seed_list(text)
