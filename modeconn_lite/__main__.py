"""python -m modeconn_lite run EXPERIMENT | retrain WHAT"""

import argparse
import sys
from pathlib import Path

from . import zoo
from .data import cache_folder
from .methods import flow_recipes
from .records import EXPERIMENTS
from .records.engines import check_place

SHARED = ("device", "root", "fresh")  # options of all experiments


def main(arguments: list[str] | None = None) -> None:
    """Run a published experiment again and write its record, or retrain what ships."""
    parser = argparse.ArgumentParser(prog="python -m modeconn_lite", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="a published experiment; goes on where it stopped")
    experiments = running.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    for name, experiment in EXPERIMENTS.items():
        each = experiments.add_parser(name, help=experiment.about.replace("%", "%%"))
        experiment.add_options(each)
        each.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
        each.add_argument("--root", type=Path, help="cache folder (default: $MODECONN_DATA)")
        each.add_argument("--fresh", action="store_true", help="measure again; networks stay")
        each.add_argument("--out", type=Path, help="the record's folder (default: book/records)")
    training = commands.add_parser("retrain", help="networks and flows that ship with the package")
    training.add_argument("what", choices=[*zoo.names(), *flow_recipes.RECIPES])

    words = sys.argv[1:] if arguments is None else arguments
    options = vars(parser.parse_args(words))
    if options.pop("command") == "retrain":
        what = options["what"]
        if what in flow_recipes.RECIPES:
            flow_recipes.write(what, flow_recipes.retrain(what, progress=True))
        else:
            zoo.write(what, zoo.retrain(what, progress=True))
        return
    experiment, out = EXPERIMENTS[options.pop("experiment")], options.pop("out")
    if out is None:  # a quick trial is no record of the book
        quick = options.get("quick")
        out = cache_folder(options["root"]) / "quick" if quick else Path("book/records")
    try:  # whatever can be refused is refused now, not after hours
        experiment.check(**{k: v for k, v in options.items() if k not in SHARED})
        check_place(options["device"], options.get("engine"))
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out {out} is no folder")
    except ValueError as error:
        running.error(str(error))
    command = f"python -m modeconn_lite {' '.join(words)}"
    try:
        experiment.run(command=command, **options).write(out)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What is finished is kept; the same command goes on.\n")
        sys.exit(130)  # as shells have it: 128 and the signal's number


if __name__ == "__main__":
    main()
