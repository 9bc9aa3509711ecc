"""``gbn claims``: the papers' claims, with the verdicts that follow from the runs."""

import argparse
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import existing_folder, output_file

if TYPE_CHECKING:
    from gbn.analysis.claims.schema import Claim


def claims(result: cli.Parser) -> cli.Run:
    """Print the ledger: the papers' claims with their verdicts.

    --write makes CLAIMS.md in the results folder, from the archive; --check-dates compares the stated dates of rules
    with git's history; --stamp writes git's dates into the claims.yaml files (after a rule was committed).

    Examples:
        gbn claims
        gbn claims --experiment gbn_mnist --source store
        gbn claims --write
        gbn claims --check-dates
    """
    result.statuses |= {1: "(--check-dates) a rule is newer than it states"}
    add = result.add_argument
    add("--experiment", nargs="+", metavar="NAME", help="only the claims of these experiments")
    options.add_results(result, source="archive")
    what = "folder of papers.yaml and the experiments (default: experiments, or the package's own)"
    add("--folder", type=existing_folder, metavar="DIR", help=what)
    add("--write", action="store_true", help="write CLAIMS.md into the results folder")
    add("--check-dates", action="store_true", help="check with git that each rule is as old as it states")
    add("--stamp", action="store_true", help="write git's date of each rule into its claims.yaml")
    return _claims


def _claims(args: argparse.Namespace) -> int:
    from gbn.analysis.claims import load_claims, load_papers, markdown, terminal, verdicts
    from gbn.config.places import packaged
    from gbn.store.files import write_atomically

    for option in ("--check-dates", "--stamp"):
        cli.alone(args, option, "--check-dates", "--stamp", "--folder", "--experiment")
    if args.write and (args.experiment or args.source != "archive"):
        raise ValueError(
            "--write makes the whole ledger from the archive: give neither --experiment nor another --source"
        )
    if args.folder is None:
        own = Path("experiments")
        args.folder = str(own if (own / "papers.yaml").is_file() else packaged("experiments"))
    claims = load_claims(args.folder, args.experiment)
    having = [path.parent.name for path in Path(args.folder).glob("*/claims.yaml")]
    for name in args.experiment or ():
        cli.one_of("experiment with claims", Path(name).name, having)
    if args.check_dates or args.stamp:
        return dates(claims, args.folder, args.stamp)
    path = Path(args.results) / "CLAIMS.md"
    if args.write:
        output_file(str(path))
    papers = load_papers(args.folder)
    judged = verdicts(args.results, args.source, args.experiment, args.folder)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(terminal(judged, papers, width), end="")
    if args.write:
        write_atomically(path, markdown(judged, papers))
        print(f"Written: {path}")
    return 0


def dates(claims: "list[Claim]", folder: str, stamp: bool) -> int:
    """Print what is wrong with the stated dates, or correct them."""
    from gbn.analysis.claims import check_dates
    from gbn.store.files import write_atomically

    dated = check_dates(claims, folder)
    for one in dated if stamp else ():
        if one.committed is not None and one.claim.fixed != one.committed:
            path = Path(folder) / one.claim.experiment / "claims.yaml"
            text = stamped(path.read_text(encoding="utf-8"), one.claim.id, one.committed)
            write_atomically(path, text)
            print(f"{one.claim.id}: fixed {one.committed:%Y-%m-%dT%H:%M:%SZ}")
    problems = [one for one in dated if one.problem and not (stamp and one.committed)]
    for one in problems:
        print(f"{one.claim.experiment}: {one.claim.id}: {one.problem}", file=sys.stderr)
    print(f"{len(claims) - len(problems)} of {len(claims)} rules are as old as they say")
    return int(bool(problems))


def stamped(text: str, claim: str, moment: datetime) -> str:
    """Return the text of a claims.yaml with the date of one claim's rule set and everything else unchanged."""
    found = re.search(rf"^(?P<indent> *)- id: {re.escape(claim)} *(#.*)?\n", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"claim {claim}: its first line is not `- id: {claim}`, so write its date by hand")
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
