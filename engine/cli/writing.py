"""Commands in which a concept model writes."""

from __future__ import annotations

import argparse
import sys

from .input import read_text
from .options import SEED, Commands, add_language, add_space, command, opened, whole
from .output import emit, progress


def add(commands: Commands) -> None:
    made = command(
        commands,
        continue_,
        "continue",
        "Write the sentences that may come next; fewer where the model ends the document.",
        "python -m engine continue story.txt --sentences 3 --lang eng_Latn --to fra_Latn --seed 0",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    made.add_argument("--sentences", type=whole(1, 1000), default=1, metavar="N", help="how many sentences (1)")
    add_language(made, "the language of the text, such as eng_Latn")
    made.add_argument("--to", metavar="CODE", help="the language to write in (that of the text)")
    made.add_argument("--seed", type=SEED, default=0, metavar="N", help="the same seed gives the same sentences (0)")
    made.add_argument("--lcm", default="", metavar="NAME", help="the concept model, such as base or two-tower")
    add_space(made)


def continue_(args: argparse.Namespace) -> None:
    body, target = read_text(args.file), args.to or args.lang
    engine = opened(args)
    engine.language(target)
    with progress("Reading") as report:
        document = engine.import_text(body, args.lang, progress=report)
    with progress("Continuing") as report:
        found = engine.continue_(document.vectors, args.sentences, target, args.seed, report, model=args.lcm)
    for continuation in found:
        emit(continuation.text)
    if len(found) < args.sentences:
        print(f"The model ends the document after {len(found)} of {args.sentences} sentences.", file=sys.stderr)
