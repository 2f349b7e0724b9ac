"""The command line: each command is a thin function over the engine's method of the same name.

Results go to standard output, one a line, as UTF-8. What goes wrong is one sentence on standard error and exit code 2;
Ctrl-C ends with 130 and a closed pipe with 141, both quietly.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import Engine, Search, evaluation, load, segmentation, text
from .errors import ConceptscapeError, TextError, VectorError
from .spaces import SPACES

LINE_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
TOGETHER = 256  # lines translated before they are printed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the system's own encoding is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        args = parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except ConceptscapeError as error:
        print(f"{args.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads on, as in `| head`. What is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # such as a full disk behind `>`
        print(f"{args.prog}: Reading or writing failed ({error.strerror or error}); check the disk.", file=sys.stderr)
        return 2
    return 0


def segment(args: argparse.Namespace) -> None:
    body = read_text(args.file)
    for sentence in opened(args).segment(body, args.lang):
        emit(sentence)


def encode(args: argparse.Namespace) -> None:
    if args.out != "-" and not Path(args.out).absolute().parent.is_dir():
        raise ConceptscapeError(f"There is no folder {Path(args.out).parent} to write to; make it first.")
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
    if args.out == "-":
        sys.stdout.buffer.write(buffer.getvalue())
        return
    try:
        Path(args.out).write_bytes(buffer.getvalue())
    except OSError as error:
        raise ConceptscapeError(f"{args.out} can't be written ({error.strerror}); choose another file.") from error


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
            sentences = iter(engine.decode(vectors, args.target, progress=report) if pieces else [])
        for cut in batch:
            emit(cut.before + "".join(next(sentences) + piece.after for piece in cut.pieces))
        sys.stdout.flush()
        done += len(pieces)


def gradient(args: argparse.Namespace) -> None:
    for sentence in opened(args).gradient(args.a, args.b, args.steps, args.lang):
        emit(sentence)


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
    from .evaluation import lcm

    engine = opened(args)
    kinds = engine.models if args.lcm == "all" else [args.lcm]
    documents = lcm.read_documents(args.file, engine.space.languages, engine.fits)
    if args.limit:
        documents = documents[: args.limit]
    models = {engine.lcm(kind).kind: engine.lcm(kind) for kind in kinds}
    with progress("Evaluating") as report:
        result = lcm.evaluate_lcm(engine.space, models, documents, progress=report)
    print(json.dumps(result, indent=2, ensure_ascii=False) if args.json else lcm.table(result))


def sonar_fetch(args: argparse.Namespace) -> None:
    from .spaces import sonar_files

    folder = args.sonar_dir or sonar_files.default_folder()
    for file in sonar_files.OFFICIAL:
        with progress(f"Fetching {file.name}, MB") as report:
            path = sonar_files.fetch(file, folder, lambda done, total: report(done // 10**6, total // 10**6))
        emit(str(path))


def sonar_check(args: argparse.Namespace) -> None:
    from .device import best_device, best_dtype
    from .spaces import sonar

    for name, found in sonar.check(args.sonar_dir).items():
        emit(name, found)
    device = best_device()
    dtype = best_dtype(device)
    emit(
        f"Loading takes {sonar.memory_needed(dtype):.1f} GB of memory ({str(dtype).removeprefix('torch.')}, {device})."
    )


def opened(args: argparse.Namespace) -> Engine:
    """The engine on the concept space that was asked for."""
    with progress(f"Loading {args.space}") as report:
        return load(args.space, sonar_dir=args.sonar_dir, device=args.device, progress=report)


def emit(*cells: str) -> None:
    """One result a line, whatever line breaks and tabs it holds; several cells are parted by tabs."""
    print(*(LINE_BREAKS.sub(" ", cell).replace("\t", " ") for cell in cells), sep="\t")


def read(file: str) -> tuple[bytes, str]:
    """The bytes of a file, or of standard input for `-`, and what to call it in messages."""
    if file == "-":
        return sys.stdin.buffer.read(), "Standard input"
    try:
        return Path(file).read_bytes(), file
    except FileNotFoundError as error:
        raise ConceptscapeError(f"There is no file {file}; check its name.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConceptscapeError(f"{file} can't be read ({reason}); choose another file.") from error


def read_text(file: str) -> str:
    return text.from_bytes(*read(file))


def split_lines(body: str) -> list[str]:
    """Lines as other programs count them: ended by a line feed alone, which the last line may lack."""
    lines = body.removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_vectors(file: str) -> np.ndarray:
    """Vectors from a .npy file; the space checks their shape and values. Raises VectorError for anything else."""
    data, name = read(file)
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors for a damaged header
        raise VectorError(f"{name} is not a .npy file of numbers; make one with `encode`.") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise VectorError(f"{name} is not a .npy file of numbers; make one with `encode`.")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the space refuses
        return found.astype(np.float32)


@contextmanager
def at_line(number: int) -> Iterator[None]:
    """Name the line in the errors of what is done with it."""
    try:
        yield
    except ConceptscapeError as error:
        message = str(error)
        raise type(error)(f"Line {number}: {message[0].lower() + message[1:]}") from error


@contextmanager
def progress(doing: str, before: int = 0, all_of: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A progress callback that writes to a terminal once the work has taken half a second, and nowhere else.

    Where the work is one part of more, `before` is what was done in front of it and `all_of` what there is in all.
    """
    start, shown = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - start > 0.5:
            print(f"\r{doing}: {before + done} of {all_of or total}", end="\x1b[K", file=sys.stderr, flush=True)
            shown = True

    try:
        yield report
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `lowest` to `highest`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", value) or not lowest <= int(value) <= highest:
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from {lowest} to {highest}")
        return int(value)

    return parse


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m engine",
        description="Text to concepts and back. Each command has --help with an example.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        run: Callable[[argparse.Namespace], None],
        name: str,
        about: str,
        example: str,
        under: argparse._SubParsersAction = commands,
    ) -> argparse.ArgumentParser:
        made = under.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.set_defaults(run=run, prog=made.prog)
        return made

    def language(made: argparse.ArgumentParser, what: str, option: str = "--lang", dest: str = "lang") -> None:
        made.add_argument(option, dest=dest, required=True, metavar="CODE", help=what)

    def space(made: argparse.ArgumentParser) -> None:
        made.add_argument("--space", choices=SPACES, default="builtin", help="the concept space (builtin)")
        sonar_dir(made)
        made.add_argument(
            "--device", metavar="NAME", help="where SONAR computes: cpu, cuda, mps (a GPU, if there is one)"
        )

    def sonar_dir(made: argparse.ArgumentParser) -> None:
        made.add_argument("--sonar-dir", type=Path, metavar="DIR", help="where SONAR's files are (the cache folder)")

    seed = whole(0, 2**63 - 1)

    made = command(
        segment,
        "segment",
        "Cut a text into sentences, one a line; sentences too long for a concept are cut at clause borders.",
        "python -m engine segment story.txt --lang eng_Latn",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    language(made, "the language of the text, such as eng_Latn")
    space(made)

    made = command(
        encode,
        "encode",
        "Turn sentences, one a line, into concepts: a .npy file of float32 [lines, dimensions].",
        "python -m engine encode sentences.txt --lang deu_Latn --out v.npy",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file without empty lines, or - for standard input")
    language(made, "the language of the sentences, such as deu_Latn")
    made.add_argument("--out", required=True, metavar="FILE.npy", help="where to write, or - for standard output")
    space(made)

    made = command(
        decode,
        "decode",
        "Turn concepts into sentences, one line for each concept; its alternatives stand on that line, best first, "
        "parted by tabs.",
        "python -m engine decode v.npy --lang fra_Latn --alternatives 3",
    )
    made.add_argument("file", metavar="FILE.npy", help="numbers [concepts, dimensions], or - for standard input")
    language(made, "the language to write in, such as fra_Latn")
    made.add_argument(
        "--alternatives", type=whole(1, 64), default=1, metavar="N", help="up to N different sentences for each concept"
    )
    way = made.add_mutually_exclusive_group()
    way.add_argument(
        "--beam", type=whole(1, 64), metavar="N", help="search with N beams (else greedy; 5 for alternatives)"
    )
    way.add_argument("--seed", type=seed, metavar="N", help="sample; the same seed gives the same sentences")
    space(made)

    made = command(
        translate,
        "translate",
        "Translate a text, one line out for each line in; lines without words stay as they are.",
        "python -m engine translate brief.txt --from deu_Latn --to eng_Latn",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    language(made, "the language of the text, such as deu_Latn", "--from", "source")
    language(made, "the language to write in, such as eng_Latn", "--to", "target")
    space(made)

    made = command(
        gradient,
        "gradient",
        "Write sentences that lead from one sentence to another, both ends included.",
        'python -m engine gradient "I went looking for adventure." "I never returned." --steps 7 --lang eng_Latn',
    )
    made.add_argument("a", metavar="FROM", help="the first sentence")
    made.add_argument("b", metavar="TO", help="the last sentence")
    made.add_argument("--steps", type=whole(2, 1000), default=7, metavar="N", help="how many sentences (7)")
    language(made, "the language of both, such as eng_Latn")
    space(made)

    made = command(
        continue_,
        "continue",
        "Write the sentences that may come next; fewer where the model ends the document.",
        "python -m engine continue story.txt --sentences 3 --lang eng_Latn --to fra_Latn --seed 0",
    )
    made.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    made.add_argument("--sentences", type=whole(1, 1000), default=1, metavar="N", help="how many sentences (1)")
    language(made, "the language of the text, such as eng_Latn")
    made.add_argument("--to", metavar="CODE", help="the language to write in (that of the text)")
    made.add_argument("--seed", type=seed, default=0, metavar="N", help="the same seed gives the same sentences (0)")
    made.add_argument("--lcm", default="", metavar="NAME", help="the concept model, such as base or two-tower")
    space(made)

    evaluate = commands.add_parser("evaluate", help="Measure how good a model is.", description="Measure a model.")
    measures = evaluate.add_subparsers(title="what", required=True, metavar="WHAT", parser_class=Parser)
    made = command(
        evaluate_space,
        "space",
        "Measure the concept space on translated sentences: BLEU and chrF of the four directions (1>2: text 1, decoded "
        "in language 2), how often the translation is the nearest concept, whether gradients lead steadily to "
        "their end, and what noise changes.",
        "python -m engine evaluate space pairs.tsv.gz --limit 50 --json",
        measures,
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
    made.add_argument("--seed", type=seed, default=0, metavar="N", help="which sentences the walks join (0)")
    space(made)

    made = command(
        evaluate_lcm,
        "lcm",
        "Measure concept models on documents: how near the next concept comes to the true one and whether it tells it "
        "from others, next to two baselines, and what free generation is like.",
        "python -m engine evaluate lcm documents.jsonl.gz --lcm all --limit 100 --json",
        measures,
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
    space(made)

    sonar = commands.add_parser(
        "sonar", help="Fetch and check SONAR's files.", description="Meta's SONAR, 200 languages."
    ).add_subparsers(title="what", required=True, metavar="WHAT", parser_class=Parser)
    made = command(
        sonar_fetch,
        "fetch",
        "Download SONAR's text encoder, text decoder and tokenizer from Meta (6.6 GB; the weights are CC BY-NC 4.0); "
        "run again, it goes on where it was cut off.",
        "python -m engine sonar fetch",
        sonar,
    )
    sonar_dir(made)
    made = command(
        sonar_check,
        "check",
        "Check that SONAR's files are whole, and print their SHA-256.",
        "python -m engine sonar check --sonar-dir DIR",
        sonar,
    )
    sonar_dir(made)
    return top
