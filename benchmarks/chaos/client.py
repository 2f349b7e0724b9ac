"""A browser tab over a real connection: what app/components/line.js does, without a browser."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import Any

from .ledger import Ledger, shown
from .wire import Wire

SILENCE = 1.2  # seconds; line.js waits longer, since a person's network is slower
AGAIN = 0.05  # seconds between two tries
FOR_EVER = 30.0  # seconds after which an act is taken to be never answered
FRESH = ("arrive", "open", "reopen", "new", "sample", "import")  # what can be done where the tab is lost

Json = dict[str, Any]


class NeverAnsweredError(Exception):
    pass


class Client:
    """One tab. `at`, `bar` and `nodes` are what the page shows; all that is said goes to the ledger."""

    def __init__(self, letter: str, wire: Wire, port: int, ledger: Ledger, seed: int) -> None:
        self.letter = letter  # what it writes has it, so that no two sentences are alike
        self.wire = wire
        self.ledger = ledger
        self.random = random.Random(seed)
        self.host = f"127.0.0.1:{port}"
        self.name = f"{self.random.getrandbits(128):032x}"
        self.number = 0
        self.at: Json = {}
        self.bar: Json = {}
        self.nodes: list[Json] = []
        self.lost = False
        self.asked = 0  # questions
        self.seen = 0  # the life of the database that is shown: numbers of revisions may mean others in another one

    @property
    def ids(self) -> list[str]:
        return [node["id"] for node in self.nodes]

    @property
    def settled(self) -> bool:
        return not self.lost and bool(self.bar.get("saved")) and not self.bar.get("conflict")

    @property
    def state(self) -> list[str]:
        """The document as it is shown: its title and sentences."""
        return [self.bar.get("title", ""), *(node["own"] for node in self.nodes)]

    # The connection

    def post(self, question: Json) -> Json:
        """One question and its answer. Raises OSError, HTTPException or ValueError where none comes."""
        self.asked += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.wire.port, timeout=SILENCE)
        try:
            body = json.dumps({**question, "tab": self.name}).encode()
            headers = {"Host": self.host, "Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", "/desk", body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                self.ledger.hear(answer.decode().strip())
                raise ConnectionError(answer)
            return json.loads(answer)
        finally:
            connection.close()

    def settle(self, question: Json) -> Json:
        """Ask until it is answered or lost."""
        until = time.monotonic() + FOR_EVER
        while time.monotonic() < until:
            try:
                answer = self.post({"ask": "act", **question, "at": self.at})
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(AGAIN)
                continue
            if answer.get("state") != "running":
                return answer
            for text in answer["progress"][:1]:
                self.ledger.hear(f"{text}.")
        raise NeverAnsweredError(f"{self.name} {question['number']} {question['act']}")

    # Acts

    def act(self, what: str, /, *, words: str = "", **data: Any) -> bool:
        """Do an act, and say whether it was done. `words`: the sentence that it inserts."""
        if self.lost and what not in FRESH:
            return False
        self.number += 1
        question = {"number": self.number, "act": what, "data": data}
        life, seen, at, before = self.ledger.life, self.seen, self.at, self.state
        answer = self.settle(question)
        if answer["state"] == "answered" and self.random.random() < 0.1:
            self.repeat(question, answer)
        self.take(answer, life)
        done = bool(answer.get("done"))
        self.ledger.answered[f"{what}: {'done' if done else answer.get('state', 'refused')}"] += 1
        if answer["state"] == "answered":
            same = at.get("document") == self.at["document"] and seen == life
            if not done and same and before != self.state:
                where = f"from {at} to {self.at}, {before} to {self.state}"
                self.ledger.complain(f"{what} {data} was not done, and changed the document {where}: {answer['said']}")
            if done and what not in QUIET and self.settled:
                self.ledger.saved(life, f"{self.name} {self.number}", words)
        return done

    def repeat(self, question: Json, answer: Json) -> None:
        """A question that arrives once more, as browsers may send it, changes nothing."""
        if question["act"] not in QUIET:
            programs = self.ledger.programs
            again = self.settle(question)
            if again.get("done") != answer["done"] and programs == self.ledger.programs:
                self.ledger.complain(f"{question} was answered {answer['said']}, and then {again}")
            elif again["state"] != "lost":
                answer.update(again)

    def take(self, answer: Json, life: int) -> None:
        if answer["state"] == "lost":
            self.lost = True
            self.ledger.hear(answer["why"])
            return
        for _, text in answer.get("said", []):
            self.ledger.hear(text, life)
        bar = answer.get("bar")
        if bar is None or "list" not in answer or "map" not in answer:
            return self.ledger.complain(f"Not all was shown: {answer}")
        self.lost, self.seen = False, life
        self.bar, self.nodes = bar, answer["list"]["nodes"]
        self.at = {name: bar[name] for name in ("document", "revision", "stored", "saved", "reading", "model")}
        for text in (bar["unsaved"], bar["conflict"]):
            if text:
                self.ledger.hear(text)
        if bar["conflict"]:
            self.ledger.conflict(life, bar["document"], bar["conflict"], self.name)
        if bar["saved"] and (bar["unsaved"] or bar["conflict"]):
            self.ledger.complain(f"Saved, and not: {bar}")
        if bar["saved"]:
            self.ledger.told(life, bar["document"], bar["revision"], shown(bar, self.nodes))

    def look(self, what: str, **data: Any) -> Json:
        """A question that changes nothing; empty where no answer comes."""
        try:
            answer = self.post({"ask": what, **data})
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        if answer.get("refused"):
            self.ledger.hear(answer["refused"])
        if answer.get("lost") and not self.lost:
            self.act("show")
        return answer

    def stop_soon(self) -> None:
        """Press Stop while an act is under way."""

        def press() -> None:
            self.look("stop")

        threading.Timer(self.random.uniform(0.0, 0.6), press).start()

    def forget(self) -> None:
        """What the page sends when it is hidden for good; here it comes back all the same."""
        try:
            self.post({"ask": "leave"})
        except (OSError, http.client.HTTPException, ValueError):
            return


# Acts that leave no revision of their own.
QUIET = ("arrive", "show", "save", "elsewhere", "read", "export", "open", "reopen")
