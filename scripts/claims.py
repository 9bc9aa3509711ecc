"""The claims of the papers and the verdicts that the runs give them.

Prints the ledger; --write makes results/CLAIMS.md from the archive; --check-dates holds the dates that rules state
against git's history, --stamp writes git's dates into the claims.yaml files
(after a rule was committed).
"""

import argparse
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path

from gbn.analysis import cli

EXAMPLES = (
    "python scripts/claims.py",
    "python scripts/claims.py --experiment gbn_mnist --source store",
    "python scripts/claims.py --write",
    "python scripts/claims.py --check-dates",
)


def run() -> int:
    """Exit status: 0, 1 a stated date is not borne out, 2 usage."""
    args = parser().parse_args()
    from gbn.analysis.claims import load_claims, load_papers, markdown, terminal, verdicts

    if args.check_dates or args.stamp:
        return dates(load_claims(args.folder, args.experiment), args.folder, args.stamp)
    if args.write and (args.experiment or args.source != "archive"):
        raise ValueError(
            "--write makes the whole ledger from the archive: give neither --experiment nor another --source"
        )
    papers = load_papers(args.folder)
    judged = verdicts(args.results, args.source, args.experiment, args.folder)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(terminal(judged, papers, width), end="")
    if args.write:
        path = Path(args.results) / "CLAIMS.md"
        path.write_text(markdown(judged, papers), encoding="utf-8")
        print(f"Written: {path}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--experiment", nargs="+", metavar="NAME", help="only the claims of these experiments")
    add(
        "--source",
        choices=("store", "archive", "both"),
        default="archive",
        help="where runs are (default: archive)",
    )
    add("--results", default="results", metavar="DIR", help="holds runs/ and archive/ (default: results)")
    add("--folder", default="experiments", metavar="DIR", help="holds papers.yaml and the experiments")
    add("--write", action="store_true", help="write DIR/CLAIMS.md")
    add("--check-dates", action="store_true", help="is each rule as old as it says? Asks git")
    add("--stamp", action="store_true", help="write the date that git has for each rule into its claims.yaml")
    return result


def dates(claims: list, folder: str, stamp: bool) -> int:
    """Print what is wrong with the stated dates, or mend it."""
    from gbn.analysis.claims import check_dates

    dated = check_dates(claims, folder)
    for one in dated if stamp else ():
        if one.committed is not None and one.claim.fixed != one.committed:
            path = Path(folder) / one.claim.experiment / "claims.yaml"
            text = stamped(path.read_text(encoding="utf-8"), one.claim.id, one.committed)
            path.write_text(text, encoding="utf-8")
            print(f"{one.claim.id}: fixed {one.committed:%Y-%m-%dT%H:%M:%SZ}")
    problems = [one for one in dated if one.problem and not (stamp and one.committed)]
    for one in problems:
        print(f"{one.claim.experiment}: {one.claim.id}: {one.problem}", file=sys.stderr)
    print(f"{len(claims) - len(problems)} of {len(claims)} rules are as old as they say")
    return int(bool(problems))


def stamped(text: str, claim: str, moment: datetime) -> str:
    """The text of a claims.yaml with the date of one claim's rule, everything else as it was."""
    found = re.search(rf"^(?P<indent> *)- id: {re.escape(claim)} *(#.*)?\n", text, re.MULTILINE)
    if found is None:
        raise ValueError(
            f"claim {claim}: its first line is not `- id: {claim}`, so its date is to be written by hand"
        )
    line = f"{found['indent']}  fixed: {moment:%Y-%m-%dT%H:%M:%SZ}\n"
    head, rest = text[: found.end()], text[found.end() :]
    end = re.search(rf"^{found['indent']}- ", rest, re.MULTILINE)
    own, after = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    old = re.compile(rf"^{found['indent']}  fixed:.*\n", re.MULTILINE)
    if old.search(own):
        return head + old.sub(line, own, count=1) + after
    verdict = re.search(rf"^{found['indent']}  verdict:", own, re.MULTILINE)
    place = verdict.start() if verdict else 0
    return head + own[:place] + line + own[place:] + after


if __name__ == "__main__":
    cli.main(run)
