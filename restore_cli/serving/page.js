  const $ = (id) => document.getElementById(id);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const compare = comparison($("result"));
  let last = null, turn = 0, running = null, sending = null;
  function show(id, text) { $(id).hidden = text === null; if (text !== null) $(id).textContent = text; }
  function say(text) { if ($("status").textContent !== text) $("status").textContent = text; }
  async function answer(response) {
    let body = {};
    try { body = await response.json(); } catch { /* not ours: a proxy's page */ }
    if (response.ok) return body;
    throw Object.assign(new Error(body.error || `The server answered ${response.status}.`), { choices: body.choices });
  }
  /* Whatever is being sent, waits or is restored is not wanted any more. */
  function leave() {
    turn++;
    if (sending !== null) sending.abort();
    if (running !== null) fetch(`jobs/${running}`, { method: "DELETE", keepalive: true }).catch(() => {});
    sending = running = null;
  }
  async function restore(file, more = {}) {
    leave();
    const mine = turn;
    last = file;
    show("error", null);
    for (const id of ["result", "again", "choices"]) $(id).hidden = true;
    $("work").hidden = false; $("bar").removeAttribute("value");
    say(`Sending ${file.name} …`);
    try {
      const most = Number($("picture").dataset.most);
      if (file.size > most) throw new Error(`${file.name} is larger than ${most / 1e6} MB.`);
      const form = new FormData();
      for (const id of ["model", "scale", "format"]) form.append(id, more[id] ?? $(id).value);
      if ($("self_ensemble").checked) form.append("self_ensemble", "1");
      for (const id of ["shrink", "sure"]) if (more[id]) form.append(id, more[id]);
      form.append("picture", file, file.name);
      sending = new AbortController();
      const begun = await answer(await fetch("jobs", { method: "POST", body: form, signal: sending.signal }));
      sending = null;
      running = begun.key;
      await follow(mine, file, begun);
    } catch (error) {
      if (mine === turn) { show("error", error.message); offer(file, error.choices || []); }
    } finally {
      if (mine === turn) { running = sending = null; $("work").hidden = true; $("again").hidden = false; }
    }
  }
  async function follow(mine, file, begun) {
    let since = null, missed = 0;
    for (;;) {
      let response = null;
      try { response = await fetch(`jobs/${begun.key}`); missed = 0; }
      catch (error) { if (++missed > 5) throw error; await wait(1000); continue; }
      const state = await answer(response);
      if (mine !== turn) return;
      if (state.state === "failed") throw new Error(state.error);
      if (state.state === "done") { finished(begun, state); return; }
      if (state.state === "running") {
        since ??= Date.now();
        if (state.share) $("bar").value = state.share;
        const left = state.share ? (Date.now() - since) / 1000 * (1 - state.share) / state.share : 0;
        say(`Restoring ${file.name} …` + (left > 90 ? ` about ${Math.ceil(left / 60)} min left` : left ? ` about ${Math.ceil(left)} s left` : ""));
      } else say(state.ahead ? `Waiting: ${state.ahead === 1 ? "one picture comes" : `${state.ahead} pictures come`} first.` : "Waiting: this one is next.");
      await wait(300);
    }
  }
  function offer(file, choices) {
    $("choices").hidden = choices.length === 0;
    $("choices").replaceChildren(...choices.map(({ label, fields }) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", () => restore(file, fields));
      return button;
    }));
    if (choices.length) $("choices").firstChild.focus();
  }
  function finished(begun, state) {
    $("download").href = `jobs/${begun.key}/file`; $("download").download = state.file;
    $("download").textContent = `Download ${state.file}`;
    $("caption").textContent = `${state.size}, ${(state.bytes / 1e6).toFixed(1)} MB, ${state.seconds} s`;
    $("notes").replaceChildren(...[...begun.notes, ...state.notes].map((note) =>
      Object.assign(document.createElement("li"), { textContent: note })));
    $("result").hidden = false;
    compare(state);
    $("result").focus({ preventScroll: true });
    $("result").scrollIntoView({ block: "nearest" });
  }
  function take(files, what = "") {
    const cut = running !== null || sending !== null ? `${last.name} was cancelled.` : "";
    if (files[0]) restore(files[0]);
    const rest = files.length > 1 ? `One picture at a time: only ${files[0].name} was taken.` : "";
    const said = [files[0] ? cut : what, rest].filter(Boolean).join(" ");
    if (said) show("error", said);
  }
  $("picture").addEventListener("change", (event) => { take([...event.target.files]); event.target.value = ""; });
  $("again").addEventListener("click", () => restore(last));
  $("cancel").addEventListener("click", () => {
    leave();
    $("work").hidden = true; $("again").hidden = false;
    show("error", `${last.name}: cancelled.`);
    $("again").focus();
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted || $("work").hidden) return;
    $("work").hidden = true; $("again").hidden = false;
    show("error", `${last.name}: cancelled, since the page was left.`);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files, "That is not a file: save the picture first.");
  });
