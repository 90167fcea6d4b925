"use strict";
// The pages work without this script. It keeps them up to date, filters the list as a person types, and copies texts.

const BUSY = 900; // milliseconds between two refreshes of a chart whose log grows
const QUIET = 5000; // milliseconds between two refreshes of a page that has no announcement of changes
const LOST = 2000; // milliseconds before the next request to a server that did not answer

const lost = document.getElementById("lost");
const said = document.getElementById("said");
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const isInUse = (element) =>
  element.querySelector(":popover-open, dialog[open], details[open]:not(.more-rows):has(:focus)") || (element.contains(document.activeElement) && document.activeElement !== element && document.activeElement.matches("input, select, textarea"));

class SignedOut extends Error {}

let leaving = false; // a form was sent, so the browser is about to load another page

async function get(url) {
  const answer = await fetch(url, { headers: { Accept: "text/html, application/json" }, cache: "no-store" });
  if (answer.status === 401 || (answer.redirected && new URL(answer.url).pathname.endsWith("/login"))) throw new SignedOut();
  if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
  return answer;
}

// Replace the live parts of the page by what the server sends now.

function swap(fresh) {
  showTimes(fresh);
  for (const old of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(old.id);
    if (!next || isInUse(old) || old.innerHTML === next.innerHTML && old.dataset.seq === next.dataset.seq) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const path = focused && focused.getAttribute("href");
    const scrolled = [old, ...old.querySelectorAll(".scroll")].map((item) => [item.scrollLeft, item.scrollTop]);
    const before = { ...old.dataset };
    const copy = document.importNode(next, true);
    for (const item of copy.querySelectorAll("details[data-key]")) {
      const known = old.querySelector(`details[data-key="${CSS.escape(item.dataset.key)}"]`);
      if (known) item.open = known.open;
    }
    old.replaceWith(copy);
    [copy, ...copy.querySelectorAll(".scroll")].forEach((item, at) => { if (scrolled[at]) [item.scrollLeft, item.scrollTop] = scrolled[at]; });
    if (path) [...copy.querySelectorAll("a")].find((link) => link.getAttribute("href") === path)?.focus();
    announce(before, copy);
  }
  document.title = fresh.title;
  dress();
}

function announce(before, now) {
  const { state, condition } = now.dataset;
  if (state === undefined || (before.state === state && before.condition === condition)) return;
  said.textContent = before.state === state ? `${condition}.` : `Now in ${state}.`;
  now.classList.add("is-new");
}

async function refresh() {
  const answer = await get(location.href);
  if (answer.status === 404 || leaving) return;
  swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
}

// Wait until the log grows, or refresh now and then if the page does not watch a log.

async function watch() {
  let since = null;
  for (;;) {
    const watched = document.querySelector("[data-watch]");
    try {
      if (watched) {
        const after = watched.dataset.seq;
        const { seq } = await (await get(`${watched.dataset.watch}?after=${after}`)).json();
        if (leaving) return;
        if (seq === null) return say("This chart was archived. ", "All charts", "/");
        await refresh();
        if (String(seq) !== after) await pause(BUSY);
      } else {
        await pause(QUIET);
        if (document.visibilityState === "visible") await refresh();
      }
      if (since) { since = null; lost.hidden = true; said.textContent = "The server answers again."; }
    } catch (error) {
      if (leaving) return;
      since ??= new Date();
      if (error instanceof SignedOut) return say("You are signed out. ", "Sign in", location.href);
      say(`No answer from the server since ${since.toISOString().slice(11, 19)} UTC: this page may be out of date. Trying again.`);
      await pause(LOST);
    }
  }
}

function say(text, link, href) {
  lost.textContent = text;
  if (link) { const anchor = document.createElement("a"); anchor.textContent = link; anchor.href = href; lost.append(anchor); }
  lost.hidden = false;
}

// The search field, and buttons that copy.

function filter() {
  const field = document.querySelector("[data-filter]");
  if (!field) return;
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const item of document.querySelectorAll(field.dataset.filter)) {
    item.hidden = !words.every((word) => item.dataset.about.includes(word));
    shown += item.hidden ? 0 : 1;
  }
  const none = document.getElementById("none");
  if (none) none.hidden = shown > 0;
}

// Remember up to which row of the log a person has seen a chart, and offer the rows since then.

const watched = () => document.getElementById("watch")?.dataset ?? {};

function showSinceLooked() {
  const { chart, seq } = watched();
  const place = document.getElementById("looked");
  let seen = null;
  try { seen = JSON.parse(localStorage.getItem(`seen ${chart}`)); } catch { /* no storage */ }
  const rows = seen && place ? seq - seen.seq : 0;
  if (rows <= 0) return;
  const link = place.querySelector("a");
  link.textContent = `${rows} new ${rows === 1 ? "row" : "rows"} since you looked at ${seen.at.slice(0, 16).replace("T", " ")} UTC`;
  link.href = `?kind=all&since=${seen.at}#history`;
  place.hidden = false;
}

function rememberLook() {
  const { chart, seq, at } = watched();
  try { if (chart) localStorage.setItem(`seen ${chart}`, JSON.stringify({ seq, at })); } catch { /* no storage */ }
}

// Times as the person wants them: how long ago, in UTC, or in the browser's zone. The hint has the other forms.

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const LOCAL = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" }); // 2026-11-28 16:35:00
const times = document.querySelector("#times select");
const HINTS = { ago: `point at a time to see it in UTC${ZONE === "UTC" ? "" : ` and ${ZONE}`}`, utc: "times are UTC", local: `times are ${ZONE}` };

function showTimes(root) {
  const form = times?.value || "ago";
  for (const time of root.querySelectorAll("time")) {
    time.dataset.ago ??= time.textContent;
    time.dataset.utc ??= time.title;
    const { ago, utc } = time.dataset;
    const forms = { ago, utc, local: `${LOCAL.format(new Date(time.dateTime))} ${ZONE}` };
    time.textContent = forms[form];
    time.title = [...new Set(Object.values(forms))].filter((text) => text !== forms[form]).join(", ");
  }
  const zone = root.getElementById("zone");
  if (zone) zone.hidden = !root.querySelector("time");
  if (zone) zone.textContent = `${HINTS[form][0].toUpperCase()}${HINTS[form].slice(1)}.`;
}

function readTimes() {
  if (!times) return;
  try { times.value = localStorage.getItem("times") || "ago"; } catch { /* no storage: the choice lasts for this page */ }
  times.closest("label").hidden = false;
  times.addEventListener("change", () => {
    try { localStorage.setItem("times", times.value); } catch { /* as above */ }
    showTimes(document);
  });
}

function dress() {
  showTimes(document);
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
  filter();
  markCut();
  rememberLook();
}

document.addEventListener("input", (event) => { if (event.target.matches("[data-filter]")) filter(); });

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  const text = button.textContent;
  button.textContent = "Copied";
  said.textContent = "Copied.";
  setTimeout(() => { button.textContent = text; }, 2000);
});

// A filter or a page of a chart's lists changes that list and the address, and reloads nothing else.
let shown = location.pathname + location.search;

async function follow(url) {
  history.pushState(null, "", url);
  shown = location.pathname + location.search;
  try { await refresh(); } catch { location.reload(); }
}

// An act is not sent to a server that does not answer: the browser's own error page would lose what was typed.

function hold(event) {
  event.preventDefault();
  let problem = event.target.querySelector(".problem");
  if (!problem) {
    problem = document.createElement("p");
    problem.className = "problem";
    problem.setAttribute("role", "alert");
    event.target.querySelector(".act-buttons").before(problem);
  }
  problem.textContent = `Not sent. ${lost.textContent}`;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!lost.hidden && form.matches(".act form")) return hold(event);
  if (!form.matches("[data-swap]")) { leaving = true; return; }
  event.preventDefault();
  const query = new URLSearchParams(location.search); // keeps the fields of the other list
  for (const { name, type, value } of form.elements) {
    if (name && type !== "hidden") value ? query.set(name, value) : query.delete(name);
  }
  query.delete(form.dataset.swap); // begin at the first page
  document.activeElement?.blur();
  follow(`${location.pathname}?${query}${form.getAttribute("action")}`);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest(".pages a, #machines .chips a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  follow(link.href);
});

window.addEventListener("popstate", () => {
  // A link to a place in this page ends here as well.
  if (location.pathname + location.search !== shown) location.reload();
});

// Of the two diagrams, the one that has room.
const diagram = () => [...document.querySelectorAll("#diagram, #diagram-narrow")].find((room) => room.getClientRects().length);

function showCurrent() {
  const room = diagram();
  const current = room?.querySelector(".d-current, .d-paused");
  if (!current) return;
  const box = current.getBoundingClientRect();
  const { left, top } = room.getBoundingClientRect();
  room.scrollLeft += box.left + box.width / 2 - left - room.clientWidth / 2;
  room.scrollTop += box.top + box.height / 2 - top - room.clientHeight / 2;
}

// Say at which edges the diagram is cut, so that they fade.

function markCut() {
  const room = diagram();
  if (!room) return;
  const { scrollLeft, scrollTop } = room;
  room.classList.toggle("cut-left", scrollLeft > 1);
  room.classList.toggle("cut-top", scrollTop > 1);
  room.classList.toggle("cut-right", scrollLeft + room.clientWidth < room.scrollWidth - 1);
  room.classList.toggle("cut-bottom", scrollTop + room.clientHeight < room.scrollHeight - 1);
}

document.addEventListener("scroll", (event) => { if (event.target === diagram()) markCut(); }, true);
window.addEventListener("resize", markCut);

// The dialogs of acts are modal with this script. An act that ends a visit says in its dialog what it would take away,
// and resuming where the chart would be then.

async function rehearse(dialog) {
  const place = dialog.querySelector("[data-rehearse]");
  const form = dialog.querySelector("form");
  if (!place || [...form.querySelectorAll("select")].some((field) => !field.value)) return;
  const fields = new FormData(form);
  fields.set("dry_run", "1");
  const answer = await fetch(form.action, { method: "POST", body: fields, headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { lost, then } = await answer.json();
  place.textContent = lost ? `${lost[0].toUpperCase()}${lost.slice(1)}. ${then}` : then;
  place.hidden = false;
}

function openModal(dialog) {
  if (dialog.open) dialog.close();
  dialog.removeAttribute("popover");
  dialog.showModal();
  rehearse(dialog).catch(() => {});
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[popovertarget]");
  const dialog = button && document.getElementById(button.getAttribute("popovertarget"));
  if (!(dialog instanceof HTMLDialogElement)) return;
  event.preventDefault();
  button.getAttribute("popovertargetaction") === "hide" ? dialog.close() : openModal(dialog);
});

document.addEventListener("change", (event) => {
  const dialog = event.target.closest("dialog.act");
  if (dialog && event.target.matches("select")) rehearse(dialog).catch(() => {});
});

for (const dialog of document.querySelectorAll("dialog[data-open]")) openModal(dialog);
readTimes();
showSinceLooked();
showCurrent();
dress();
if (document.querySelector("[data-live]")) watch();
