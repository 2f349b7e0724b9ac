// The line of acts to the program. One act is under way at a time, so they are done in order. It is asked, running, and
// answered; where no answer comes it is asked again until one does: the program knows its number and does it once.
// docs/architecture.md draws the states.
const line = (() => {
  const SILENCE = 5000; // milliseconds without a sign of the program before the page says so
  const AGAIN = 1000; // between two tries then
  const UPLOAD = 100; // bytes a millisecond that a slow network takes, at least
  const FRESH = ["arrive", "open", "reopen", "new", "sample", "import"]; // what can be done where no document is open
  const tab = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const waiting = []; // acts not asked yet
  let current = null; // the act asked
  let number = 0; // of the latest act
  let at = {}; // where the page stands: enough to go on from after the program was restarted
  let state = "calm"; // or "silent" (no answer), or "lost" (the program can't show what the page shows)
  let wake = () => {}; // ends the pause before the next try

  const turn = (to, why = "") => {
    if (state === to && !why) return;
    state = to;
    desk.emit("line", { state, why });
  };

  // One question and its answer; rejects where none comes.
  const post = async (question) => {
    const body = JSON.stringify({ ...question, tab });
    const control = new AbortController();
    const timer = setTimeout(() => control.abort(), SILENCE + body.length / UPLOAD);
    try {
      const response = await fetch("desk", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal: control.signal });
      clearTimeout(timer); // it answers; a long answer may take its time
      if (response.status === 413) return { refused: "That is more than the program takes at once; split it into parts." };
      if (!response.ok) throw new Error(await response.text());
      return await response.json();
    } finally {
      clearTimeout(timer);
    }
  };

  const pause = () => new Promise((resolve) => {
    const timer = setTimeout(resolve, AGAIN);
    wake = () => (clearTimeout(timer), resolve());
  });

  // Ask an act until it is answered or lost.
  const settle = async (act) => {
    for (;;) {
      let answer;
      try {
        answer = await post({ ask: "act", ...act.question, at });
      } catch (error) {
        turn("silent", error.name === "AbortError" || error instanceof TypeError ? "" : error.message);
        await pause();
        continue;
      }
      if (state === "silent") turn("calm");
      if (answer.state !== "running") return answer;
      desk.work(true);
      desk.emit("progress", answer.progress);
    }
  };

  const take = async (act, answer) => {
    const { done = false, said = [], refused, download, bar, list, map } = answer;
    if (bar) at = { document: bar.document, revision: bar.revision, stored: bar.stored, saved: bar.saved, reading: bar.reading, model: bar.model };
    if (state === "lost" && bar) turn("calm");
    desk.work(false);
    desk.emit("progress", null);
    for (const [kind, text] of refused ? [["warning", refused]] : said) desk.emit("say", { kind, text });
    if (bar) desk.show("bar", bar);
    if (download) desk.emit("download", download);
    act.answered(done);
    // What answers an earlier act is out of date.
    if (list && !waiting.length) desk.show("list", list);
    await new Promise((resolve) => setTimeout(resolve)); // drawing a long document takes a while; clicks come in between
    if (map && !waiting.length) desk.show("map", map);
  };

  const run = async () => {
    if (current) return;
    while ((current = waiting.shift())) {
      const answer = await settle(current);
      if (answer.state === "lost") {
        // Nothing more can be done with what the page shows; what was asked is given back.
        turn("lost", answer.why);
        for (const act of [current, ...waiting.splice(0)]) await take(act, {});
      } else await take(current, answer);
    }
  };

  const line = {
    // Ask for a change. Returns a promise of whether it was done, or null where nothing can be asked now.
    act(what, data = {}) {
      if (state === "silent" || (state === "lost" && !FRESH.includes(what))) {
        desk.announce("Nothing can be changed now; see the message at the top of the page.");
        return null;
      }
      if (desk.working) {
        desk.announce("Something is still running. Wait for it, or press Stop.");
        return null;
      }
      number += 1;
      const question = { number, act: what, data };
      const answered = new Promise((resolve) => waiting.push({ question, answered: resolve }));
      run();
      return answered;
    },
    // Ask what would be. Never rejects: the answer holds `refused` where there is none.
    async ask(question) {
      try {
        const answer = await post(question);
        if (!answer.lost) return answer;
        await line.act("show"); // the program was restarted
        return await post(question);
      } catch {
        return { refused: "The program does not answer." };
      }
    },
    stop: () => post({ ask: "stop" }).catch(() => {}),
    again: () => (state === "lost" ? line.arrive() : wake()),
    arrive: () => line.act("arrive", { document: new URL(window.location).searchParams.get("doc") }),
    get state() {
      return state;
    },
    get busy() {
      return !!current || waiting.length > 0;
    },
  };

  window.addEventListener("online", () => wake());
  // Leaving asks first where something would be lost.
  window.addEventListener("beforeunload", (event) => {
    if (line.busy || state === "lost" || at.saved === false || desk.drafts.some((typed) => typed())) event.preventDefault();
  });
  window.addEventListener("pagehide", () => {
    fetch("desk", { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ask: "leave", tab }) }).catch(() => {});
  });
  return line;
})();
