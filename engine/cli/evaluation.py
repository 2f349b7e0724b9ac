"""Commands that measure models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import evaluation
from .input import read
from .options import SEED, Commands, Parser, add_space, command, opened, whole
from .output import progress


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


def evaluate_space(args: argparse.Namespace) -> None:
    data, name = read(args.file)
    space = opened(args).space
    pairs = evaluation.read_pairs(data, name, space.languages)
    if args.limit:
        pairs = evaluation.thin(pairs, args.limit)
    told = evaluation.story_sentences(args.stories, space.languages) if args.stories else {}
    with progress("Evaluating") as report:
        result = evaluation.evaluate_space(space, pairs, told, args.gradients, args.seed, report)
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
