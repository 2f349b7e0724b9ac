"""Commands from text to concepts and back, sentence by sentence."""

from __future__ import annotations

import argparse
import io
import sys

import numpy as np

from .. import CHOICE, Search, segmentation, text
from ..errors import TextError
from ..spaces import MOST_BEAMS
from .input import at_line, read_text, read_vectors, split_lines
from .options import SEED, Commands, add_language, add_space, command, opened, whole
from .output import check_folder, emit, progress, write

TOGETHER = 256  # lines translated before they are printed


def add(commands: Commands) -> None:
    made = command(
        commands,
        segment,
        "segment",
        "Cut a text into sentences, one a line; sentences too long for a concept are cut at clause borders.",
        "python -m engine segment story.txt --lang eng_Latn",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    add_language(made, "the language of the text, such as eng_Latn")
    add_space(made)

    made = command(
        commands,
        encode,
        "encode",
        "Turn sentences, one a line, into concepts: a .npy file of float32 [lines, dimensions].",
        "python -m engine encode sentences.txt --lang deu_Latn --out v.npy",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file without empty lines, or - for standard input")
    add_language(made, "the language of the sentences, such as deu_Latn")
    made.add_argument("--out", required=True, metavar="FILE.npy", help="where to write, or - for standard output")
    add_space(made)

    made = command(
        commands,
        decode,
        "decode",
        "Turn concepts into sentences, one line for each concept; its alternatives stand on that line, best first, "
        "parted by tabs.",
        "python -m engine decode v.npy --lang fra_Latn --alternatives 3",
    )
    made.add_argument("file", metavar="FILE.npy", help="numbers [concepts, dimensions], or - for standard input")
    add_language(made, "the language to write in, such as fra_Latn")
    made.add_argument(
        "--alternatives",
        type=whole(1, MOST_BEAMS),
        default=1,
        metavar="N",
        help="up to N different sentences for each concept",
    )
    way = made.add_mutually_exclusive_group()
    way.add_argument(
        "--beam", type=whole(1, MOST_BEAMS), metavar="N", help="search with N beams (else greedy; 5 for alternatives)"
    )
    way.add_argument("--seed", type=SEED, metavar="N", help="sample; the same seed gives the same sentences")
    add_space(made)

    made = command(
        commands,
        translate,
        "translate",
        "Translate a text, one line out for each line in; lines without words stay as they are.",
        "python -m engine translate brief.txt --from deu_Latn --to eng_Latn",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    add_language(made, "the language of the text, such as deu_Latn", "--from", "source")
    add_language(made, "the language to write in, such as eng_Latn", "--to", "target")
    add_space(made)

    made = command(
        commands,
        gradient,
        "gradient",
        "Write sentences that lead from one sentence to another, both ends included.",
        'python -m engine gradient "I went looking for adventure." "I never returned." --steps 7 --lang eng_Latn',
    )
    made.add_argument("a", metavar="FROM", help="the first sentence")
    made.add_argument("b", metavar="TO", help="the last sentence")
    made.add_argument("--steps", type=whole(2, 1000), default=7, metavar="N", help="how many sentences (7)")
    add_language(made, "the language of both, such as eng_Latn")
    add_space(made)


def segment(args: argparse.Namespace) -> None:
    body = read_text(args.file)
    for sentence in opened(args).segment(body, args.lang):
        emit(sentence)


def encode(args: argparse.Namespace) -> None:
    check_folder(args.out)
    lines = split_lines(read_text(args.file))
    engine = opened(args)
    language = engine.language(args.lang)
    for number, line in enumerate(lines, 1):
        with at_line(number):
            if not line.strip():
                raise TextError("it is empty, and each line must become a vector; take empty lines out.")
            text.check(line, language)
    if not lines:
        raise TextError("There is no text here; write at least one sentence.")
    with progress("Encoding") as report:
        vectors = engine.encode(lines, args.lang, report)
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    write(args.out, buffer.getvalue())


def decode(args: argparse.Namespace) -> None:
    vectors = read_vectors(args.file)
    engine = opened(args)
    if args.seed is not None:
        search = Search("sample", seed=args.seed, alternatives=args.alternatives)
    elif args.beam or args.alternatives > 1:
        search = Search("beam", beams=max(args.beam or 5, args.alternatives), alternatives=args.alternatives)
    else:
        search = Search()
    if args.alternatives > 1:
        for found in engine.alternatives(vectors, args.lang, search):
            emit(*found)
        return
    with progress("Decoding") as report:
        sentences = engine.decode(vectors, args.lang, search, report)
    for sentence in sentences:
        emit(sentence)


def translate(args: argparse.Namespace) -> None:
    lines = split_lines(read_text(args.file))
    engine = opened(args)
    language, _ = engine.language(args.source), engine.language(args.target)
    if not text.has_words("".join(lines)):
        raise TextError("There are no words in this text; write at least one sentence.")
    segmented = []
    for number, line in enumerate(lines, 1):
        with at_line(number):
            if text.has_words(line):
                text.check(line, language)
            # A line without words has no pieces: it stays as it is.
            segmented.append(segmentation.segment(line, args.source, engine.fits))
    done, total = 0, sum(len(cut.pieces) for cut in segmented)
    for start in range(0, len(segmented), TOGETHER):
        batch = segmented[start : start + TOGETHER]
        pieces = [piece.text for cut in batch for piece in cut.pieces]
        with progress("Translating", done, total) as report:
            vectors = engine.encode(pieces, args.source)
            sentences = iter(engine.decode(vectors, args.target, CHOICE, report) if pieces else [])
        for cut in batch:
            emit(cut.before + "".join(next(sentences) + piece.after for piece in cut.pieces))
        sys.stdout.flush()
        done += len(pieces)


def gradient(args: argparse.Namespace) -> None:
    for sentence in opened(args).gradient(args.a, args.b, args.steps, args.lang):
        emit(sentence)
