"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const PHASES = {
    waiting: "Waiting for the robot, which may go home: stay out of its reach.",
    homing: "The arm goes home: stay out of its reach.",
    placing: "Place the objects as in the start image, step back, then start.",
    playing: "The robot moves. Label as soon as the outcome is certain, which ends the trial.",
    labelling: "The trial is over. How did it end?",
    relabelling: "The last label is taken back. How did that trial end?",
    error: "Something went wrong. Look at the robot; start repeats the trial.",
    rating: "How does this trial end? Start plays it again.",
    done: "All trials are labelled.",
    closed: "Finished. This page can be closed.",
  };
  const KEYS = { s: "start", y: "success", n: "failure", u: "undo" };
  const FAILURE_KEYS = "abcefghi";
  const LABELS = ["playing", "labelling", "relabelling", "rating"];
  const RETRY_MS = 1000;
  const urls = { live: "", reference: "" };
  let socket = null;
  let state = { view: -1, phase: "waiting", buttons: [] };

  function press(word) {
    if (socket?.readyState !== WebSocket.OPEN) return;
    if (word !== "estop" && !state.buttons.includes(word)) return;
    const labels = word === "success" || word === "failure";
    const note = labels ? at("note").value : "";
    const milestones = labels ? ticked("milestones") : [];
    const failure = word === "failure" ? ticked("failures")[0] ?? "" : "";
    socket.send(JSON.stringify({ do: word, view: state.view, note, milestones, failure }));
    if (labels) at("note").value = "";
    if (labels) untick();
  }

  function ticked(kind) {
    return [...at(kind).querySelectorAll("input:checked")].map((box) => box.value).filter(Boolean);
  }

  function untick() {
    for (const box of at("milestones").querySelectorAll("input")) box.checked = false;
    for (const box of at("failures").querySelectorAll("input")) box.checked = !box.value;
  }

  function choice(kind, name, key) {
    const label = document.createElement("label");
    const type = kind === "failures" ? "radio" : "checkbox";  // first: a text's empty value becomes "on" in a radio
    const box = Object.assign(document.createElement("input"), { type, name: kind, value: name });
    box.checked = kind === "failures" && !name;
    if (key) box.dataset.key = key;
    const text = Object.assign(document.createElement("span"), { textContent: name || "no code" });
    const shown = Object.assign(document.createElement("kbd"), { textContent: key.toUpperCase(), hidden: !key });
    label.append(box, text, shown);
    return label;
  }

  function offer(kind, names, keys) {
    const box = at(kind);
    box.hidden = !names.length || !LABELS.includes(state.phase);
    if (box.dataset.names === JSON.stringify(names)) return;
    box.dataset.names = JSON.stringify(names);
    for (const old of box.querySelectorAll("label")) old.remove();
    if (kind === "failures") box.append(choice(kind, "", ""));
    names.forEach((name, index) => box.append(choice(kind, name, keys[index])));
  }

  function pick(key) {
    const box = document.querySelector(`fieldset:not([hidden]) [data-key="${key}"]`);
    if (!box) return false;
    if (box.type === "radio" && box.checked) at("failures").querySelector("input").checked = true;
    else box.checked = !box.checked;
    return true;
  }

  function picture(kind, jpeg) {
    const image = at(kind);
    if (urls[kind]) URL.revokeObjectURL(urls[kind]);
    urls[kind] = jpeg.size ? URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" })) : "";
    if (urls[kind]) image.src = urls[kind];
    else image.removeAttribute("src");
    overlay();
  }

  function overlay() {
    const shown = state.phase === "placing" && Boolean(urls.reference);
    at("live").hidden = !urls.live;
    at("reference").hidden = !shown;
    at("overlay").hidden = !shown;
    at("reference").style.opacity = at("share").value / 100;
    at("reference").classList.toggle("difference", at("difference").checked);
  }

  function labelOf(last) {
    return last ? `Last label: ${last[0]} ${last[1] ? "success" : "failure"}` : "";
  }

  function show(next) {
    const rating = next.mode === "label";
    if (next.trial !== state.trial || (next.phase === "playing" && state.phase !== "playing")) untick();
    state = next;
    offer("milestones", next.milestones ?? [], "123456789");
    offer("failures", next.failures ?? [], FAILURE_KEYS);
    at("title").textContent = rating ? "Second rater" : "Operator";
    at("trial").textContent = next.trial ?? "–";
    at("count").textContent = next.number ? `trial ${next.number} of ${next.total}` : "";
    at("progress").max = next.total ?? 1;
    at("progress").value = next.phase === "done" || next.phase === "closed" ? next.total ?? 1 : (next.number ?? 1) - 1;
    at("instruction").textContent = next.instruction ?? "";
    const ready = next.phase === "placing" && !next.reference;
    at("phase").textContent = ready ? "Start when the scene is ready." : PHASES[next.phase] ?? next.phase;
    at("message").hidden = !next.message;
    at("message").textContent = next.message ?? "";
    at("rubric").textContent = next.rubric ?? "";
    at("last").textContent = labelOf(next.last);
    at("score").textContent = next.score === undefined ? "" : `Reset score ${next.score.toFixed(3)} (1 is the start image itself)`;
    at("note-label").hidden = !LABELS.includes(next.phase);
    at("recover").hidden = !next.buttons.includes("recover");
    at("start").querySelector("b").textContent = next.phase === "done" ? "Finish" : rating ? "Play again" : "Start";
    document.querySelector("footer").hidden = rating;
    for (const button of document.querySelectorAll("[data-do]")) button.disabled = !next.buttons.includes(button.dataset.do);
    alarm(next.alarm ?? "");
    overlay();
  }

  function alarm(text) {
    at("link").hidden = !text;
    if (at("link").textContent !== text) at("link").textContent = text;
  }

  function lost() {
    if (state.phase === "closed") return;
    show({ ...state, buttons: [], alarm: "No connection: nothing here reaches the robot. Use the hardware stop." });
    setTimeout(connect, RETRY_MS);
  }

  function connect() {
    socket = new WebSocket(`ws://${location.host}/`);
    socket.binaryType = "blob";
    socket.onclose = lost;
    socket.onmessage = async ({ data }) => {
      if (typeof data === "string") return show(JSON.parse(data));
      const kind = new Uint8Array(await data.slice(0, 1).arrayBuffer())[0] === 0 ? "live" : "reference";
      picture(kind, data.slice(1));
    };
  }

  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => press(button.dataset.do));
  at("estop").addEventListener("click", () => press("estop"));
  at("share").addEventListener("input", overlay);
  at("difference").addEventListener("change", overlay);
  at("overlay").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return press("estop");
    const typing = event.target.matches?.("input[type=text]");
    if (typing || !at("keys").checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return undefined;
    const key = event.key.toLowerCase();
    if (key === "d") at("difference").click();
    else if (KEYS[key]) press(KEYS[key]);
    else if (!/^[1-9a-i]$/.test(key) || !pick(key)) return undefined;
    return event.preventDefault();
  });
  connect();
})();
