"""Commands that measure models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .. import evaluation
from ..errors import ConceptscapeError, SheetError
from .input import read
from .options import SEED, Commands, Parser, add_space, command, opened, whole
from .output import check_folder, emit, progress, write


def add(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="Measure how good a model is.", description="Measure a model.")
    measures = evaluate.add_subparsers(title="what", required=True, metavar="WHAT", parser_class=Parser)
    made = command(
        measures,
        evaluate_space,
        "space",
        "Measure the concept space on translated sentences: BLEU and chrF of the four directions (1>2: text 1, decoded "
        "in language 2), how often the translation is the nearest concept, whether gradients lead steadily to "
        "their end, and what noise changes.",
        "python -m engine evaluate space pairs.tsv.gz --limit 50 --json",
    )
    made.add_argument(
        "file",
        metavar="PAIRS.tsv[.gz]",
        help="lines of lang1, lang2, text1, text2 parted by tabs (eng or eng_Latn), or - for standard input",
    )
    made.add_argument("--json", action="store_true", help="print the report as JSON, not as a table")
    made.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="at most N pairs of each pair of languages")
    made.add_argument(
        "--stories",
        type=Path,
        metavar="DOCUMENTS.jsonl[.gz]",
        help="score story sentences kept for validation, too",
    )
    made.add_argument("--gradients", type=whole(0, 10**6), default=100, metavar="N", help="how many walks (100)")
    made.add_argument(
        "--choice", action="store_true", help="also score translations decoded with choice (takes much longer)"
    )
    made.add_argument("--seed", type=SEED, default=0, metavar="N", help="which sentences the walks join (0)")
    add_space(made)

    made = command(
        measures,
        evaluate_lcm,
        "lcm",
        "Measure concept models on documents: how near the next concept comes to the true one and whether it tells it "
        "from others, next to two baselines, and what free generation is like.",
        "python -m engine evaluate lcm documents.jsonl.gz --lcm all --limit 100 --json",
    )
    made.add_argument(
        "file",
        type=Path,
        metavar="DOCS.jsonl[.gz]",
        help="a document a line, as JSON with lang and text; where one has a split, only those of valid",
    )
    made.add_argument("--lcm", default="", metavar="NAME", help="the concept model, or all (the default one)")
    made.add_argument("--json", action="store_true", help="print the report as JSON, not as a table")
    made.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="at most N documents")
    add_space(made)

    made = command(
        measures,
        evaluate_reading,
        "reading",
        "Write what every function makes of unseen documents as a sheet for people to judge: shuffled, and without "
        "what made it, which stands in SHEET.key.json beside it. Whoever reads writes y or n (or 1 or 0) under "
        "grammatical and sensible, and nothing where a row was not read; --score counts the marks.",
        "python -m engine evaluate reading documents.jsonl.gz --out sheet.csv --seed 1\n"
        "  python -m engine evaluate reading --score sheet.csv",
    )
    made.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="DOCS.jsonl[.gz]",
        help="a document a line, as JSON with lang and text; where one has a split, only those of valid, or without "
        "any all but those of train",
    )
    made.add_argument(
        "--out",
        metavar="SHEET.csv",
        help="where to write the sheet and, beside it, its key; an apostrophe stands before what a spreadsheet would "
        "take for a formula",
    )
    made.add_argument("--score", metavar="SHEET.csv", help="count the marks of this sheet, whose key is beside it")
    made.add_argument("--rows", type=whole(1, 10**6), default=200, metavar="N", help="how many rows (200)")
    made.add_argument(
        "--lcm",
        default="all",
        metavar="NAME[,NAME]",
        help="the concept models that continue; the first also regenerates and fills in (all)",
    )
    made.add_argument("--seed", type=SEED, default=0, metavar="N", help="the same seed gives the same sheet (0)")
    made.add_argument("--json", action="store_true", help="print the score as JSON, not as a table")
    add_space(made)


def evaluate_space(args: argparse.Namespace) -> None:
    data, name = read(args.file)
    space = opened(args).space
    pairs = evaluation.read_pairs(data, name, space.languages)
    if args.limit:
        pairs = evaluation.thin(pairs, args.limit)
    told = evaluation.story_sentences(args.stories, space.languages) if args.stories else {}
    with progress("Evaluating") as report:
        result = evaluation.evaluate_space(space, pairs, told, args.gradients, args.seed, report, choice=args.choice)
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else evaluation.table(result))


def evaluate_lcm(args: argparse.Namespace) -> None:
    from ..evaluation import lcm

    engine = opened(args)
    kinds = engine.models if args.lcm == "all" else [args.lcm]
    documents = lcm.read_documents(args.file, engine.space.languages, engine.fits)
    if args.limit:
        documents = documents[: args.limit]
    models = {engine.lcm(kind).kind: engine.lcm(kind) for kind in kinds}
    with progress("Evaluating") as report:
        result = lcm.evaluate_lcm(engine.space, models, documents, progress=report)
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else lcm.table(result))


def evaluate_reading(args: argparse.Namespace) -> None:
    if args.score and not (args.file or args.out):
        score_reading(args)
    elif args.file and args.out and not args.score:
        make_reading(args)
    else:
        raise ConceptscapeError("Name documents and --out to make a sheet, or --score alone to count one.")


def make_reading(args: argparse.Namespace) -> None:
    from ..evaluation import reading

    if args.out == "-":
        raise SheetError("A sheet needs a file, since its key stands beside it; name one with --out.")
    key = reading.key_path(Path(args.out))
    check_folder(args.out)
    for file in (Path(args.out), key):
        if file.exists():  # somebody's marks may be in it
            raise SheetError(f"{file} is there already; choose another name for the new sheet.")
    if not args.file.exists():
        raise ConceptscapeError(f"There is no file {args.file}; check its name.")
    engine = opened(args)
    named = list(dict.fromkeys(name.strip() for name in args.lcm.split(",") if name.strip()))
    kinds = engine.models if named in ([], ["all"]) else named
    documents = reading.read_documents(args.file, engine.space.languages)
    if not kinds:
        print(f"{engine.lacks_model} Continue, regenerate and fill in are left out.", file=sys.stderr)
    with progress("Writing rows") as report:
        sheet = reading.make_sheet(engine, documents, kinds, args.rows, args.seed, report)
    write(str(key), sheet.key_json())  # first: a sheet without its key is of no use
    write(args.out, sheet.to_csv())
    emit(args.out)
    emit(str(key))


def score_reading(args: argparse.Namespace) -> None:
    from ..evaluation import reading

    key = reading.key_path(Path(args.score))
    data, name = read(args.score)
    if not key.exists():
        raise SheetError(f"There is no {key}, the key of this sheet; put it back where it was written.")
    result = reading.score_sheet(data, read(str(key))[0], name, str(key))
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else reading.table(result))
