/* The page of `forge serve`: a view of what the server reads from files. It keeps nothing that a reload would lose but the
   text of the job at hand. What comes from models, rows and logs is hostile text and only ever set as text. */
"use strict";
(() => {

// ------------------------------------------------------------------------------------------------- elements and words

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 20000; // characters of one text that are shown at once

/** Text as it may be shown: control characters as their pictures, so that nothing is hidden in it. */
function shown(text) {
  const whole = String(text).replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (sign) =>
    sign === "\r" ? "" : String.fromCharCode(sign === "\x7f" ? 0x2421 : 0x2400 + sign.charCodeAt(0)));
  return whole.length <= LONGEST ? whole : `${whole.slice(0, LONGEST)}… (${count(whole.length - LONGEST)} more characters)`;
}

/** An element: h("button.first", {onclick}, "Start"). Texts are set as text. */
function h(name, given, ...inside) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(given ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (["value", "checked", "disabled", "selected", "open"].includes(key)) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  return fill(made, ...inside);
}

function fill(element, ...inside) {
  element.append(...inside.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false)
    .map((each) => each instanceof Node ? each : shown(each)));
  return element;
}

// A text of the schema: what stands in backticks as code, and of a link its words.
function prose(text) {
  return text.split(/(`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).map((part) => part.startsWith("`") && part.length > 1 ? h("code", null, part.slice(1, -1)) : /^\[.*\]\(.*\)$/.test(part) ? part.slice(1, part.indexOf("](")) : part);
}

function svg(tag, given) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(given ?? {})) made.setAttribute(key, value);
  return made;
}

/** Put other content into an element; who had the focus keeps it, by data-key. */
function put(element, ...inside) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren();
  fill(element, ...inside);
  const again = key ? element.querySelector(`[data-key="${CSS.escape(key)}"]`) : null;
  (again?.disabled ? again.parentElement.querySelector("button:not(:disabled)") : again)?.focus({ preventScroll: true });
  return element;
}

function say(element, text) {
  const now = text === null || text === undefined ? "" : shown(text);
  if (element.textContent !== now) element.textContent = now;
}

const id = (() => { let last = 0; return (name) => `${name}-${++last}`; })();
const button = (text, act, kind = "", more = {}) => h(`button${kind ? `.${kind.split(" ").join(".")}` : ""}`, { type: "button", onclick: act, ...more }, text);
const enc = encodeURIComponent;
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const count = (value) => new Intl.NumberFormat("en").format(value);
const plural = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`;
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function figure(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e7) ? value.toExponential(2) : number.format(value);
}

function bytes(value) {
  if (!known(value)) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return `${unit === "B" ? value : value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
}

function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

const parameters = (value) => value >= 1e9 ? `${number.format(value / 1e9)} B` : value >= 1e6 ? `${number.format(value / 1e6)} M` : value >= 1e3 ? `${number.format(value / 1e3)} k` : count(value);

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function time(seconds, format = DAY) {
  if (!known(seconds)) return "–";
  const date = new Date(seconds * 1000);
  return h("time", { datetime: date.toISOString(), title: format === DAY ? null : DAY.format(date) }, format.format(date));
}

const begun = (line) => {
  const found = /(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)/.exec(line.run ?? line.id ?? "");
  return found ? Date.parse(`${found[1]}-${found[2]}-${found[3]}T${found[4]}:${found[5]}:${found[6]}`) / 1000 : line.time;
};
const state = (line) => h("span.state", { "data-state": line.state }, line.stopping ? "stopping" : line.state);
const nameOf = (line) => line.run ? line.run.replace("/", " / ") : line.name;
const KINDS = { run: "training", "dry-run": "dry run", resume: "resume", export: "export", eval: "evaluation" };

// -------------------------------------------------------------------------------------------------- asking the server

class Refused extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.title ?? `The server answered ${status}`);
    Object.assign(this, { status, problems: body?.problems ?? [], error: body?.error ?? null });
  }
}

async function ask(method, path, body, { signal, headers = {} } = {}) {
  const sent = method === "GET" ? {} : { body: JSON.stringify(body ?? {}), headers: { "content-type": "application/json", ...headers } };
  let answer;
  try {
    answer = await fetch(path.startsWith("/") ? path : `/api/v1/${path}`, { method, signal, credentials: "same-origin", ...sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { detail: "The server does not answer. What runs goes on; start `forge serve` again." });
  }
  if (answer.status === 401) locked();
  const kind = answer.headers.get("content-type") ?? "";
  const found = kind.includes("json") && !kind.includes("jsonl") ? await answer.json() : await answer.text();
  if (!answer.ok) throw new Refused(answer.status, typeof found === "string" ? { detail: found } : found);
  return kind.includes("json") && !kind.includes("jsonl") ? found : { text: found, from: +answer.headers.get("forge-from"), next: +answer.headers.get("forge-next"), size: +answer.headers.get("forge-size") };
}

/** Tell something that needs to be seen, with what can be done. */
function notice(text, { kind = "bad", why = null, to = null, key = null, actions = [] } = {}) {
  const place = document.getElementById("notices");
  if (key) place.querySelector(`[data-notice="${CSS.escape(key)}"]`)?.remove();
  const made = h(`div.notice.${kind}`, { "data-notice": key },
    h("div", null, h("p", null, h("strong", null, text)), why && h("p", null, why), to && h("p", null, to)), actions,
    button("Close", () => made.remove(), "small"));
  place.append(made);
  while (place.children.length > 3) place.firstElementChild.remove();
  return made;
}

function failed(error, what) {
  if (error.name === "AbortError" || error.status === 401) return;
  const found = error.error;
  const more = error.problems.map((each) => `${each.where ? `${each.where} ` : ""}${each.message}${each.hint ? `; ${each.hint}` : ""}`).join("; ");
  notice(found?.what ? `${what}: ${found.what}` : what, { why: found?.why ?? (more || error.message), to: found?.do ?? null });
}

/** Do something at a press of a button, once at a time; what goes wrong is told. */
function doing(what, act) {
  return async (event) => {
    const pressed = event?.currentTarget;
    if (pressed?.getAttribute("aria-busy") === "true") return; // a button that is disabled would lose the focus
    pressed?.setAttribute("aria-busy", "true");
    try { await act(event); } catch (error) { failed(error, what); } finally { pressed?.removeAttribute("aria-busy"); }
  };
}

function locked() {
  const field = h("input", { type: "text", autocomplete: "off", spellcheck: "false", id: "token", placeholder: "http://127.0.0.1:8000/login?token=…" });
  if (document.querySelector('[data-notice="locked"]')) return;
  const open = (event) => {
    event.preventDefault();
    location.href = `/login?token=${enc(field.value.trim().split("token=").pop())}`;
  };
  notice("This page is not logged in", {
    key: "locked", why: "The server was started again, with another token. Open the link that `forge serve` printed, or paste it here.",
    actions: [h("form.row", { onsubmit: open }, h("label.unseen", { for: "token" }, "Link or token"), field, h("button", { type: "submit" }, "Log in"))],
  });
}

function confirmed(title, text, act, kind = "danger") {
  return new Promise((done) => {
    const name = id("dialog");
    const box = h("dialog", { "aria-labelledby": name }, h("h2", { id: name }, title), [text].flat().map((each) => h("p", null, each)),
      h("form.row", { method: "dialog" }, h("button", { value: "no", autofocus: true }, "Cancel"), h(`button.${kind}`, { value: "yes" }, act)));
    box.addEventListener("close", () => { box.remove(); done(box.returnValue === "yes"); });
    document.body.append(box);
    box.showModal();
  });
}

const polite = (() => {
  let last = 0, waiting = null;
  return (text) => {
    clearTimeout(waiting);
    const tell = () => { last = Date.now(); say(document.getElementById("status"), text); };
    waiting = setTimeout(tell, Math.max(0, last + 5000 - Date.now()));
  };
})();

async function copied(text, pressed) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = h("textarea.unseen", { value: text });
    document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
  const before = pressed.textContent;
  pressed.textContent = "Copied"; polite("Copied");
  setTimeout(() => { pressed.textContent = before; }, 1500);
}

const command = (text) => h("div.command", null, h("code", null, text), button("Copy", (event) => copied(text, event.currentTarget), "plain small", { "aria-label": `Copy: ${text}` }));

// ------------------------------------------------------------------------------------------ what the server tells us

const store = { runs: new Map(), queue: { entries: [], paused: null, by_hand: [] }, about: null, schema: null, machine: null, heard: false };
let view = null;

/** One stream of the server's for the whole page; EventSource goes on by itself, and this does where it gives up. */
const live = {
  source: null, run: null, place: null, lines: [], timer: null, again: null,
  open(run = null, place = null) {
    clearTimeout(this.again);
    this.source?.close();
    Object.assign(this, { run, place, lines: [] });
    const source = this.source = new EventSource(`/api/v1/stream${run ? `?run=${enc(run)}&after=${place ?? 0}` : ""}`);
    const told = (kind, act) => source.addEventListener(kind, (event) => { if (source === this.source) act(event); });
    told("hello", (event) => {
      const found = JSON.parse(event.data);
      store.runs = new Map(found.runs.map((line) => [line.id, line]));
      store.queue = found.queue; store.heard = true;
      linked("live", "live"); changed();
    });
    told("run", (event) => { const line = JSON.parse(event.data); store.runs.set(line.id, line); changed(); });
    told("gone", (event) => { store.runs.delete(JSON.parse(event.data).id); changed(); });
    told("queue", (event) => { store.queue = JSON.parse(event.data); changed(); });
    told("line", (event) => {
      this.place = +event.lastEventId;
      this.lines.push([event.data, this.place]);
      this.timer ??= setTimeout(() => { this.timer = null; const lines = this.lines.splice(0); view?.lines?.(lines); }, 40);
    });
    source.addEventListener("error", () => {
      if (source !== this.source) return;
      linked("lost", "no connection, trying again");
      if (source.readyState === EventSource.CLOSED) this.retry();
    });
  },
  retry() {
    clearTimeout(this.again);
    this.again = setTimeout(async () => {
      try {
        await ask("GET", this.run ? `runs/${enc(this.run)}` : "queue");
        this.open(this.run, this.place);
      } catch (error) {
        if (error.status === 404) this.open();
        else this.retry();
      }
    }, 1000);
  },
};
addEventListener("pagehide", () => live.source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) live.open(live.run, live.place); });

function linked(now, text) {
  const element = document.getElementById("link");
  element.dataset.state = now;
  say(document.getElementById("link-said"), text);
}

let pending = null;
function changed() {
  pending ??= setTimeout(() => {
    pending = null;
    const waiting = store.queue.entries.filter((each) => each.state === "queued").length;
    const badge = document.getElementById("waiting");
    badge.hidden = !waiting;
    say(badge, waiting || "");
    badge.setAttribute("aria-label", `${waiting} waiting`);
    view?.update?.();
  }, 30);
}

/** A run by its id, or by that of the entry of the queue that began it. */
const lineOf = (name) => store.runs.get(name) ?? [...store.runs.values()].find((line) => line.entry === name || line.waiting?.includes(name));

// ------------------------------------------------------------------------------------------------- TOML, with comments

/** Find every key of a TOML text, where it stands, and where a new one would go. What is not TOML is the server's to say. */
function scan(text) {
  const doc = { entries: [], tables: [{ path: [], start: 0, body: 0, end: 0, root: true }], error: null };
  const counts = new Map();
  const keyOf = (path) => JSON.stringify(path);
  let at = 0, table = doc.tables[0];
  const fail = (what) => { throw new SyntaxError(`${what} in line ${text.slice(0, at).split("\n").length}`); };
  const spaces = () => { while (text[at] === " " || text[at] === "\t" || text[at] === "\r") at++; };
  const blank = () => {
    for (;;) {
      while (/\s/.test(text[at] ?? "x")) at++;
      if (text[at] !== "#") return;
      while (at < text.length && text[at] !== "\n") at++;
    }
  };
  const string = () => {
    const sign = text[at], three = sign.repeat(3);
    if (text.startsWith(three, at)) {
      let end = at + 3;
      for (;; end++) {
        if (end >= text.length) fail("a text has no end");
        if (sign === '"' && text[end] === "\\") end++;
        else if (text.startsWith(three, end)) break;
      }
      while (text[end + 3] === sign) end++;
      at = end + 3;
      return;
    }
    for (at++; text[at] !== sign; at++) {
      if (at >= text.length || text[at] === "\n") fail("a text has no end");
      if (sign === '"' && text[at] === "\\") at++;
    }
    at++;
  };
  const part = () => {
    spaces();
    const start = at;
    if (text[at] === '"' || text[at] === "'") { string(); return unquoted(text.slice(start, at)); }
    while (/[\w-]/.test(text[at] ?? "")) at++;
    if (at === start) fail("a key is missing");
    return text.slice(start, at);
  };
  const key = () => {
    const path = [part()];
    for (spaces(); text[at] === "."; spaces()) { at++; path.push(part()); }
    return path;
  };
  const pair = (path, inline) => {
    const start = at, keys = key();
    if (text[at] !== "=") fail("= is missing");
    at++; spaces();
    const from = at, entry = { path: [...path, ...keys], start, from, inline };
    doc.entries.push(entry);
    value(entry.path);
    entry.to = at;
    return entry;
  };
  const value = (path) => {
    const sign = text[at];
    if (sign === '"' || sign === "'") return string();
    if (sign === "[") {
      at++;
      for (let index = 0; ; index++) {
        blank();
        if (text[at] === "]") { at++; return; }
        if (at >= text.length) fail("a list has no end");
        value([...path, index]);
        blank();
        if (text[at] === ",") at++;
        else if (text[at] !== "]") fail("a list goes wrong");
      }
    }
    if (sign === "{") {
      at++;
      for (;;) {
        blank();
        if (text[at] === "}") { at++; return; }
        if (at >= text.length) fail("a table has no end");
        pair(path, true);
        blank();
        if (text[at] === ",") at++;
        else if (text[at] !== "}") fail("a table goes wrong");
      }
    }
    const start = at;
    while (at < text.length && !/[,\]}#\n\r]/.test(text[at])) at++;
    while (at > start && /\s/.test(text[at - 1])) at--;
    if (at === start) fail("a value is missing");
  };
  const lineEnd = () => {
    spaces();
    if (text[at] === "#") while (at < text.length && text[at] !== "\n") at++;
    if (at < text.length && text[at] !== "\n") fail("something follows a value");
    at = Math.min(at + 1, text.length);
  };
  const placed = (path) => {
    const whole = [];
    path.forEach((each, index) => {
      whole.push(each);
      if (index < path.length - 1 && counts.has(keyOf(whole))) whole.push(counts.get(keyOf(whole)) - 1);
    });
    return whole;
  };
  try {
    for (blank(); at < text.length; blank()) {
      const start = text.lastIndexOf("\n", at - 1) + 1;
      if (text[at] === "[") {
        const list = text[at + 1] === "[";
        at += list ? 2 : 1;
        let path = placed(key());
        if (!text.startsWith(list ? "]]" : "]", at)) fail("] is missing");
        at += list ? 2 : 1;
        lineEnd();
        if (list) {
          const index = counts.get(keyOf(path)) ?? 0;
          counts.set(keyOf(path), index + 1);
          path = [...path, index];
        }
        table = { path, start, body: at, end: at, list };
        doc.tables.push(table);
      } else {
        const entry = pair(table.path, false);
        lineEnd();
        Object.assign(entry, { lineStart: start, lineEnd: at });
        table.end = at;
      }
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    doc.error = error.message;
  }
  doc.find = (path) => doc.entries.find((each) => same(each.path, path));
  return doc;
}

const same = (one, other) => one.length === other.length && one.every((each, index) => String(each) === String(other[index]));
const quoted = (text) => JSON.stringify(text).replace(/\x7f/g, "\\u007f");
const keyed = (key) => /^[\w-]+$/.test(key) ? key : quoted(key);

/** What a text of TOML says. */
function unquoted(raw) {
  const found = /^("""|''')\r?\n?([\s\S]*)\1$/.exec(raw) ?? /^(["'])([\s\S]*)\1$/.exec(raw);
  if (!found) return raw;
  if (found[1][0] === "'") return found[2];
  const signs = { b: "\b", t: "\t", n: "\n", f: "\f", r: "\r", e: "\x1b" };
  return found[2].replace(/\\(?:(\s*\n\s*)|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))/g, (_, line, short, long, two, sign) =>
    line ? "" : short || long || two ? String.fromCodePoint(parseInt(short ?? long ?? two, 16)) : signs[sign] ?? sign);
}

const ORDER = ["model", "adapter", "data", "train", "eval", "generation", "export", "use", "plugins"];

/** The text with one key set, everything else as it was. */
function withValue(text, path, raw) {
  const doc = scan(text), there = doc.find(path);
  if (there) return text.slice(0, there.from) + raw + text.slice(there.to);
  const parent = path.slice(0, -1), line = `${keyed(path.at(-1))} = ${raw}\n`;
  const inline = doc.find(parent);
  if (inline && text[inline.from] === "{") {
    const bare = text.slice(inline.from + 1, inline.to - 1).trim();
    return text.slice(0, inline.from) + `{ ${bare}${bare ? ", " : ""}${line.trim()} }` + text.slice(inline.to);
  }
  const table = doc.tables.find((each) => same(each.path, parent) && !each.root);
  if (table) return inserted(text, table.end, line);
  if (parent.length === 0) {
    const root = doc.tables[0];
    if (root.end) return inserted(text, root.end, line);
    const first = doc.tables[1];
    return first ? inserted(text, above(text, first.start), `${line}\n`) : inserted(text, text.length, line);
  }
  const rank = ORDER.indexOf(String(parent[0])), header = `[${parent.filter((each) => typeof each === "string").map(keyed).join(".")}]\n`;
  const next = doc.tables.find((each) => !each.root && ORDER.indexOf(String(each.path[0])) > rank);
  if (next) return inserted(text, above(text, next.start), `${header}${line}\n`);
  const rest = text.replace(/\s+$/, "");
  return `${rest}${rest ? "\n\n" : ""}${header}${line}`;
}

function inserted(text, at, more) {
  const gap = at > 0 && text[at - 1] !== "\n" ? "\n" : "";
  return text.slice(0, at) + gap + more + text.slice(at);
}

/** Where the remarks right above a line begin. */
function above(text, start) {
  for (;;) {
    const before = text.lastIndexOf("\n", start - 2) + 1;
    if (start === 0 || !text.slice(before, start).trim().startsWith("#")) return start;
    start = before;
  }
}

/** The text without one key, and without a table that holds nothing any more. */
function without(text, path) {
  const doc = scan(text), there = doc.find(path);
  if (!there) return text;
  if (there.inline) {
    let { start, to } = there;
    const after = /^\s*,\s*/.exec(text.slice(to));
    if (after) to += after[0].length;
    else start -= /(,\s*)?$/.exec(text.slice(0, start))[0].length;
    return text.slice(0, start) + text.slice(to);
  }
  const rest = text.slice(0, there.lineStart) + text.slice(there.lineEnd);
  const left = scan(rest);
  const index = left.tables.findIndex((each) => !each.root && !each.list && same(each.path, path.slice(0, -1)));
  const table = left.tables[index];
  if (!table) return rest;
  const end = left.tables[index + 1]?.start ?? rest.length;
  return rest.slice(table.body, end).trim() ? rest : (rest.slice(0, table.start) + rest.slice(end)).replace(/\n{3,}/g, "\n\n");
}

/** The text with an export of a format, or without it. */
function withExport(text, format, wanted) {
  const doc = scan(text);
  const entry = doc.entries.find((each) => each.path[0] === "export" && each.path.length === 3 && each.path[2] === "format" && unquoted(text.slice(each.from, each.to)) === format);
  if (wanted) return entry ? text : `${text.replace(/\s+$/, "")}\n\n[[export]]\nformat = ${quoted(format)}\n`;
  if (!entry) return text;
  if (entry.inline) return text; // export = [{ … }] is left to the text
  const index = doc.tables.findIndex((each) => same(each.path, entry.path.slice(0, 2)));
  const next = doc.tables.slice(index + 1).find((each) => !same(each.path.slice(0, 2), entry.path.slice(0, 2)));
  return `${(text.slice(0, doc.tables[index].start) + (next ? text.slice(above(text, next.start)) : "")).replace(/\s+$/, "")}\n`;
}

const TOKENS = /("""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(#[^\n]*)|(^[ \t]*\[\[?[^\]\n]*\]\]?)|(^[ \t]*[\w."'-]+(?=[ \t]*=))|((?<=[=,[{]\s*)(?:true|false|[+-]?\d[\w.+-]*))/gm;

/** The text in colours: a list of spans. */
function coloured(text) {
  const made = document.createDocumentFragment();
  let last = 0;
  for (const found of text.matchAll(TOKENS)) {
    made.append(text.slice(last, found.index));
    const kind = ["string", "comment", "table", "key", "value"][found.slice(1).findIndex((each) => each !== undefined)];
    const span = document.createElement("span");
    span.className = `t-${kind}`;
    span.textContent = found[0];
    made.append(span);
    last = found.index + found[0].length;
  }
  made.append(`${text.slice(last)}\n`);
  return made;
}

// ------------------------------------------------------------------------------------------------- what a job may hold

/** What a key takes, of the schema: its types, the words it may be, and whether a bare word is a text. */
function shape(schema) {
  const types = new Set(), words = [];
  const look = (each) => {
    if (each.$ref) each = { type: "object" };
    for (const inner of each.anyOf ?? each.oneOf ?? []) look(inner);
    if (each.const !== undefined) words.push(each.const);
    if (each.enum) words.push(...each.enum);
    if (each.type) types.add(each.type);
  };
  look(schema);
  return { types, words, closed: words.length > 0 && !types.has("number") && !types.has("integer") && !(schema.anyOf ?? []).some((each) => each.type === "string" && !each.enum && each.const === undefined) };
}

/** What was typed, as TOML; null where nothing was. */
function written(text, types) {
  const bare = text.trim();
  if (!bare) return null;
  if (types.has("boolean") && /^(true|false)$/.test(bare)) return bare;
  if ((types.has("number") || types.has("integer")) && /^[+-]?(\d[\d_]*)(\.\d[\d_]*)?([eE][+-]?\d+)?$/.test(bare)) return bare.replace(/^([+-]?)0+(?=\d)/, "$1");
  if ((types.has("array") || types.has("object")) && /^[[{]/.test(bare)) return bare;
  if (types.has("string") || !/^[\w.+-]+$/.test(bare)) return /^(["']).*\1$/s.test(bare) && types.has("string") ? bare : quoted(text);
  return types.has("array") ? `[${quoted(bare)}]` : quoted(bare); // wrong, and the plan says so
}

/** All keys of the schema: [{path, schema, table}], those of lists left to the text. */
function keysOf(schema) {
  const found = [], defs = schema.$defs ?? {};
  const open = (each) => {
    if (each.$ref) return defs[each.$ref.split("/").pop()] ?? each;
    const inner = (each.anyOf ?? []).find((one) => one.$ref);
    return inner ? open(inner) : each;
  };
  const walk = (each, path) => {
    for (const [name, given] of Object.entries(each.properties ?? {})) {
      const inner = open(given);
      if (inner.properties) walk(inner, [...path, name]);
      else if (name !== "export" || path.length) found.push({ path: [...path, name], schema: given, table: path.join(".") });
    }
  };
  walk(schema, []);
  return found;
}

const METHODS = ["sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "sdpo", "distill"];

// ---------------------------------------------------------------------------------------------------- the job at hand

/** The text of the job: the form and the editor are two ways to change this one. It outlives a reload. */
const job = {
  text: "", doc: scan(""), watchers: new Set(), key: null,
  load() { try { this.text = localStorage.getItem("forge-job") ?? ""; } catch { /* a browser that keeps nothing */ } this.doc = scan(this.text); },
  set(text, by = null) {
    if (text === this.text) return;
    this.text = text; this.doc = scan(text); this.key = null;
    try { localStorage.setItem("forge-job", text); } catch { /* then it is lost with the page */ }
    for (const each of this.watchers) each(by);
  },
  raw(path) { const found = this.doc.find(path); return found ? this.text.slice(found.from, found.to) : null; },
  value(path) { const raw = this.raw(path); return raw === null ? "" : unquoted(raw); },
  change(path, raw, by) { this.set(raw === null ? without(this.text, path) : withValue(this.text, path, raw), by); },
  body(more = {}) { return { job: this.text, ...more }; },
};
job.load();

const PROVIDERS = ["auto", "huggingface", "unsloth"];

/** A control for one key of the job. */
function control(path, given, { kind = null, placeholder = null } = {}) {
  const { types, words, closed } = shape(given), name = path.join(".");
  const base = given.default;
  const otherwise = base === undefined || base === null || (typeof base === "object" && !Object.keys(base).length) ? "" : typeof base === "object" ? JSON.stringify(base) : String(base);
  let input, extra = null;
  const commit = () => job.change(path, written(input.value, types), name);
  if (kind === "check") {
    input = h("input", { type: "checkbox", onchange: () => job.change(path, input.checked ? "true" : null, name) });
  } else if ((closed && !types.has("array")) || (types.has("boolean") && !types.has("number") && types.size <= 2 && !types.has("string"))) {
    const options = types.has("boolean") ? ["true", "false", ...words.map(String)] : words.map(String);
    input = h("select", { onchange: commit }, h("option", { value: "" }, otherwise ? `${otherwise} (default)` : "not set"), options.map((each) => h("option", { value: each }, each || '""')));
  } else {
    input = h("input", { type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off", oninput: commit, inputmode: (types.has("number") || types.has("integer")) && !types.has("string") ? "decimal" : null });
    if (words.length) {
      const list = id("words");
      input.setAttribute("list", list);
      extra = h("datalist", { id: list }, words.map((each) => h("option", { value: String(each) })));
    }
  }
  const refresh = (by) => {
    if (input.type === "text") input.placeholder = (typeof placeholder === "function" ? placeholder() : placeholder) ?? otherwise;
    if (by === name) return;
    const raw = job.raw(path), value = raw === null ? "" : raw.includes("\n") && /^["']/.test(raw) ? raw : unquoted(raw);
    if (kind === "check") { input.checked = raw === "true"; return; }
    if (input.tagName === "SELECT" && value && ![...input.options].some((each) => each.value === value)) input.append(h("option", { value }, value));
    if (input.value !== value) input.value = value;
  };
  refresh();
  return { path, name, input, extra, refresh };
}

// ---------------------------------------------------------------------------------------------------------- Training

function training() {
  const root = h("div");
  const controls = new Map(); // name -> [{input, fault, refresh, open}]
  let mode = "form", plan = { state: "empty" }, asking = null, wait = null, rows = null, quick = null;
  try { mode = localStorage.getItem("forge-mode") === "toml" ? "toml" : "form"; } catch { /* the form, then */ }

  const keep = (made, wrap, fault, set = null, open = null) => {
    const each = { ...made, wrap, fault, set, open };
    controls.set(made.name, [...(controls.get(made.name) ?? []), each]);
    made.input.dataset.key = made.name;
    return wrap;
  };
  const schemaOf = (path) => path.reduce((each, part) => {
    const open = (one) => one?.$ref ? store.schema?.$defs?.[one.$ref.split("/").pop()] : one?.anyOf?.some((inner) => inner.$ref) ? open(one.anyOf.find((inner) => inner.$ref)) : one;
    return open(each)?.properties?.[part];
  }, store.schema) ?? { type: ["model", "data"].includes(path[0]) ? "string" : "number" };

  const field = (title, path, { help = null, kind = null, placeholder = null, wide = "", words = null } = {}) => {
    const made = control(path, words ? { enum: words, default: words[0] } : schemaOf(path), { kind, placeholder }), name = id("field"), about = id("help"), wrong = id("fault");
    made.input.id = name;
    const fault = h("p.fault", { id: wrong, hidden: true });
    made.input.setAttribute("aria-describedby", [help && about, wrong].filter(Boolean).join(" "));
    const says = help && h("p.help", { id: about }, help);
    const label = kind === "check" ? h("label.check", { for: name }, made.input, title) : [h("label", { for: name }, title), made.input];
    return keep(made, h(`div.field${wide}`, null, label, made.extra, says, fault), fault);
  };

  const provider = () => {
    const made = { name: "use.backend", path: ["use", "backend"], input: null };
    const box = h("fieldset.field.two", null, h("legend", null, "Provider"));
    const group = h("div.row"), fault = h("p.fault", { hidden: true });
    made.refresh = () => {
      const now = job.value(made.path) || "auto", words = PROVIDERS.includes(now) ? PROVIDERS : [...PROVIDERS, now];
      if (group.children.length !== words.length) {
        const name = id("provider");
        group.replaceChildren(...words.map((word) => h("label.check", null, h("input", { type: "radio", name, value: word, "data-key": `provider-${word}`, onchange: () => job.change(made.path, word === "auto" ? null : quoted(word), "use.backend") }), word)));
      }
      for (const each of group.querySelectorAll("input")) each.checked = each.value === now;
    };
    made.refresh();
    made.input = group.querySelector("input");
    controls.set(made.name, [...(controls.get(made.name) ?? []), { ...made, wrap: box, fault }]);
    return fill(box, group, h("p.help", null, "Who loads and trains. auto takes the fastest that does exactly what the job says."), fault);
  };

  const exports = () => {
    const box = h("fieldset.field.two", null, h("legend", null, "Make of it"), h("div.row"), h("p.help", null, "What can be downloaded at the end, beside the adapter itself."));
    const words = { merged: "a whole model", gguf: "GGUF for llama.cpp", adapter: "the adapter, with a model card" };
    const inputs = Object.entries(words).map(([format, said]) => {
      const input = h("input", { type: "checkbox", "data-key": `export-${format}`, onchange: () => job.set(withExport(job.text, format, input.checked), "export") });
      box.children[1].append(h("label.check", null, input, said));
      return () => { input.checked = job.doc.entries.some((each) => each.path[0] === "export" && each.path[2] === "format" && unquoted(job.text.slice(each.from, each.to)) === format); };
    });
    const refresh = () => inputs.forEach((each) => each());
    refresh();
    controls.set("export", [{ name: "export", input: box.querySelector("input"), refresh, fault: null, wrap: box }]);
    return box;
  };

  const uploader = () => {
    const file = h("input", { type: "file", accept: ".jsonl,.json,.csv,.txt,.md", hidden: true, tabindex: -1, "aria-label": "A file of rows", onchange: doing("The file was not uploaded", async () => {
      const given = file.files[0];
      file.value = "";
      if (!given) return;
      const told = await uploaded(given);
      job.change(["data", "path"], quoted(told.path), null);
      polite(`${given.name} is there`);
    }) });
    return [file, button("Upload rows…", () => file.click(), "plain small", { "data-key": "upload" })];
  };

  // All keys, by table, each with its help.
  const settings = () => {
    const search = h("input", { type: "search", id: id("search"), placeholder: "Search: learning rate, packing, 8 bit, warmup…", autocomplete: "off", "data-key": "search" });
    const found = h("p.help", { role: "status" });
    const box = h("div.settings");
    const groups = new Map();
    for (const key of keysOf(store.schema)) {
      if (!groups.has(key.table)) groups.set(key.table, []);
      groups.get(key.table).push(key);
    }
    const built = [...groups].map(([table, keys]) => {
      const sum = h("span.soft");
      const list = h("div");
      const group = h("details", { "data-table": table }, h("summary", { "data-key": `table-${table}` }, h("code", null, table ? `[${table}]` : "the job"), " ", sum), list);
      let made = null;
      const open = () => {
        if (made) return made;
        made = keys.map((key) => {
          const each = control(key.path, key.schema), name = id("setting"), about = id("help"), fault = h("p.fault", { id: id("fault"), hidden: true });
          each.input.id = name;
          each.input.setAttribute("aria-describedby", `${about} ${fault.id}`);
          const clear = button("×", () => { job.change(key.path, null, null); each.input.focus(); }, "icon plain small", { "aria-label": `Leave ${each.name} out`, title: "Leave it out" });
          const wrap = h("div.setting", null, h("label", { for: name }, key.path.at(-1)), h("div.help", { id: about }, prose(key.schema.description ?? "")), fault, h("div.control", null, each.input, each.extra, clear));
          const set = () => { const there = job.raw(key.path) !== null; wrap.classList.toggle("set", there); clear.hidden = !there; };
          keep(each, wrap, fault, set, () => { group.open = true; });
          set();
          return { wrap, text: `${each.name.replaceAll("_", " ")} ${each.name} ${key.schema.description ?? ""}`.toLowerCase() };
        });
        list.append(...made.map((each) => each.wrap));
        faults();
        return made;
      };
      group.addEventListener("toggle", () => { if (group.open) open(); });
      box.append(group);
      return { group, keys, open, names: () => say(sum, `${plural(keys.length, "key")}${set(keys) ? `, ${set(keys)} set` : ""}`) };
    });
    const set = (keys) => keys.filter((key) => job.raw(key.path) !== null).length;
    const look = () => {
      const words = search.value.toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
      let hits = 0;
      for (const each of built) {
        let here = 0;
        if (words.length) for (const one of each.open()) {
          const fits = words.every((word) => one.text.includes(word));
          one.wrap.hidden = !fits;
          here += fits;
        }
        else for (const one of each.group.open ? each.open() : []) one.wrap.hidden = false;
        each.group.hidden = words.length > 0 && !here;
        if (words.length) each.group.open = here > 0;
        hits += here;
      }
      say(found, words.length ? (hits ? `${plural(hits, "key")} found` : "No key is called so, or told so.") : "");
    };
    search.addEventListener("input", look);
    const names = () => built.forEach((each) => each.names());
    names();
    return { box: h("div.card", null, h("h2", null, "All settings"), h("div.field", null, h("label", { for: search.id }, `Search among all ${keysOf(store.schema).length} keys`), search, found), box), names, open: (name) => { const hit = built.find((each) => each.keys.some((key) => key.path.join(".") === name)); if (hit) { hit.open(); } return Boolean(hit); } };
  };
  let every = null;

  const form = () => h("div.card", null, h("h2.unseen", null, "The job"), h("p.fault.bad", { hidden: true, id: "torn" }), h("div.fields", null,
      provider(),
      field("Max sequence length", ["model", "max_seq_length"], { help: "Tokens of the longest row: 512 to 8192. -1 takes the model's own." }),
      field("Model", ["model", "id"], { help: "A hub id, or a folder.", placeholder: "org/name", wide: ".two" }),
      field("Task / method", ["train", "method"], { words: METHODS, help: "sft learns from answers, dpo from pairs, grpo from rewards." }),
      (() => { const made = field("Data", ["data", "path"], { help: "A file, a folder or a hub id.", placeholder: "rows.jsonl", wide: ".two" }); made.querySelector(".help").after(h("div", null, uploader())); return made; })(),
      field("Held out", ["data", "eval_size"], { help: "Rows, or a share below 1, kept to measure by.", placeholder: () => { const own = job.value(["data", "eval_path"]); return own ? `in ${own.split("/").pop()}` : "0.05"; } }),
      field("Epochs", ["train", "num_train_epochs"], { help: "How often every row is seen." }),
      field("Steps at most", ["train", "max_steps"], { help: "-1 goes by the epochs." }),
      field("Batch size", ["train", "per_device_train_batch_size"], { help: "Rows at a time; auto fits the memory." }),
      field("Learning rate", ["train", "learning_rate"], { placeholder: "the method's own", help: "Left open, it suits the method." }),
      field("Adapter", ["adapter", "type"], { words: ["lora", "none"], help: "lora, or none to train every weight." }),
      field("Rank", ["adapter", "r"], { help: "LoRA's r: its size." }),
      field("Load in 4 bit (QLoRA)", ["model", "load_in_4bit"], { kind: "check", help: "A quarter of the memory for the base." }),
      exports()));

  const editor = () => {
    const gutter = h("div.gutter", { "aria-hidden": "true" }), layer = h("pre", { "aria-hidden": "true" });
    const area = h("textarea", { spellcheck: "false", autocomplete: "off", autocapitalize: "off", wrap: "off", "aria-label": "The job as TOML", "data-key": "toml", value: job.text, oninput: () => job.set(area.value, "toml") });
    const draw = () => {
      if (area.value !== job.text) area.value = job.text;
      layer.replaceChildren(job.text.length < 200000 ? coloured(job.text) : document.createTextNode(`${job.text}\n`));
      const wrong = new Set(plan.problems?.map((each) => each.line));
      const lines = job.text.split("\n").length;
      gutter.replaceChildren(...Array.from({ length: lines }, (_, index) => { const span = h("span", null, index + 1); if (wrong.has(index + 1)) span.className = "wrong"; return span; }));
    };
    draw();
    return { box: h("div.card.editor", null, gutter, h("div.text", null, layer, area)), draw, area };
  };
  let toml = null;

  const place = h("div.stack"), side = h("div.side"), more = h("div.stack"), shownRows = h("div"), starts = h("div");
  const switcher = (() => {
    const name = id("mode");
    const each = (value, text) => h("label", null, h("input", { type: "radio", name, value, checked: mode === value, "data-key": `mode-${value}`, onchange: () => { mode = value; try { localStorage.setItem("forge-mode", value); } catch { /* not kept */ } build(); } }), text);
    return h("fieldset.switch", null, h("legend.unseen", null, "Write the job as"), each("form", "Form"), each("toml", "TOML"));
  })();

  const build = () => {
    controls.clear(); every = toml = null;
    if (mode === "form") { put(place, form()); put(more, store.schema ? (every = settings()).box : h("p.wait", null, "Reading the settings…")); }
    else { toml = editor(); put(place, toml.box); put(more); }
    for (const each of switcher.querySelectorAll("input")) each.checked = each.value === mode;
    faults();
  };

  /** Show mistakes beside the fields that they are about. */
  const faults = () => {
    const torn = document.getElementById("torn");
    if (torn) { torn.hidden = !job.doc.error; say(torn, job.doc.error ? `The text is not TOML: ${job.doc.error}. Mend it under TOML; until then the form shows only a part.` : ""); }
    for (const [name, all] of controls) {
      const mine = (plan.problems ?? []).filter((each) => each.where === name || (each.where ?? "").startsWith(`${name}.`));
      for (const each of all) {
        if (each.fault) { say(each.fault, mine.map((one) => `${one.message}${one.hint ? `; ${one.hint}` : ""}`).join("; ")); each.fault.hidden = !mine.length; }
        if (mine.length) each.input.setAttribute("aria-invalid", "true"); else each.input.removeAttribute("aria-invalid");
      }
    }
    toml?.draw();
  };

  const goTo = (problem) => {
    const known = () => controls.get(problem.where)?.at(0);
    if (mode === "form" && !known()) every?.open(problem.where);
    if (mode === "form" && known()) {
      known().open?.();
      known().input.focus();
      known().input.scrollIntoView({ block: "center" });
      return;
    }
    mode = "toml"; build();
    const lines = job.text.split("\n"), line = Math.max(0, (problem.line ?? 1) - 1);
    const start = lines.slice(0, line).join("\n").length + (line ? 1 : 0);
    toml.area.focus();
    toml.area.setSelectionRange(start, start + (lines[line]?.length ?? 0));
    toml.box.querySelectorAll(".gutter span")[line]?.scrollIntoView({ block: "center" });
  };

  const changedText = (by) => {
    for (const all of controls.values()) for (const each of all) { each.refresh(by); each.set?.(); }
    every?.names();
    toml?.draw();
    offer();
    clearTimeout(wait);
    wait = setTimeout(look, 400);
  };

  /** Ask for the plan of the text as it stands. */
  const look = async () => {
    asking?.abort();
    if (!job.text.trim()) { plan = { state: "empty" }; drawPlan(); faults(); return; }
    asking = new AbortController();
    const { signal } = asking;
    busy.hidden = false;
    try {
      const found = await ask("POST", "plan", job.body(), { signal });
      plan = { state: "whole", ...found };
    } catch (error) {
      if (error.name === "AbortError") return;
      plan = { state: error.status === 422 ? "mistakes" : "unknown", problems: error.problems, error: error.error, message: error.message };
    }
    busy.hidden = true;
    drawPlan(); faults();
  };

  const busy = h("span.tag", { hidden: true }, "planning…");
  const board = h("div", { "data-key": "plan" }), said = h("p.unseen", { role: "status" });
  const send = (dry) => doing(dry ? "The dry run was not started" : "The training was not started", async () => {
    if (plan.state === "mistakes") { board.querySelector(".problems button")?.focus(); return; }
    job.key ??= crypto.randomUUID?.() ?? String(Math.random()).slice(2);
    const found = await ask("POST", "runs", job.body({ dry_run: dry }), { headers: { "idempotency-key": `${job.key}-${dry}` } });
    job.key = null;
    location.hash = `#/run/${enc(found.id)}`;
  });
  const showRows = doing("The rows cannot be shown", async () => {
    put(shownRows, h("div.card", null, h("h2", null, "Rows as trained"), h("p.wait", { role: "status" }, "Reading the rows and cutting them into tokens…")));
    shownRows.scrollIntoView({ block: "nearest" });
    try {
      let found = await ask("POST", "data", job.body({ rows: 6 }));
      while (found.state === "running") { await new Promise((done) => setTimeout(done, 400)); found = await ask("GET", found.url); }
      if (found.error) throw new Refused(422, { detail: found.error.what, error: found.error, problems: found.error.problems?.map((each) => ({ ...each, hint: each.do })) });
      rows = found.result;
      put(shownRows, rowsCard(rows));
      shownRows.querySelector("h2").focus();
      shownRows.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    } catch (error) { put(shownRows); throw error; }
  });
  const saved = () => {
    const link = h("a", { href: URL.createObjectURL(new Blob([job.text], { type: "application/toml" })), download: `${job.value(["name"]) || "job"}.toml` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const startButton = button("Start training", send(false), "first"), dryButton = button("Dry run", send(true)), rowsButton = button("Show rows", showRows);
  put(side, h("div.card.plan", null, h("h2", null, "Plan", busy), said, board, h("div.act", null, startButton, h("div.row", null, dryButton, rowsButton),
    h("div.row", null, button("Copy command", (event) => copied(`forge run ${job.value(["name"]) || "job"}.toml`, event.currentTarget), "small"), button("Save job.toml", saved, "small")))));

  const drawPlan = () => {
    const wrong = plan.state !== "whole";
    for (const each of [startButton, dryButton, rowsButton]) each.disabled = plan.state === "empty" || plan.state === "unknown";
    rowsButton.disabled ||= plan.state === "mistakes";
    dryButton.disabled ||= plan.state === "mistakes";
    if (plan.state === "empty") { put(board, h("p.soft", null, "Write a job, or begin with one above. The plan appears here while you type.")); say(said, ""); return; }
    if (wrong) {
      const problems = plan.problems ?? [];
      say(said, problems.length ? `${plural(problems.length, "mistake")} in the job` : plan.message);
      put(board, h("p", null, h("strong.bad", null, problems.length ? `${plural(problems.length, "mistake")} to mend` : plan.error?.what ?? "No plan"), ),
        !problems.length && h("p.soft", null, plan.error?.why ?? plan.message), !problems.length && plan.error?.do && h("p", null, plan.error.do),
        h("ul.problems", null, problems.map((each, index) => h("li", null,
          h("span", null, each.line ? h("span.soft", null, `line ${each.line} `) : null, h("code", null, each.where || "the text"), ": ", each.message),
          each.hint && h("span", null, each.hint), button("Go there", () => goTo(each), "plain small", { "data-key": `problem-${index}`, "aria-label": `Go there: ${each.where || "the text"}${each.line ? `, line ${each.line}` : ""}` })))));
      return;
    }
    say(said, "The plan is whole; the training can start.");
    put(board, planOf(plan.plan, plan.text));
  };

  /** Ways to begin, where there is no job yet. */
  const offer = () => {
    if (job.text.trim()) { starts.hidden = true; return; }
    starts.hidden = false;
    put(starts, h("div.starts", null,
      h("div.card", null, h("h2", null, "The quick start"), quickStart()),
      h("div.card", null, h("h2", null, "A job of your own"), h("p", null, "A commented job that suits this machine. Name your model and your rows, and start."),
        button("Write one", doing("There is no example", async () => job.set((await ask("GET", "example")).job)), "", { "data-key": "own" })),
      h("div.card", null, h("h2", null, "A job file"), h("p", null, "Open a job.toml from this computer. Paths in it start at the folder that the server was started in."), opener("Open job.toml…"))));
  };
  const opener = (text) => {
    const file = h("input", { type: "file", accept: ".toml,text/plain", hidden: true, tabindex: -1, "aria-label": "A job file", onchange: async () => { const given = file.files[0]; file.value = ""; if (given) job.set(await given.text()); } });
    return h("div", null, file, button(text, () => file.click(), "", { "data-key": "open" }));
  };
  const quickStart = () => {
    const told = h("p", { role: "status" });
    const made = (found) => {
      quick = found;
      press.disabled = ["making", "missing"].includes(quick.state);
      say(told, quick.state === "making" ? `Making its model and its rows: ${quick.said || "this takes about half a minute"}` :
        ["failed", "missing"].includes(quick.state) ? quick.said :
        "A small model of 135 M parameters learns to answer with a country card, in about two minutes on two cores. Its model and its rows are made here first.");
      told.className = quick.state === "failed" ? "bad" : "";
      press.textContent = quick.state === "made" ? "Take the quick start" : "Make the quick start";
    };
    const wait = async () => {
      for (;;) {
        const found = await ask("GET", "quickstart");
        made(found);
        if (found.state === "made") { job.set(found.job); return; }
        if (found.state !== "making") return;
        await new Promise((done) => setTimeout(done, 700));
        if (!root.isConnected) return;
      }
    };
    const press = button("Make the quick start", doing("The quick start was not made", async () => {
      if (quick?.state !== "made") made(await ask("POST", "quickstart"));
      await wait();
    }), "first", { "data-key": "quick" });
    ask("GET", "quickstart").then((found) => { made(found); return found.state === "making" ? wait() : null; }).catch((error) => failed(error, "The quick start cannot be looked at"));
    return [told, press];
  };

  const again = () => {
    const clear = doing("", async () => { if (await confirmed("Begin anew?", "The text of this job is dropped. Runs that were made of it keep theirs.", "Drop it")) { job.set(""); look(); } });
    return h("div.row.push", null, switcher, opener("Open…"), button("New", clear, "", { "aria-label": "New job" }));
  };
  put(root, h("div.head", null, h("h1", { tabindex: -1 }, "Training"), again()), starts, h("div.columns", null, place, side, h("div.stack", null, shownRows, more)));
  job.watchers.add(changedText);
  build(); offer(); drawPlan(); look();
  return {
    title: () => "Training", view: "training", root,
    schema: () => { if (mode === "form") build(); },
    close: () => { job.watchers.delete(changedText); asking?.abort(); clearTimeout(wait); },
  };
}

/** Send a file of rows to the server, in pieces. */
async function uploaded(file) {
  const PIECE = 2 ** 17; // characters: as JSON of bytes that are escaped, less than a request may have
  let text;
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()); } catch { throw new Refused(422, { detail: `${file.name} is not text in UTF-8. Copy Parquet and Arrow files to the server's folder, and name them here.` }); }
  let told = null, at = 0;
  do {
    let end = Math.min(at + PIECE, text.length);
    if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1])) end--;
    told = await ask("POST", "rows", { name: told?.name ?? file.name.replace(/[^\w .-]/g, "_"), text: text.slice(at, end), after: told?.bytes ?? 0, last: end === text.length });
    at = end;
  } while (at < text.length);
  return told;
}

/** A plan, for people: what was chosen and why, what was decided, what memory it takes. */
function planOf(plan, text) {
  const steps = plan.steps ?? [], facts = plan.facts ?? {}, estimate = plan.estimate;
  const backends = [...new Set(steps.filter((each) => ["load", "adapt", "train"].includes(each.stage)).map((each) => each.plugin))];
  const found = [h("p", null, h("strong.good", null, "Ready. "), h("strong", null, backends.join(" and ")), " trains it.")];
  const about = h("dl.facts");
  const fact = (name, value) => value && about.append(h("dt", null, name), h("dd", null, value));
  fact("Model", [facts.architectures?.[0], known(facts.parameters) && `${parameters(facts.parameters)} parameters`, known(facts.weight_bytes) && bytes(facts.weight_bytes)].filter(Boolean).join(", "));
  if (estimate) {
    const needs = Math.max(estimate.process ?? 0, estimate.peak ?? 0), room = estimate.room, fits = needs <= room;
    const strip = h(`div.bar${fits ? "" : ".over"}`, { role: "img", "aria-label": `Memory: about ${bytes(needs)} of ${bytes(room)}` });
    const sum = (estimate.parts ?? []).reduce((all, part) => all + part.bytes, 0) || 1;
    for (const part of estimate.parts ?? []) { const piece = h("span", { title: `${part.name}: ${bytes(part.bytes)}` }); piece.style.width = `${Math.min(100, 100 * needs / room) * part.bytes / sum}%`; strip.append(piece); }
    about.append(h("dt", null, "Memory"), h("dd", null, `about ${bytes(needs)} of ${bytes(room)}`, fits ? null : h("strong.bad", null, " – too much"), strip));
    fact("Batch", estimate.batch);
  }
  fact("Machine", [plan.machine?.accelerators?.length ? plan.machine.accelerators.map((each) => each.name ?? each.kind).join(", ") : `${plan.machine?.cores} cores, no accelerator`].join());
  found.push(about);
  for (const each of plan.notes ?? []) found.push(h("p.warn", null, each));
  const verdicts = plan.verdicts ?? [];
  found.push(h("details", null, h("summary", null, `Choices: ${plural(steps.length, "stage")}`), h("ul.reasons", null, steps.map((step) => h("li", null, h("strong", null, step.label), " ", step.plugin,
    verdicts.filter((each) => each.label === step.label).map((each) => h("span.soft", null, each.plugin === step.plugin ? each.reason : `not ${each.plugin}: ${each.reason}`)))))));
  if (plan.decisions?.length) found.push(h("details", null, h("summary", null, `Decided: ${plural(plan.decisions.length, "value")} that the job left open`), h("ul.reasons", null, plan.decisions.map((each) => h("li", null, h("code", null, `${each.key} = ${JSON.stringify(each.value)}`), h("span.soft", null, each.reason))))));
  if (estimate?.levers?.length) found.push(h("details", null, h("summary", null, "What would take less memory"), h("ul.reasons", null, estimate.levers.map((each) => h("li", null, h("code", null, each.changes.map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join(", ")), h("span.soft", null, `${bytes(each.saves)} less; ${each.cost}`))))));
  if (text) found.push(h("details", null, h("summary", null, "As forge plan prints it"), h("div.papers", null, h("pre", { tabindex: 0 }, text))));
  return found;
}

/** Rows as the trainer gets them, what is learnt from marked. */
function rowsCard(found) {
  const sum = found.summary ?? {}, list = h("div.stack.rows");
  const draw = (tokens) => put(list, (found.rows ?? []).map((row, index) => h("section", { "aria-label": `Row ${index + 1}` },
    h("h3", null, `Row ${index + 1} `, h("span.soft.number", null, [row.origin, known(row.length) && `${plural(row.length, "token")}`, known(row.supervised) && `${row.supervised} trained on`].filter(Boolean).join(" · "))),
    (row.parts ?? [row]).map((part) => [part.name && h("p.label", null, `${part.name}: ${plural(part.length, "token")}`), h("div.sequence", { tabindex: 0, role: "group", "aria-label": `Text of row ${index + 1}` }, (part.segments ?? []).map((segment) => {
      const inside = tokens && segment.tokens ? segment.tokens.map((each) => h("span.token", null, each)) : segment.text;
      return segment.supervised ? h("mark", null, inside) : h("span", null, inside);
    }))]), row.columns?.length && h("p.soft", null, `with ${row.columns.join(", ")} for the reward functions`))));
  draw(false);
  const input = h("input", { type: "checkbox", onchange: (event) => draw(event.currentTarget.checked) });
  const facts = [known(sum.rows) && plural(sum.rows, "row"), known(sum.tokens) && plural(sum.tokens, "token"), known(sum.share) && `${Math.round(sum.share * 100)} % trained on`, known(sum.longest) && `longest ${sum.longest}`, sum.truncated && `${sum.truncated} cut`, sum.dropped && `${sum.dropped} dropped`];
  return h("div.card", null, h("div.row", null, h("h2", { tabindex: -1 }, "Rows as trained"), h("label.check.push", null, input, "Show the tokens")),
    h("p.legend", null, h("mark", null, "marked"), " is what the model learns to write; the rest it only reads."),
    h("p.soft", null, facts.filter(Boolean).join(" · ")), (sum.dropped_first ?? []).map((each) => h("p.warn", null, `dropped: ${each}`)), list);
}

// --------------------------------------------------------------------------------------------------------------- Runs

function runs() {
  const root = h("div"), body = h("tbody"), told = h("p.soft", { role: "status" });
  let word = "", wanted = "", more = null, shownUpTo = 100;
  const older = new Map();
  const search = h("input", { type: "search", "aria-label": "Search by name", placeholder: "Search by name", "data-key": "search", oninput: () => { word = search.value.toLowerCase(); update(); } });
  const states = h("select", { "aria-label": "State", onchange: () => { wanted = states.value; update(); } }, h("option", { value: "" }, "every state"), ["running", "queued", "trained", "dry run", "stopped", "failed", "lost"].map((each) => h("option", { value: each }, each)));
  const table = h("div.card.runs", { hidden: true }, h("div.scroll", null, h("table", null, h("caption.unseen", null, "What runs, what waits in its order, and then the newest runs"), h("thead", null, h("tr", null, h("th", { scope: "col" }, "run"), h("th", { scope: "col" }, "state"), h("th", { scope: "col" }, "progress"), h("th.n", { scope: "col" }, "loss"), h("th.n", { scope: "col" }, "held out"), h("th", { scope: "col" }, h("span.unseen", null, "what is told of it")))), body)));
  const empty = h("div");
  const next = button("Show more", doing("The list cannot be read", async () => {
    shownUpTo += 100;
    const last = [...store.runs.values(), ...older.values()].at(-1);
    if (last && shownUpTo > store.runs.size + older.size) {
      const found = await ask("GET", `runs?limit=100&after=${enc(last.id)}`);
      for (const line of found.runs) if (!store.runs.has(line.id)) older.set(line.id, line);
      more = found.after;
    }
    update();
  }), "", { "data-key": "more" });
  put(root, h("div.head", null, h("h1", { tabindex: -1 }, "Runs"), told, h("div.row.push", null, h("div", null, search), h("div", null, states), h("a.button", { href: "#/training" }, "New training"))), empty, table, h("p", { style: null }, next));

  const row = (line) => {
    const going = line.state === "running", told = line.error?.what ?? (line.position !== null && line.state === "queued" ? `waits as number ${line.position + 1}` : "");
    return h("tr", { "data-id": line.id }, h("th", { scope: "row" }, h("a", { href: `#/run/${enc(line.id)}`, "data-key": line.id }, line.name), h("small", null, time(begun(line)), line.kind !== "run" && KINDS[line.kind] ? ` · ${KINDS[line.kind]}` : "")),
      h("td", null, state(line)),
      h("td", null, known(line.step) && line.of ? h("div.going", null, h("span.number", null, `${count(line.step)} / ${count(line.of)}`, going && known(line.seconds_left) ? ` · ${duration(line.seconds_left)} left` : ""), going && h("progress", { value: line.step, max: line.of, "aria-label": `Steps of ${line.name}` })) : going ? h("span.soft", null, line.stage ? `${line.stage}…` : "begins…") : ""),
      h("td.n", { "data-name": "loss" }, known(line.loss) ? figure(line.loss) : ""), h("td.n", { "data-name": "held out" }, known(line.eval_loss) ? figure(line.eval_loss) : ""),
      h("td.why.wide", null, told));
  };
  const sorted = () => {
    const place = (line) => line.state === "queued" ? line.position ?? 0 : 0;
    const rank = (line) => line.state === "running" ? 2 : line.state === "queued" ? 1 : 0;
    return [...store.runs.values(), ...[...older.values()].filter((line) => !store.runs.has(line.id))].sort((a, b) => rank(b) - rank(a) || place(a) - place(b) || b.sort - a.sort);
  };
  const drawn = new Map(); // id -> [line, tr]: what has not changed is left alone
  const update = () => {
    if (!store.heard) return;
    const all = sorted(), fitting = all.filter((line) => (!wanted || line.state === wanted) && (line.run ?? line.name).toLowerCase().includes(word)), some = fitting.slice(0, shownUpTo);
    const key = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const rows = some.map((line) => {
      const there = drawn.get(line.id);
      if (there && there[0] === line) return there[1];
      const made = row(line);
      drawn.set(line.id, [line, made]);
      return made;
    });
    if (rows.length !== body.children.length || rows.some((each, index) => each !== body.children[index])) body.replaceChildren(...rows);
    if (key) body.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    const running = all.filter((line) => line.state === "running").length;
    say(told, all.length ? `${plural(fitting.length, "run")}${running ? `, ${running} running` : ""}` : "");
    table.hidden = !all.length;
    next.hidden = fitting.length <= shownUpTo && (store.runs.size < 200 || (more === null && older.size > 0));
    if (all.length || empty.children.length) { if (all.length) put(empty); return; }
    put(empty, h("div.card.empty", null, h("h2", null, "Nothing has been trained here yet"), h("p", null, "Runs that are started here, in the queue or in a terminal appear in this list."), h("a.button", { href: "#/training" }, "Make the first")));
  };
  update();
  return { title: () => { const going = [...store.runs.values()].filter((line) => line.state === "running").length; return going ? `${going} running` : "Runs"; }, view: "runs", root, update };
}

// -------------------------------------------------------------------------------------------------------------- a run

const FIGURE = new Set(["figure", "figcaption", "h3", "span", "div", "svg", "line", "text", "path", "circle", "rect", "title", "p", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "small"]);

/** A figure of forge_report's, taken over tag by tag: nothing comes along that does not belong to one. */
function figureOf(html) {
  const found = new DOMParser().parseFromString(html, "text/html").querySelector("figure");
  for (const each of found?.querySelectorAll("*") ?? []) {
    if (!FIGURE.has(each.localName)) { each.remove(); continue; }
    for (const { name } of [...each.attributes]) if (/^on|href|^style$|^src/i.test(name)) each.removeAttribute(name);
  }
  for (const each of found?.querySelectorAll(".scroll") ?? []) each.tabIndex = 0;
  return found && document.adoptNode(found);
}

const EVENTS = {
  planned: (e) => `attempt ${e.attempt} is planned`,
  preloaded: (e) => `the worker is ready after ${figure(e.seconds)} s`,
  stage: (e) => e.state === "started" ? `${e.stage} by ${e.plugin}` : `${e.stage} took ${e.seconds < 10 ? `${figure(e.seconds)} s` : duration(e.seconds)}`,
  reading: (e) => `${count(e.rows)} rows read`,
  data: (e) => [known(e.rows) && `${plural(e.rows, "row")} to train on`, known(e.tokens) && `${count(e.tokens)} tokens`, known(e.share) && `${Math.round(e.share * 100)} % trained on`, known(e.longest) && `longest ${e.longest}`, e.truncated && `${e.truncated} cut`, e.dropped && `${e.dropped} dropped`].filter(Boolean).join(", "),
  loaded: (e) => `model loaded: ${parameters(e.parameters)} parameters, ${e.dtype}, ${e.attention}, on ${e.device}`,
  adapted: (e) => `${parameters(e.trainable)} of ${parameters(e.all)} parameters are trained`,
  trainer: (e) => `the trainer is made: ${String(e.config ?? e.trainer).split(".").pop()}`,
  probe: (e) => `probe: the longest batch takes ${duration(e.seconds)}${known(e.memory) ? ` and ${bytes(e.memory)}` : ""}`,
  "dry-run": (e) => `dry run: ${plural(e.steps, "step")} of ${figure(e.seconds_per_step)} s, about ${duration(e.steps * e.seconds_per_step)} in all${known(e.memory) ? `, ${bytes(e.memory)} at the peak` : ""}`,
  training: (e) => e.from ? `training goes on at step ${e.from} of ${e.steps}` : `training begins: ${plural(e.steps, "step")}`,
  step: (e) => `step ${e.step}${e.of ? ` / ${e.of}` : ""}${known(e.loss) ? ` · loss ${figure(e.loss)}` : ""}${known(e.reward) ? ` · reward ${figure(e.reward)}` : ""}${known(e.tokens_per_second) ? ` · ${count(Math.round(e.tokens_per_second))} tokens/s` : ""}`,
  eval: (e) => `held out at step ${e.step}: ${Object.entries(e).filter(([key]) => /_loss$|accuracy|reward$/.test(key)).map(([key, value]) => `${key.replace(/^eval_/, "")} ${figure(value)}`).join(", ")}`,
  answers: (e) => `${plural((e.answers ?? []).length, "answer")} at step ${e.step}`,
  checkpoint: (e) => `checkpoint-${e.step} is whole (${bytes(e.bytes)})`,
  speed: (e) => `${known(e.tokens_per_second) ? `${count(Math.round(e.tokens_per_second))} tokens/s over ` : ""}${plural(e.steps, "step")}`,
  trained: (e) => `trained: ${Object.entries(e.metrics ?? {}).filter(([key]) => /loss$/.test(key)).map(([key, value]) => `${key} ${figure(value)}`).join(", ")}`,
  answering: (e) => `${e.model}: ${e.rows} of ${e.of} rows answered`,
  evaluated: (e) => `evaluated on ${plural(e.rows, "row")}`,
  writing: (e) => `writing ${e.file}: ${bytes(e.done)} of ${bytes(e.total)}`,
  exported: (e) => `export ${e.format} is in its place`,
  note: (e) => `${e.message}${e.do ? `; ${e.do}` : ""}`, warning: (e) => `warning: ${e.message}${e.do ? `; ${e.do}` : ""}`, error: (e) => `${e.message}${e.do ? `; ${e.do}` : ""}`,
  failed: (e) => `failed: ${e.error?.what ?? ""}${e.error?.why ? `: ${e.error.why}` : ""}`,
  stopped: (e) => e.message, done: (e) => `${e.task === "train" ? "training" : e.task} is done`,
};
const LEVEL = { warning: "warn", error: "bad", failed: "bad", done: "good", trained: "good", exported: "good", step: "step", progress: "step" };
const RECORD = new Set(["data", "trained", "evaluated", "exported", "done", "failed", "stopped", "checkpoint"]); // what changes the record
const MOST = 600; // events that stand on the page

function run(name) {
  const root = h("div");
  const parts = Object.fromEntries(["title", "state", "buttons", "trouble", "tiles", "progress", "charts", "answers", "result", "made", "papers", "chat"].map((key) => [key, h("div")]));
  const feed = h("ol.feed", { tabindex: 0, "aria-label": "Events, the newest first" }), log = h("pre.log", { tabindex: 0, "aria-label": "The end of the log" });
  let line = null, record = null, from = 0, charts = { wait: null, busy: false, at: 0, cost: 0, events: -1 }, open = true, logAt = null, logText = "", logTimer = null, recordTimer = null, samples = [], talk = null, entry = null;

  // Events.
  let filter = "", earlier = null, room = MOST;
  const filters = h("select", { "aria-label": "Which events", onchange: () => { filter = filters.value; feed.dataset.filter = filter; for (const each of feed.children) each.hidden = !fits(each); } }, h("option", { value: "" }, "all events"), h("option", { value: "quiet" }, "without steps"), h("option", { value: "trouble" }, "warnings and errors"));
  const fits = (item) => !filter || (filter === "quiet" ? item.dataset.level !== "step" : ["warn", "bad"].includes(item.dataset.level));
  const item = (event, at) => {
    const said = EVENTS[event.kind], level = LEVEL[event.kind] ?? "";
    let text;
    try { text = said ? said(event) : null; } catch { text = null; }
    if (text === null) { const { time: _, kind: __, ...rest } = event; text = `${event.kind}: ${JSON.stringify(rest)}`; }
    const made = h("li", { "data-level": level, "data-at": at }, time(event.time, CLOCK), h("span", { class: level || null }, text.length > 2000 ? `${text.slice(0, 2000)}… (${count(text.length - 2000)} more characters)` : text));
    made.hidden = !fits(made);
    return made;
  };
  const parsed = (text) => { try { const found = JSON.parse(text); return found && typeof found === "object" ? found : null; } catch { return null; } };
  const show = (event) => event.kind !== "progress" && event.kind !== "reading" && event.kind !== "answering" && event.kind !== "writing";
  /** Lines of the events, the newest last, each with the byte behind it: [text, byte]. */
  const take = (lines) => {
    const fresh = lines.map(([text, at]) => [parsed(text), at]).filter(([event]) => event);
    let numbers = false, again = false;
    for (const [event] of fresh) {
      numbers ||= event.kind === "step" || event.kind === "eval" || event.kind === "training";
      again ||= RECORD.has(event.kind);
      if (event.kind === "answers") samples.push(event);
      if (["answering", "writing"].includes(event.kind)) say(parts.now, item(event).lastChild.textContent);
      else if (event.kind === "stage") say(parts.now, "");
    }
    const seen = fresh.filter(([event]) => show(event));
    if (seen.length) {
      const top = feed.scrollTop < 8;
      if (seen.length > MOST) from = seen.at(-MOST - 1)[1];
      feed.prepend(...seen.slice(-MOST).map(([event, at]) => item(event, at)).reverse());
      while (feed.children.length > room) { from = Math.max(from, +feed.lastChild.dataset.at); feed.lastChild.remove(); }
      earlier.hidden = from === 0;
      if (top) feed.scrollTop = 0;
    }
    if (samples.length > 4) samples = [samples[0], ...samples.slice(-3)];
    if (fresh.some(([event]) => event.kind === "answers")) drawAnswers();
    if (numbers) wantCharts();
    if (again) wantRecord();
  };
  /** Lines of an answer, each with the byte behind it. */
  const placed = (found) => {
    let at = found.from;
    return found.text.split("\n").slice(0, -1).map((text) => [text, at += new TextEncoder().encode(text).length + 1]);
  };
  earlier = button("Earlier events", doing("Earlier events cannot be read", async () => {
    const found = await ask("GET", `runs/${enc(line.id)}/events?before=${from}`);
    const lines = placed(found).map(([text, at]) => [parsed(text), at]).filter(([event]) => event && show(event));
    const kept = lines.slice(-MOST);
    feed.append(...kept.map(([event, at]) => item(event, at)).reverse());
    room += kept.length; // they stay while news come
    from = lines.length > MOST ? lines.at(-MOST - 1)[1] : found.text ? found.from : 0;
    earlier.hidden = from === 0;
  }), "small", { hidden: true, "data-key": "earlier" });

  // Curves: the server draws them, at most once a second, and less often where that takes long.
  const wantCharts = () => {
    if (charts.wait || !open) return;
    charts.wait = setTimeout(drawCharts, Math.max(0, charts.at + Math.max(1000, 10 * charts.cost) - performance.now()));
  };
  const drawCharts = async () => {
    const start = performance.now();
    let behind = false; // the server draws for a tenth of the time at most, and may show what it drew before
    try {
      const found = await ask("GET", `runs/${enc(line.id)}/charts`);
      behind = found.events < line.events;
      if (found.events === charts.events && line.state === "running") return;
      charts.events = found.events;
      const unfolded = new Set([...parts.charts.querySelectorAll("details[open]")].map((each) => each.closest("figure")?.dataset.name));
      const draw = (each) => {
        const made = figureOf(each.html);
        if (!made) return null;
        made.dataset.name = each.name;
        const details = made.querySelector("details"), summary = made.querySelector("summary");
        if (details && unfolded.has(each.name)) details.open = true;
        if (summary) { summary.dataset.key = `numbers-${each.name}`; summary.append(h("span.unseen", null, ` of ${each.title}`)); }
        return made;
      };
      const main = found.figures.filter((each) => each.main), others = found.figures.filter((each) => !each.main), wide = main.filter((each) => each.wide), rest = main.filter((each) => !each.wide);
      const unfold = (each) => unfolded.has(undefined) || each;
      const moreOpen = parts.charts.querySelector("details.more")?.open;
      put(parts.charts, found.figures.length ? h("section.card", null, h("h2.unseen", null, "Curves"), h("div.charts", null, [...wide, ...rest].map(draw)),
        others.length ? h("details.more", { open: Boolean(moreOpen) }, h("summary", { "data-key": "more-curves" }, `${plural(others.length, "more curve")}`), h("div.charts", null, others.map(draw))) : null) : null);
    } catch (error) {
      if (error.status !== 409 && error.status !== 0) failed(error, "The curves cannot be drawn");
    } finally {
      charts.wait = null; charts.at = performance.now(); charts.cost = charts.at - start;
      if (behind) wantCharts();
    }
  };

  // The record: what the run is and what can be done with it.
  const wantRecord = () => { recordTimer ??= setTimeout(readRecord, 250); };
  const readRecord = async () => {
    recordTimer = null;
    try { record = await ask("GET", `runs/${enc(line.id)}`); } catch (error) { if (error.status !== 404) failed(error, "The run cannot be read"); return; }
    if (open) draw();
  };

  const draw = () => { drawTrouble(); drawButtons(); drawAnswers(); drawResult(); drawMade(); drawPapers(); drawChat(); };

  const act = (what, path, body, then) => doing(`It was not ${what}`, async () => {
    const found = await ask("POST", `runs/${enc(line.id)}/${path}`, body);
    polite(then ?? what);
    wantRecord();
    return found;
  });
  const drawButtons = () => {
    const can = record?.can ?? {}, made = [];
    if (line.state === "running" || can.stop) {
      made.push(button(line.stopping ? "Stopping…" : "Stop", act("stopped", "stop", { now: false }, "It saves and stops at the end of a step"), "", { disabled: line.stopping, "data-key": "stop" }));
      made.push(button("Stop now", doing("It was not stopped", async () => {
        if (await confirmed("Stop at once?", "What was learnt since the last checkpoint is lost. Stop alone waits for the step to end, and saves.", "Stop now")) await ask("POST", `runs/${enc(line.id)}/stop`, { now: true });
      }), "danger", { "data-key": "stop-now" }));
    }
    if (can.resume && ["stopped", "failed", "lost", "planned", "unknown"].includes(line.state)) made.push(button("Resume", act("resumed", "resume", {}, "It goes on when a slot is free"), "first", { "data-key": "resume" }));
    if (record?.job) made.push(button("Use this job", () => { job.set(record.job); location.hash = "#/training"; }, "", { "data-key": "reuse" }));
    if (record?.folder) made.push(h("a.button", { href: `/api/v1/runs/${enc(line.id)}/report`, target: "_blank", rel: "noopener", "data-key": "report" }, "Report"));
    if (can.remove) made.push(button(line.state === "queued" ? "Remove" : "Delete…", doing("It was not removed", async () => {
      const waits = !line.run;
      if (!waits && !await confirmed("Delete this run?", `${nameOf(line)} is moved to the trash of the runs' folder, with its weights and exports.`, "Delete it")) return;
      await ask("DELETE", `runs/${enc(line.id)}`, waits ? {} : { confirm: line.id });
      location.hash = "#/runs";
    }), "", { "data-key": "remove" }));
    put(parts.buttons, h("div.row", null, made));
  };
  const drawTrouble = () => {
    const error = line.error, speed = record?.speed ?? [];
    const before = parts.trouble.dataset.said;
    parts.trouble.dataset.said = error ? JSON.stringify(error) : "";
    if (error && before !== parts.trouble.dataset.said) {
      put(parts.trouble, h("div.notice", { role: "alert" }, h("div", null, h("p", null, h("strong", null, error.what)), error.why && h("p", null, error.why), error.do && h("p", null, error.do), (error.problems ?? []).map((each) => h("p", null, h("code", null, each.where), ` ${each.line ? `(line ${each.line}) ` : ""}${each.message}`)))));
    } else if (!error && before) put(parts.trouble);
    void speed;
  };

  const share = (each, value, sign = false) => `${sign && value > 0 ? "+" : ""}${each.share ? `${Math.round(100 * value)} %` : figure(value)}`;
  const range = (each, sign = false) => !each || each.value === null ? "–" : h("span", null, h("strong", null, share(each, each.value, sign)), known(each.low) ? h("span.soft", null, ` [${share(each, each.low, sign)}, ${share(each, each.high, sign)}]`.replaceAll(" %", "")) : null);
  const interval = (found) => {
    const ends = [found.base, found.tuned].filter((each) => each && each.value !== null);
    if (!ends.length) return null;
    const all = ends.flatMap((each) => [each.low ?? each.value, each.high ?? each.value]);
    let low = ends[0].share ? 0 : Math.min(...all), high = ends[0].share ? 1 : Math.max(...all);
    if (low === high) { low -= 1; high += 1; }
    const at = (value) => `${2 + 96 * (value - low) / (high - low)}%`;
    const made = svg("svg", { class: "interval", "aria-hidden": "true" });
    [["base", 7], ["tuned", 17]].forEach(([who, y]) => {
      const each = found[who];
      if (!each || each.value === null) return;
      if (known(each.low)) made.append(svg("line", { class: who, x1: at(each.low), x2: at(each.high), y1: y, y2: y }));
      made.append(who === "base" ? svg("circle", { class: who, cx: at(each.value), cy: y, r: 4 }) : (() => { const box = svg("svg", { x: at(each.value), y: y - 4, overflow: "visible" }); box.append(svg("rect", { class: who, x: -4, width: 8, height: 8, rx: 1 })); return box; })());
    });
    return made;
  };
  const drawResult = () => {
    const found = record?.result;
    if (!found?.metrics) { put(parts.result); return; }
    const names = [...new Set(Object.values(found.metrics).flatMap((each) => Object.keys(each)))].filter((each) => each !== "difference"), differ = names.length === 2;
    put(parts.result, h("section.card", null, h("h2", null, "Result"), h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Result" }, h("table.numbers.result", null,
      h("caption.unseen", null, `Measured on ${plural(found.rows, "held-out row")}, with 95 % intervals`),
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "metric"), names.map((each) => h("th", { scope: "col" }, h(`span.key-${each === "base" ? "base" : "tuned"}`), each)), differ && h("th", { scope: "col" }, `${names[1]} − ${names[0]}`), h("td", null, ""))),
      h("tbody", null, Object.entries(found.metrics).map(([metric, each]) => h("tr", null, h("th", { scope: "row" }, metric), names.map((who) => h("td", { "data-name": who }, range(each[who]))), differ && h("td", { "data-name": `${names[1]} − ${names[0]}` }, range(each.difference, true)), h("td", null, interval(each))))))),
      h("p.note", null, `${plural(found.rows, "row")} that training never saw; in brackets the 95 % interval.`)));
  };
  const SAID = (value) => typeof value === "string" ? value : Array.isArray(value) ? value.map(SAID).join("\n\n") : value && typeof value === "object" ? value.content !== undefined ? `${value.role ?? ""}: ${SAID(value.content)}` : value.text !== undefined ? SAID(value.text) : JSON.stringify(value) : String(value ?? "");
  const drawAnswers = () => {
    const found = Array.isArray(record?.result?.samples) ? record.result.samples : [];
    const before = found.map((each) => h("div.answer", null, h("p", null, SAID(each.prompt ?? each.question ?? each.messages ?? "")), h("div.pair", null,
      Object.entries(each.answers ?? {}).map(([who, said]) => h("div", null, h(`p.who${who === "tuned" ? ".tuned" : ""}`, null, who), h("pre", { tabindex: 0 }, SAID(said)))),
      each.reference !== undefined && each.reference !== null && h("div", null, h("p.who", null, "reference"), h("pre", { tabindex: 0 }, SAID(each.reference))))));
    const while_ = samples.map((event) => h("details", null, h("summary", null, `At step ${event.step}`), (event.answers ?? []).slice(0, 8).map((each) => h("div.answer", null, h("p", null, SAID(each.prompt)), h("div.pair", null, h("div", null, h("p.who.tuned", null, "answer", each.rewards ? ` · ${Object.entries(each.rewards).map(([key, value]) => `${key} ${figure(value)}`).join(", ")}` : ""), h("pre", { tabindex: 0 }, SAID(each.completion))))))));
    put(parts.answers, before.length || while_.length ? h("section.card", null, h("h2", null, "Answers"), h("div.answers", null, before, while_)) : null);
  };

  const drawMade = () => {
    const can = record?.can ?? {};
    if (!record?.folder || !record.files || !(record.exports?.length || record.trained)) { put(parts.made); return; }
    const size = (folder) => record.files.filter((each) => each.name.startsWith(`${folder}/`)).reduce((all, each) => all + each.bytes, 0);
    const get = (folder, text) => h("li", null, h("div", null, h("strong", null, text), h("small.soft", null, ` ${folder} · ${bytes(size(folder))}`)), h("span.push", null, h("a.button.small", { href: `/api/v1/runs/${enc(line.id)}/archive/${folder}`, download: "", "data-key": `get-${folder}`, "aria-label": `Download .zip of ${folder}` }, "Download .zip")));
    const single = record.exports.flatMap((each) => Object.entries(each.files ?? {}).filter(([file]) => /\.gguf$/.test(file)).map(([file, about]) => h("li", null, h("div", null, h("strong", null, file), h("small.soft", null, ` ${bytes(about.bytes)}`)), h("span.push", null, h("a.button.small", { href: `/api/v1/runs/${enc(line.id)}/files/exports/${each.folder}/${file.split("/").map(enc).join("/")}`, download: "" }, "Download")))));
    const format = h("select", { "aria-label": "Format", "data-key": "format" }, [["merged", "a whole model"], ["gguf", "GGUF for llama.cpp"], ["adapter", "the adapter with a card"]].map(([value, text]) => h("option", { value }, text)));
    put(parts.made, h("section.card", null, h("h2", null, "Take it with you"), h("ul.made", null,
      record.trained && get(record.trained.weights, record.trained.weights === "adapter" ? "Adapter" : "Trained weights"),
      record.exports.map((each) => get(`exports/${each.folder}`, `${each.format === "merged" ? "Whole model" : each.format === "gguf" ? "GGUF" : each.format}`)), single),
      can.export && h("div.row", null, h("div", null, format), button("Export", doing("It was not exported", async () => { await ask("POST", `runs/${enc(line.id)}/export`, { format: format.value }); polite("The export waits in the queue"); wantRecord(); }), "", { "data-key": "export" }),
        can.eval && button("Evaluate again", act("evaluated", "eval", {}, "The evaluation waits in the queue"), "push", { "data-key": "eval" }))));
  };

  let papersOf = null;
  const drawPapers = () => {
    const texts = [["Job", record?.job], ["Plan", record?.text ?? null], ["Lock: the job with every value", record?.lock], ["Printed by forge", record?.printed]].filter(([, text]) => text);
    const key = JSON.stringify([texts.map(([, text]) => text.length), record?.files?.length, record?.speed]);
    if (key === papersOf) return;
    papersOf = key;
    const files = record?.files ?? [];
    put(parts.papers, texts.length || files.length ? h("section.card.papers", null, h("h2", null, "Papers"),
      record?.folder && h("p.soft", null, h("code", null, record.folder)),
      record?.speed?.length ? h("details", null, h("summary", null, "Where the time went"), h("pre", { tabindex: 0 }, record.speed.join("\n"))) : null,
      texts.map(([title, text]) => h("details", null, h("summary", null, title), h("pre", { tabindex: 0 }, text))),
      Object.keys(record?.unread ?? {}).length ? h("p.warn", null, `What cannot be read: ${Object.entries(record.unread).map(([key, text]) => `${key}: ${text}`).join("; ")}`) : null,
      files.length ? h("details", null, h("summary", null, plural(files.length, "file")), h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Files" }, h("table.numbers", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "file"), h("th", { scope: "col" }, "size"))), h("tbody", null, files.map((each) => h("tr", null, h("th", { scope: "row" }, h("a", { href: `/api/v1/runs/${enc(line.id)}/files/${each.name.split("/").map(enc).join("/")}`, download: "" }, each.name)), h("td", null, bytes(each.bytes)))))))) : null) : null);
  };

  // Talking to what was trained, the base beside it.
  const drawChat = () => {
    if (!record?.can?.chat) { if (talk) talk.hidden = true; return; }
    if (talk) { talk.hidden = false; return; }
    const turns = h("div.answers", { role: "log", "aria-label": "Questions and answers" }), question = h("textarea", { id: id("question"), placeholder: record.result?.samples?.[0] ? SAID(record.result.samples[0].prompt) : "Ask it something", "data-key": "question", rows: 3 });
    const beside = h("input", { type: "checkbox", checked: true }), most = h("input", { type: "text", inputmode: "numeric", value: "128", id: id("most") }), warm = h("input", { type: "text", inputmode: "decimal", value: "0", id: id("warm") }), system = h("input", { type: "text", id: id("system") });
    const send = doing("There is no answer", async () => {
      const text = question.value.trim() || question.placeholder;
      const options = { question: text, max_new_tokens: Math.max(1, Math.round(+most.value) || 128), temperature: Math.max(0, +warm.value || 0), ...(system.value.trim() ? { system: system.value.trim() } : {}) };
      const asked = (model) => {
        const place = h("div", null, h(`p.who${model === "tuned" ? ".tuned" : ""}`, null, model), h("p.soft", null, "thinking; the first answer loads the model…"));
        const begun = Date.now(), clock = setInterval(() => say(place.lastChild, `thinking, ${duration((Date.now() - begun) / 1000)}…`), 1000);
        const answer = ask("POST", `runs/${enc(line.id)}/chat`, { ...options, model }).then(
          (found) => put(place, h(`p.who${model === "tuned" ? ".tuned" : ""}`, null, model), h("pre", { tabindex: 0 }, SAID(found.answer)), h("small.soft", null, [known(found.tokens) && plural(found.tokens, "token"), known(found.seconds) && `${figure(found.seconds)} s`, found.finished === false && "cut at the longest"].filter(Boolean).join(" · "))),
          (error) => put(place, h("p.who", null, model), h("p.bad", null, error.error?.what ?? error.message), error.error?.do && h("p", null, error.error.do))).finally(() => clearInterval(clock));
        return [place, answer];
      };
      const both = [asked("tuned"), ...(beside.checked ? [asked("base")] : [])];
      turns.append(h("div.answer", null, h("p", null, text), h("div.pair", null, both.map(([place]) => place))));
      question.value = "";
      await Promise.all(both.map(([, answer]) => answer));
    });
    const press = button("Ask", send, "first", { "data-key": "ask" });
    question.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); press.click(); } });
    talk = h("section.card", null, h("h2", null, "Talk to it"), h("p.soft", null, "Each question stands alone. The first loads the model, which takes a moment."), turns,
      h("div.ask", null, h("div.field", null, h("label", { for: question.id }, "Question"), question), h("div.row", null, press, h("label.check", null, beside, "Ask the base model beside it"), h("span.soft.push", null, "Ctrl + Enter sends")),
        h("details", null, h("summary", null, "How it answers"), h("div.fields", null, h("div.field", null, h("label", { for: most.id }, "Tokens at most"), most), h("div.field", null, h("label", { for: warm.id }, "Temperature"), warm, h("p.help", null, "0 takes the most probable token each time.")), h("div.field", null, h("label", { for: system.id }, "System message"), system)))));
    put(parts.chat, talk);
  };

  // The log.
  const find = h("input", { type: "search", "aria-label": "Filter the log", placeholder: "Filter the log", "data-key": "log-filter", oninput: () => drawLog() });
  const drawLog = () => {
    const word = find.value.toLowerCase(), end = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    const lines = logText.split("\n").slice(-2000).filter((each) => !word || each.toLowerCase().includes(word)).map((each) => each.replace(/\r+$/, "").split("\r").pop().replace(/\x1b\[[0-9;?]*[A-Za-z]/g, ""));
    say(log, "");
    log.textContent = lines.map((each) => shown(each)).join("\n") || (word ? "No line has that." : "Nothing has been said yet.");
    if (end) log.scrollTop = log.scrollHeight;
  };
  const readLog = async () => {
    clearTimeout(logTimer);
    if (!open || !line?.run) return;
    try {
      const found = await ask("GET", `runs/${enc(line.id)}/log${logAt === null ? "" : `?from=${logAt}&bytes=262144`}`);
      if (logAt !== null && found.size < logAt) { logText = ""; logAt = null; }
      else if (found.text || logAt === null) { logText = (logText + found.text).slice(-400000); logAt = found.next; drawLog(); if (logAt === 0) drawLog(); }
      if (logAt !== null && found.next < found.size) { logTimer = setTimeout(readLog, 100); return; }
    } catch { /* the next look may do */ }
    logTimer = setTimeout(readLog, line.state === "running" ? 1500 : 10000);
  };

  const tiles = () => {
    const going = line.state === "running", tile = (name, value, more) => value && value !== "–" ? h("div", null, h("dt", null, name), h("dd", null, value, more && h("small", null, more))) : null;
    const list = [tile("Step", known(line.step) ? `${count(line.step)}${line.of ? ` / ${count(line.of)}` : ""}` : null), tile("Loss", known(line.loss) ? figure(line.loss) : null), tile("Held out", known(line.eval_loss) ? figure(line.eval_loss) : null),
      going && tile("Time left", known(line.seconds_left) ? duration(line.seconds_left) : null), tile("Speed", known(line.tokens_per_second) ? count(Math.round(line.tokens_per_second)) : null, "tokens/s"), tile("Memory", known(line.memory) ? bytes(line.memory) : null, "at the peak")].filter(Boolean);
    return list.length ? h("dl.tiles", null, list) : null;
  };

  /** Follow a run once its folder is there: read what was before, then hear what comes. */
  let following = null;
  const follow = async () => {
    if (following === line.id || !line.run) return;
    following = line.id;
    try {
      const found = await ask("GET", `runs/${enc(line.id)}/events?tail=${MOST}`);
      if (!open) return;
      from = found.from; earlier.hidden = from === 0;
      live.open(line.id, found.next);
      feed.replaceChildren();
      take(placed(found));
    } catch (error) { following = null; if (error.status !== 409) failed(error, "The events cannot be read"); else setTimeout(() => open && follow(), 500); return; }
    charts.wait ??= setTimeout(drawCharts, 0);
    readRecord(); readLog();
  };

  let told = "";
  const update = () => {
    const found = lineOf(name);
    if (!found) {
      if (store.heard && line) { put(root, h("div.card.empty", null, h("h1", { tabindex: -1 }, "This run is gone"), h("p", null, "Its folder was removed or moved."), h("a.button", { href: "#/runs" }, "All runs"))); line = null; }
      else if (store.heard && !entry) { entry = "asked"; ask("GET", `runs/${enc(name)}`).then((one) => { store.runs.set(one.id, one); update(); }, (error) => put(root, h("div.card.empty", null, h("h1", { tabindex: -1 }, "There is no such run"), h("p", null, error.message), h("a.button", { href: "#/runs" }, "All runs")))); }
      return;
    }
    const before = line;
    line = found;
    if (line.run && name !== line.id) { name = line.id; history.replaceState(null, "", `#/run/${enc(name)}`); } // what began it may be forgotten
    if (!before) put(root, frame);
    put(parts.title, h("h1", { tabindex: -1 }, line.name), h("p.about", null, h("span.number", null, time(begun(line))), line.kind !== "run" && KINDS[line.kind] ? ` · ${KINDS[line.kind]}` : ""));
    put(parts.state, state(line), line.state === "queued" ? h("span.soft", null, ` ${line.position === null ? "" : line.position === 0 ? "next in the queue" : `number ${line.position + 1} in the queue`}`) : null, line.waiting?.length ? h("span.soft", null, " something waits in the queue for it") : null);
    put(parts.tiles, tiles());
    put(parts.progress, line.state === "running" ? [h("progress", { max: line.of || 1, ...(known(line.step) ? { value: line.step } : {}), "aria-label": "Steps" }), h("p.soft", null, line.stage && line.stage !== "train" ? `${line.stage}…` : known(line.step) ? "" : "begins…")] : null);
    if (before && (before.state !== line.state || before.id !== line.id || before.waiting?.length !== line.waiting?.length || before.stopping !== line.stopping)) { wantRecord(); if (before.state !== line.state) { polite(`${line.name}: ${line.state}`); charts.events = -1; wantCharts(); } }
    else if (!before && !line.run) readRecord();
    drawTrouble();
    if (before?.stopping !== line.stopping || before?.state !== line.state) drawButtons();
    if (line.state === "running" && known(line.step)) { const now = `step ${line.step} of ${line.of}`; if (now !== told) { told = now; polite(now + (known(line.loss) ? `, loss ${figure(line.loss)}` : "")); } }
    follow();
  };

  parts.now = h("p.soft", { role: "status" });
  const frame = [h("div.head", null, parts.title, parts.state, h("div.push", null, parts.buttons)), parts.trouble, h("section.card.now", null, h("h2.unseen", null, "Now"), parts.progress, parts.now, parts.tiles),
    parts.result, parts.charts, parts.answers, parts.chat, parts.made,
    h("div.half", null, h("section.card", null, h("div.row", null, h("h2", null, "Events"), h("div.push", null, filters)), feed, h("div.row", null, earlier)),
      h("section.card", null, h("div.row", null, h("h2", null, "Log"), h("div.push", null, find)), log)), parts.papers].map((each) => each);
  const wrapped = h("div.stack", null, frame.slice(1));
  frame.splice(1, frame.length - 1, wrapped);
  put(root, h("p.wait", null, "Reading the run…"));
  update();
  return {
    title: () => line ? `${line.state === "running" && known(line.step) ? `${line.step}/${line.of ?? "?"}` : line.state} · ${line.name}` : "Run", view: "runs", root, update, lines: take,
    close: () => { open = false; clearTimeout(charts.wait); clearTimeout(logTimer); clearTimeout(recordTimer); },
  };
}

// -------------------------------------------------------------------------------------------------------------- Queue

function queue() {
  const root = h("div"), going = h("div.stack"), waiting = h("div"), over = h("div"), about = h("p.soft"), pause = h("div");
  const link = (each) => { const line = lineOf(each.id); return line ? h("a", { href: `#/run/${enc(line.id)}`, "data-key": `to-${each.id}` }, each.name) : h("strong", null, each.name); };
  const move = (each, position) => doing("It was not moved", async () => { await ask("PATCH", `queue/${enc(each.id)}`, { position }); polite(`${each.name} is now number ${position + 1}`); });
  const update = () => {
    if (!store.heard) return;
    const { entries, paused, dispatches, by_hand } = store.queue, wait = entries.filter((each) => each.state === "queued"), now = entries.filter((each) => each.state === "running"), past = entries.filter((each) => !["queued", "running"].includes(each.state));
    say(about, `${plural(now.length, "training")} running, ${wait.length} waiting${store.queue.slots?.length > 1 ? `, ${store.queue.slots.length} at a time` : ""}`);
    put(pause, button(paused ? "Go on" : "Pause the queue", doing("The queue was not changed", async () => { await ask("PATCH", "queue", { paused: !paused }); }), paused ? "first" : "", { "data-key": "pause" }));
    put(going, paused && h("div.notice.warn", null, h("div", null, h("p", null, h("strong", null, "The queue is paused. "), "What runs goes on; nothing more begins.", paused.why && paused.why !== "paused from the page" ? ` ${paused.why}` : ""))),
      dispatches === false && h("div.notice.warn", null, h("div", null, h("p", null, "Another `forge serve` or `forge queue run` starts what waits here; this one shows it."))),
      by_hand?.length ? h("p.soft", null, `Started in a terminal, and running: ${by_hand.join(", ")}`) : null,
      h("section.card", null, h("h2", null, "Running"), now.length ? h("ol.order", null, now.map((each) => {
        const line = lineOf(each.id);
        return h("li", null, h("span.place", { "aria-hidden": "true" }, "▸"), h("div", null, link(each), h("small.soft", null, ` ${KINDS[each.kind] ?? each.kind}${each.devices ? ` on ${each.devices}` : ""} · since `, time(each.begun, CLOCK), line && known(line.step) && line.of ? ` · step ${count(line.step)} / ${count(line.of)}${known(line.seconds_left) ? `, ${duration(line.seconds_left)} left` : ""}` : ""), line && known(line.step) && line.of ? h("progress", { value: line.step, max: line.of, "aria-label": `Steps of ${each.name}` }) : null),
          h("div.row", null, line ? state(line) : null, button(each.stopping ? "Stopping…" : "Stop", doing("It was not stopped", async () => { await ask("POST", `runs/${enc(line?.id ?? each.id)}/stop`, { now: false }); }), "small", { disabled: each.stopping, "data-key": `stop-${each.id}`, "aria-label": `Stop ${each.name}` })));
      })) : h("p.soft", null, "Nothing runs.")));
    put(waiting, h("section.card", null, h("h2", null, "Waiting"), wait.length ? h("ol.order", null, wait.map((each, index) => h("li", null, h("span.place", null, index + 1), h("div", null, link(each), h("small.soft", null, ` ${KINDS[each.kind] ?? each.kind} · added `, time(each.added, CLOCK))), h("div.row", null,
      button("↑", move(each, index - 1), "icon small", { disabled: index === 0, "data-key": `up-${each.id}`, "aria-label": `Move ${each.name} up` }), button("↓", move(each, index + 1), "icon small", { disabled: index === wait.length - 1, "data-key": `down-${each.id}`, "aria-label": `Move ${each.name} down` }),
      button("Remove", doing("It was not removed", async () => { await ask("DELETE", `runs/${enc(each.id)}`); polite(`${each.name} is removed`); }), "small", { "data-key": `remove-${each.id}`, "aria-label": `Remove ${each.name}` }))))) : h("p.soft", null, "Nothing waits. What is started while something runs waits here, and begins by itself.")));
    put(over, past.length ? h("section.card", null, h("h2", null, "Over"), h("ol.order", null, past.slice(0, 50).map((each) => h("li", null, h("span.place", { "aria-hidden": "true" }, "·"), h("div", null, link(each), h("small.soft", null, ` ${KINDS[each.kind] ?? each.kind} · `, time(each.ended ?? each.added)), each.error ? h("div.soft", null, each.error.what) : null), h("div.row", null, h("span.state", { "data-state": each.state }, each.state)))))) : null);
  };
  put(root, h("div.head", null, h("h1", { tabindex: -1 }, "Queue"), about, h("div.push", null, pause)), h("div.stack", null, going, waiting, over));
  update();
  return { title: () => "Queue", view: "queue", root, update };
}

// ------------------------------------------------------------------------------------------------------------ Machine

function machine() {
  const root = h("div"), place = h("div.stack", null, h("p.wait", { role: "status" }, "Looking at the machine…"));
  const look = async () => {
    const { machine: found, plugins, speeds } = await ask("GET", "doctor"), about = store.about ?? await ask("GET", "");
    const list = h("dl.facts"), fact = (name, value) => value && list.append(h("dt", null, name), h("dd", null, value));
    fact("System", `${found.platform} ${found.arch}${found.wsl ? ", WSL" : ""}`); fact("Processor", plural(found.cores, "core"));
    fact("Memory", `${bytes(found.memory)}${known(found.available) ? `, ${bytes(found.available)} free` : ""}`); fact("Disk", `${bytes(found.disk)} free`);
    fact("Accelerators", found.accelerators?.length ? h("div", null, found.accelerators.map((each) => h("div", null, [each.name ?? each.kind, known(each.memory) && bytes(each.memory)].filter(Boolean).join(", ")))) : "none");
    for (const name of ["torch", "transformers", "trl", "peft", "datasets", "unsloth"]) fact(name, found.versions?.[name]);
    fact("forge", about.version); fact("Python", found.python);
    const server = h("dl.facts"), told = (name, value) => server.append(h("dt", null, name), h("dd", null, value));
    told("Files below", about.roots.join(", ")); told("Runs", about.runs); told("Code of jobs", about.allow_code ? "allowed: jobs may name Python of their own" : "refused; `forge serve --allow-code` allows it");
    told("At a time", plural(about.slots.length, "training"));
    put(place, h("div.half", null, h("section.card", null, h("h2", null, "This machine"), list), h("section.card", null, h("h2", null, "This server"), server, speeds?.length ? [h("h3", null, "Measured here"), h("ul.reasons", null, speeds.map((each) => h("li", null, each)))] : null)),
      h("section", null, h("h2.unseen", null, "Plugins"), h("div.plugins", null, plugins.map((each) => h("div.card", null, h("div.row", null, h("h3", null, each.name), h("span.state.push", { "data-state": each.status === "ok" ? "done" : each.reasons?.length ? "stopped" : "failed" }, each.status === "ok" ? "works" : each.status)),
        each.works?.length ? h("p.soft", null, each.works.join(", ")) : null, (each.reasons ?? []).map((one) => h("p", null, typeof one === "string" ? one : one.reason ?? JSON.stringify(one))), each.mend && command(each.mend),
        each.values?.length ? h("details", null, h("summary", null, `${plural(each.values.length, "value")} need more`), h("ul.reasons", null, each.values.map((one) => h("li", null, h("code", null, one.key), h("span.soft", null, one.reason), one.mend && command(one.mend))))) : null)))));
  };
  put(root, h("div.head", null, h("h1", { tabindex: -1 }, "Machine"), h("div.push", null, button("Look again", doing("The machine cannot be looked at", look)))), place);
  look().catch((error) => { put(place); failed(error, "The machine cannot be looked at"); });
  return { title: () => "Machine", view: "machine", root };
}

// ------------------------------------------------------------------------------------------------------------ the way

function go() {
  const [, kind = "", name = ""] = location.hash.split("/");
  const views = { runs, training, queue, machine };
  let wanted = decodeURIComponent(name);
  const first = view === null;
  if (!views[kind] && !(kind === "run" && wanted)) {
    if (!store.heard) { setTimeout(go, 20); return; } // the stream says whether there is any run
    history.replaceState(null, "", store.runs.size ? "#/runs" : "#/training");
    go();
    return;
  }
  view?.close?.();
  if (live.run) live.open();
  view = kind === "run" ? run(wanted) : views[kind]();
  const main = document.getElementById("main");
  main.replaceChildren(view.root);
  for (const each of document.querySelectorAll("nav a")) if (each.dataset.view === view.view) each.setAttribute("aria-current", "page"); else each.removeAttribute("aria-current");
  titled();
  if (!first) { scrollTo(0, 0); (main.querySelector("h1") ?? main).focus({ preventScroll: true }); }
}

function titled() { const now = `${view?.title() ?? ""} · forge`; if (document.title !== now) document.title = now; }
setInterval(titled, 500);

addEventListener("hashchange", go);
live.open();
go();
ask("GET", "schema/job").then((found) => { store.schema = found; view?.schema?.(); }).catch((error) => failed(error, "The settings cannot be read"));
ask("GET", "/api/v1").then((found) => { store.about = found; }).catch(() => {});
ask("GET", "machine").then((found) => { store.machine = found; say(document.getElementById("machine"), found.accelerators?.length ? `${found.accelerators.length > 1 ? `${found.accelerators.length} × ` : ""}${found.accelerators[0].name ?? found.accelerators[0].kind}${found.accelerators[0].memory ? ` ${bytes(found.accelerators[0].memory)}` : ""}` : `${plural(found.cores, "core")} · ${bytes(found.memory)} · no GPU`); }).catch(() => {});

})();
