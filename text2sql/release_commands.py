"""The subcommands of `text2sql` that take a run elsewhere: publish, merge and fetch-checkpoint."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

Commands = argparse._SubParsersAction  # of argparse.ArgumentParser


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the three subcommands."""
    _add_publish(commands)
    _add_merge(commands)
    _add_fetch(commands)


def _add_publish(commands: Commands[argparse.ArgumentParser]) -> None:
    publish = commands.add_parser(
        "publish",
        help="push a run's adapter with a model card to the Hub",
        description="Push the adapter of a finished run, its tokenizer, config, metrics and a model card to the Hub, as one\n"
        "commit. The card holds what the run's folder says: figures with intervals where it was evaluated, data and\n"
        "licences, a rendered prompt, the command. The token comes from the environment or the login cache.",
        epilog="examples:\n  text2sql publish outputs/RUN user/name --dry-run card\n"
        "  text2sql publish outputs/RUN user/name --private",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    publish.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished training")
    publish.add_argument("repo_id", metavar="USER/NAME", help="the repository on the Hub; made where there is none")
    publish.add_argument("--dry-run", type=Path, metavar="FOLDER", help="write it to FOLDER and push nothing")
    publish.add_argument("--private", action="store_true", help="make the repository private if it is made now")
    publish.add_argument("--revision", metavar="BRANCH", help="the branch to push to, made where there is none")
    publish.add_argument("--license", metavar="ID", help="of the adapter; default: the base model's, where it is known")
    publish.add_argument(
        "--dataset", nargs="+", default=[], metavar="ID", help="which data sets on the Hub local data paths hold"
    )
    publish.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="folder of an evaluation of this adapter; default: RUN/evaluation",
    )
    publish.set_defaults(run=publish_run)


def publish_run(options: argparse.Namespace) -> None:
    """Gather and push, or with --dry-run only gather. ValueError for anything a user can mend."""
    from text2sql import publish

    wish = publish.Wish(options.repo_id, options.license, options.dataset, options.evaluation)
    if options.dry_run is not None:
        files = publish.gather(options.folder, wish, options.dry_run)
        print(*files, sep="\n")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "published"
        publish.gather(options.folder, wish, folder)
        print(publish.push(folder, options.repo_id, private=options.private, revision=options.revision))


def _add_merge(commands: Commands[argparse.ArgumentParser]) -> None:
    merge = commands.add_parser(
        "merge",
        help="merge a run's adapter into 16-bit weights, and check the answers",
        description="Merge the adapter into 16-bit weights and write them to OUT, with tokenizer and generation config. It is\n"
        "added to the weights that it learned on, unpacked, so that the answers stay those of the run, or with --base\n"
        "original to the model's own. The same questions are asked before and after: exit code 1, and no OUT, if\n"
        "merging changes more answers, or execution accuracy falls further, than is tolerated.",
        epilog="examples:\n  text2sql merge outputs/RUN merged\n  text2sql merge outputs/RUN merged --dtype bfloat16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    merge.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished training")
    merge.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or absent")
    merge.add_argument(
        "--dtype", default="float16", choices=("float16", "bfloat16"), help="default: float16, which rounds less"
    )
    merge.add_argument(
        "--base",
        default="trained",
        choices=("trained", "original"),
        help="add to the weights as the run had them, or to the base model's own; default: trained",
    )
    merge.add_argument("--probes", type=int, default=50, metavar="N", help="questions to ask; default: 50")
    merge.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        metavar="X",
        help="share of answers that merging may change; default: 0.1",
    )
    merge.add_argument(
        "--accuracy-tolerance", type=float, default=0.05, metavar="X", help="how far accuracy may fall; default: 0.05"
    )
    merge.add_argument("--data", metavar="PATH", help="where the run's data lie here, if not where they were")
    merge.add_argument("--model", metavar="PATH", help="where the base model lies here, if not where it was")
    merge.set_defaults(run=merge_run)


def merge_run(options: argparse.Namespace) -> int:
    """Merge, print the parity, return 1 if it is beyond tolerance. ValueError for anything a user can mend."""
    from text2sql import export

    plan = export.prepare(
        options.folder,
        options.out,
        dtype=options.dtype,
        base=options.base,
        num_probes=options.probes,
        data_path=options.data,
        model_path=options.model,
    )
    outcome, problems = export.merge(plan, options.tolerance, options.accuracy_tolerance)
    print(f"rounding to {options.dtype} took {100 * outcome.rounded_away:.1f} % of the adapter's change away again")
    print(f"{options.dtype} weights with the adapter beside them -> merged: {outcome.merging}")
    if outcome.as_trained is not None:
        print(f"the run as it was trained, quantised -> merged: {outcome.as_trained}")
    for problem in problems:
        print(f"error: {problem}; {options.out} was not written", file=sys.stderr)
    if not problems:
        print(options.out)
    return int(bool(problems))


def _add_fetch(commands: Commands[argparse.ArgumentParser]) -> None:
    fetch = commands.add_parser(
        "fetch-checkpoint",
        help="bring a run's last pushed checkpoint from the Hub into its folder",
        description="Bring into RUN what a training with hub=push has left on the Hub: its last checkpoint, checked against\n"
        "its manifest, with the run's stamp and rows, or the whole finished run where it was published. Then resume=true\n"
        "hydra.run.dir=RUN goes on with it on this machine. Where the Hub has nothing yet, nothing is done.",
        epilog="example:\n  text2sql fetch-checkpoint user/name outputs/RUN",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fetch.add_argument("repo_id", metavar="USER/NAME", help="hub.hub_model_id of the training")
    fetch.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, the same as in the session before")
    fetch.add_argument("--revision", help="branch or commit; default: main")
    fetch.set_defaults(run=fetch_checkpoint)


def fetch_checkpoint(options: argparse.Namespace) -> None:
    """Fetch and say what was done. ValueError for anything a user can mend."""
    from text2sql import fetching

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    print(fetching.fetch(options.repo_id, options.folder, options.revision))
