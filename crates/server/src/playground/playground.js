// Sends what the form holds to jointly/v1/rerank, our own dialect, and draws how the order moved. It keeps nothing: the key lives in its field, and
// goes when the page goes. All text of the user and of the server is set as text, never as markup.

const $ = (id) => document.getElementById(id);

const SAMPLE = {
  query: "how long does a hearing aid battery last",
  documents: [
    "The hearing on the battery factory's permit lasted two days and ended without a ruling.",
    "No hearing aid without a battery is sold today, apart from ear trumpets for collectors.",
    "How long a film lasts depends on its director, not on the aid of its producers.",
    "The first hearing aids with a battery weighed more than two kilograms and were carried in a bag.",
    "Rechargeable hearing aids run for a full day and need three to four hours in the charger.",
    "A car battery lasts between three and five years, less where summers are hot.",
    "For new wearers. Put the aid in after you have washed and dried your hair, and take it out before you go to bed. The left one has a blue dot, the right one a red dot. If it whistles, it does not sit well: take it out and put it in again. Wax in the tube makes it fall silent, so look at the tube once a week. Worn twelve hours a day, a size 312 battery is empty in about a week, and a size 13 lasts up to two. Leave the door of the compartment open at night. Wipe the mould with a dry cloth, never with alcohol. See your audiologist after a month, and bring a list of the places where you heard badly.",
    "Storing zinc-air batteries in a refrigerator does not make them last longer.",
    "Streaming music over Bluetooth can halve the running time of a hearing aid's battery.",
  ].join("\n"),
};
const PAGE = 200; // results drawn at once
const EXCERPT = 320; // characters of a closed result

let shown = null; // { documents, query, answer, limit, at }
let running = null;

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const milliseconds = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
const oneLine = (text) => text.replace(/\s+/g, " ").trim();

// ---- What the form says

function readDocuments() {
  const text = $("documents").value;
  const split = $("split").value;
  if (split === "line") return text.split(/\r?\n/).filter((line) => line.trim());
  if (split === "paragraph") return text.split(/\r?\n\s*\r?\n/).map((part) => part.trim()).filter(Boolean);
  if (!text.trim()) return [];
  const texts = (values) => values.map((value, at) => {
    const own = typeof value === "string" ? value : value?.text;
    if (typeof own !== "string") throw new Error(`document ${at} is neither a string nor an object with "text"`);
    return own;
  });
  if (text.trim().startsWith("[")) return texts(JSON.parse(text));
  return texts(text.split(/\r?\n/).filter((line) => line.trim()).map((line) => JSON.parse(line)));
}

function readForm() {
  const query = $("query").value.trim();
  if (!query) throw Object.assign(new Error("There is no query yet."), { field: "query" });
  let documents;
  try {
    documents = readDocuments();
  } catch (error) {
    throw Object.assign(new Error(`The documents are no JSON: ${error.message}`), { field: "documents" });
  }
  if (!documents.length) throw Object.assign(new Error("There are no documents yet."), { field: "documents" });
  const body = { query, documents };
  if ($("model").value) body.model = $("model").value;
  const top = $("top_n").value.trim();
  if (top) {
    if (!/^[1-9]\d{0,5}$/.test(top)) throw Object.assign(new Error("“Return at most” wants a whole number from 1."), { field: "top_n" });
    body.top_n = Number(top);
  }
  if ($("instruction").value.trim()) body.instruction = $("instruction").value.trim();
  if ($("overlong").value) body.overlong = $("overlong").value;
  if ($("spans").checked) body.spans = { max_spans: 2 };
  return body;
}

function headers() {
  const key = $("key").value.trim();
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
}

// ---- Asking the server

async function failureOf(response) {
  const text = await response.text();
  let message = text.slice(0, 500);
  try {
    const body = JSON.parse(text);
    message = body.error?.message ?? body.message ?? body.detail ?? body.error ?? message;
    if (typeof message !== "string") message = JSON.stringify(message);
  } catch { /* no JSON: the text itself */ }
  const lines = [`${response.status}${response.statusText ? ` ${response.statusText}` : ""}: ${message || "no reason given"}`];
  const wait = response.headers.get("retry-after");
  if (wait) lines.push(`Try again in ${wait} s.`);
  if (response.status === 401) lines.push("This server wants an API key: put yours in the field “API key”.");
  const id = response.headers.get("x-request-id");
  if (id) lines.push(`Request ${id}`);
  return Object.assign(new Error(lines.join("\n")), { field: response.status === 401 ? "key" : null });
}

async function loadModels() {
  let models;
  try {
    const response = await fetch("jointly/v1/models", { headers: headers() });
    if (!response.ok) return;
    const list = await response.json();
    models = list.models;
  } catch { return; }
  const chosen = $("model").value;
  const label = ({ name, default: first, precision }) => [name, first && name !== "default" && "(default)", precision].filter(Boolean).join(" ");
  $("model").replaceChildren(...models.map((model) => node("option", { value: model.name }, label(model))));
  $("model").value = (models.find((model) => model.name === chosen) ?? models.find((model) => model.default) ?? models[0]).name;
}

async function rerank() {
  if (running) return running.abort();
  showError(null);
  let body;
  try {
    body = readForm();
  } catch (error) {
    return showError(error);
  }
  running = new AbortController();
  busy(true);
  say(`Reading ${plural(body.documents.length, "document")}…`);
  const begin = performance.now();
  try {
    const response = await fetch("jointly/v1/rerank", { method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal });
    if (!response.ok) throw await failureOf(response);
    const answer = await response.json();
    show(body, answer, performance.now() - begin);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped. The server drops what it had not begun.");
    else showError(error instanceof TypeError ? new Error("The server cannot be reached.") : error);
  } finally {
    running = null;
    busy(false);
  }
}

function busy(now) {
  $("run").classList.toggle("busy", now);
  $("run").replaceChildren(...(now ? ["Stop ", node("kbd", {}, "Esc")] : ["Rerank ", node("kbd", {}, "Ctrl"), " ", node("kbd", {}, "Enter")]));
  $("results").setAttribute("aria-busy", String(now));
}

function say(text) {
  $("status").textContent = text;
}

function showError(error) {
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  $("error").hidden = !error;
  $("error").textContent = error ? error.message : "";
  if (!error) return;
  say("");
  const field = error.field && document.getElementById(error.field);
  if (field) {
    field.setAttribute("aria-invalid", "true");
    if (field.closest("details")) field.closest("details").open = true;
    field.focus();
  }
  $("error").scrollIntoView({ block: "nearest" });
}

// ---- Drawing the answer

function show(body, answer, elapsed) {
  shown = { documents: body.documents, answer, limit: PAGE };
  $("board").classList.remove("stale");
  $("board").classList.add("fresh");
  drawFigures(answer, elapsed);
  drawBoard();
  $("curl").textContent = shell(body);
  $("json").textContent = JSON.stringify(answer, null, 2);
  $("raw").hidden = false;
  const best = answer.results[0];
  say(best ? `${plural(answer.results.length, "result")} in ${milliseconds(elapsed)}. Best: number ${best.index + 1} of those given.` : "The server returned no results.");
  const box = $("board").getBoundingClientRect();
  if (box.top > innerHeight - 120) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("results").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  }
}

function drawFigures(answer, elapsed) {
  const { timing_ms: timing = {}, usage = {} } = answer;
  const figure = (term, value, kind = "") => node("div", { class: kind }, node("dt", {}, term), node("dd", {}, value));
  const figures = [figure("Time, seen from here", milliseconds(elapsed))];
  if (timing.inference != null) figures.push(figure("In the model", milliseconds(timing.inference)));
  if (usage.tokens != null) figures.push(figure("Tokens", usage.tokens.toLocaleString("en")));
  figures.push(figure("Documents", shown.documents.length.toLocaleString("en")));
  if (answer.model) figures.push(figure("Model", answer.model, "text"));
  $("figures").replaceChildren(...figures);

  const stages = [["reading the texts", timing.tokenization], ["waiting for others", timing.queue], ["in the model", timing.inference]];
  const known = stages.every(([, value]) => value != null);
  $("stages").hidden = !known;
  if (known) {
    const whole = Math.max(elapsed, stages.reduce((sum, [, value]) => sum + value, 0), 0.001);
    $("stages").replaceChildren(...stages.map(([name, value]) => {
      const part = node("i", { title: `${name}: ${milliseconds(value)}` });
      part.style.width = `${(100 * value) / whole}%`;
      return part;
    }));
    $("stages").setAttribute("aria-label", stages.map(([name, value]) => `${name} ${milliseconds(value)}`).join(", "));
  }

  const notices = [];
  if (known) notices.push(node("li", {}, `${stages.map(([name, value]) => `${milliseconds(value)} ${name}`).join(", ")}; the rest is the way here and back.`));
  const cut = usage.truncated_documents ?? answer.results.filter((hit) => hit.truncated).length;
  if (cut) notices.push(node("li", { class: "warn" }, `${plural(cut, "document")} ${cut === 1 ? "was" : "were"} longer than is read, and cut. Under Options, “in windows” reads all of it.`));
  const { scored, given } = answer.coverage ?? {};
  if (scored < given) notices.push(node("li", { class: "warn" }, `Only ${scored.toLocaleString("en")} of ${plural(given, "document")} were scored before the deadline.`));
  for (const { name, notes = [] } of answer.stages ?? []) notices.push(...notes.map((note) => node("li", {}, `${name}: ${note}`)));
  const others = shown.documents.length - answer.results.length;
  if (others > 0) notices.push(node("li", {}, `${plural(others, "document")} not returned.`));
  $("notices").replaceChildren(...notices);
  $("summary").hidden = false;
}

function drawBoard() {
  const results = shown ? shown.answer.results.slice(0, shown.limit) : [];
  const documents = shown ? shown.documents : safely(readDocuments, []);
  $("before").replaceChildren(...documents.slice(0, shown ? shown.limit : PAGE).map((text, at) => {
    const item = node("li", { "data-index": at }, node("b", {}, String(at + 1)), node("span", {}, oneLine(text).slice(0, 200)));
    return item;
  }));
  const logits = results.map((hit) => hit.logit ?? hit.score);
  const [low, high] = [Math.min(...logits), Math.max(...logits)];
  $("after").replaceChildren(...results.map((hit, rank) => row(hit, rank, low, high)));
  $("after").hidden = $("after-hint").hidden = !results.length;
  $("empty").hidden = results.length > 0;
  $("board").classList.toggle("ranked", results.length > 0);
  const rest = shown ? shown.answer.results.length - results.length : 0;
  $("more").hidden = rest <= 0;
  $("more").textContent = `Show ${Math.min(rest, PAGE)} more of ${rest.toLocaleString("en")}`;
  drawLines();
}

function row(hit, rank, low, high) {
  const moved = hit.index - rank;
  const kind = moved > 0 ? "up" : moved < 0 ? "down" : "same";
  const move = node("div", { class: `move ${kind}` }, node("span", { "aria-hidden": "true" }, moved > 0 ? `▲ ${moved}` : moved < 0 ? `▼ ${-moved}` : "="), node("span", { class: "unseen" }, `, was number ${hit.index + 1}`));
  const text = node("div", { class: "text" });
  const score = node("div", { class: "score" });
  const scale = shown.answer.score_scale ?? "probability";
  const value = node("strong", {}, scale === "probability" ? hit.score.toFixed(4) : hit.score.toFixed(3));
  const part = scale === "probability" ? hit.score : (hit.logit - low) / (high - low || 1);
  const bar = node("div", { class: "bar" });
  bar.style.setProperty("--part", `${Math.max(0, Math.min(1, part)) * 100}%`);
  score.append(value, bar, node("div", { class: "break" }));
  if (hit.logit != null && scale === "probability") score.append(node("span", {}, `logit ${signed(hit.logit)}`));
  if (hit.probability != null) score.append(node("span", {}, `probability ${(100 * hit.probability).toFixed(1)} %`));
  if (hit.tokens != null) score.append(node("span", {}, plural(hit.tokens, "token")));
  if (hit.truncated) score.append(node("span", { class: "cut" }, "cut"));
  const item = node("li", { tabindex: rank ? -1 : 0, "data-index": hit.index }, node("div", {}, node("div", { class: "rank" }, String(rank + 1)), move), text, score);
  fill(text, hit, false);
  return item;
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

// The text of a result with its spans marked; closed, only the part around the best one.
function fill(element, hit, open) {
  const characters = Array.from(shown.documents[hit.index]); // spans count code points
  const first = hit.spans?.[0];
  const near = (hit.spans ?? []).filter((span) => first.logit - span.logit < 2); // a second part far below the first is no find
  const spans = near.map((span) => ({ start: span.start, end: span.end, best: span === first })).sort((a, b) => a.start - b.start);
  const whole = ({ start, end }) => !characters.slice(0, start).join("").trim() && !characters.slice(end).join("").trim();
  if (spans.length === 1 && whole(spans[0])) spans.pop(); // all of a document is no part of it
  const best = spans.find((span) => span.best);
  let from = 0;
  let to = characters.length;
  if (!open && to > EXCERPT) {
    from = best && best.end > EXCERPT * 0.7 ? Math.max(0, best.start - 50) : 0;
    to = Math.min(to, from + EXCERPT * 2);
  }
  const pieces = from > 0 ? ["… "] : [];
  let at = from;
  for (const span of spans) {
    const [start, end] = [Math.max(span.start, at), Math.min(span.end, to)];
    if (start >= end) continue;
    pieces.push(characters.slice(at, start).join(""), node("mark", { class: span.best ? "best" : "" }, characters.slice(start, end).join("")));
    at = end;
  }
  pieces.push(characters.slice(at, to).join(""), to < characters.length ? " …" : "");
  element.replaceChildren(...pieces);
}

function drawLines() {
  const svg = $("lines");
  svg.replaceChildren();
  if (!shown) return;
  const box = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const middle = (item) => {
    const own = item.getBoundingClientRect();
    return own.top + own.height / 2 - box.top;
  };
  const left = new Map([...$("before").children].map((item) => [item.dataset.index, item]));
  [...$("after").children].forEach((item, rank) => {
    const start = left.get(item.dataset.index);
    if (!start) return;
    const [y0, y1, bend, x0, x1] = [middle(start), middle(item), box.width / 2, 4, box.width - 2];
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const moved = item.dataset.index - rank;
    path.setAttribute("class", moved > 0 ? "up" : moved < 0 ? "down" : "");
    path.setAttribute("d", `M${x0} ${y0}C${bend} ${y0} ${bend} ${y1} ${x1} ${y1}`);
    path.setAttribute("pathLength", "1");
    path.dataset.index = item.dataset.index;
    svg.append(path);
  });
}

function light(index) {
  for (const item of $("board").querySelectorAll("[data-index]")) item.classList.toggle("on", item.dataset.index === index);
}

function toggle(item) {
  const hit = shown?.answer.results.find((result) => String(result.index) === item.dataset.index);
  if (!hit) return;
  $("board").classList.remove("fresh");
  const open = item.classList.toggle("open");
  fill(item.querySelector(".text"), hit, open);
  drawLines();
}

// ---- For a shell

function shell(body) {
  const quote = (text) => `'${text.replace(/'/g, "'\\''")}'`;
  const key = $("key").value.trim() ? ` \\\n  -H "authorization: Bearer $JOINTLY_API_KEY"` : "";
  return `curl ${quote(new URL("jointly/v1/rerank", location.href).href)} \\\n  -H 'content-type: application/json'${key} \\\n  -d ${quote(JSON.stringify(body))}`;
}

function safely(work, otherwise) {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

// ---- What the user does

function edited() {
  const documents = safely(readDocuments, null);
  $("count").textContent = documents ? documents.length.toLocaleString("en") : "not JSON yet";
  if (!shown) return drawBoard();
  if (!$("board").classList.contains("stale")) say("These results are of what the form held before.");
  $("board").classList.add("stale");
}

function fillForm(query, documents) {
  $("query").value = query;
  $("documents").value = documents;
  $("split").value = "line";
  shown = null;
  $("summary").hidden = $("raw").hidden = true;
  $("board").classList.remove("stale");
  showError(null);
  say("");
  edited();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  rerank();
});
for (const id of ["query", "documents", "split", "model", "overlong", "top_n", "instruction", "spans"]) $(id).addEventListener("input", edited);
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing && !running) {
    event.preventDefault();
    rerank();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) {
    event.preventDefault();
    rerank();
  }
  if (event.key === "Escape" && running) running.abort();
});
$("key").addEventListener("change", loadModels);
$("sample").addEventListener("click", () => fillForm(SAMPLE.query, SAMPLE.documents));
$("clear").addEventListener("click", () => {
  fillForm("", "");
  $("query").focus();
});
$("more").addEventListener("click", () => {
  const first = shown.limit;
  shown.limit += PAGE;
  drawBoard();
  $("after").children[first]?.focus();
});
$("after").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item && !getSelection().toString()) toggle(item);
});
$("after").addEventListener("keydown", (event) => {
  const item = event.target.closest("li");
  const to = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling, Home: $("after").firstElementChild, End: $("after").lastElementChild }[event.key];
  if (to) {
    event.preventDefault();
    item.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  } else if ((event.key === "Enter" || event.key === " ") && !event.ctrlKey && !event.metaKey && item) {
    event.preventDefault();
    toggle(item);
  }
});
for (const kind of ["pointerover", "focusin"]) $("board").addEventListener(kind, (event) => light(event.target.closest("[data-index]")?.dataset.index));
$("board").addEventListener("pointerleave", () => light(null));
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($(button.dataset.of).textContent);
      say("Copied.");
    } catch {
      getSelection().selectAllChildren($(button.dataset.of));
      say("Selected; copy it with the keyboard.");
    }
  });
}
let width = 0;
new ResizeObserver(([entry]) => {
  if (entry.contentRect.width === width) return; // heights change with every answer, and are drawn then
  width = entry.contentRect.width;
  $("board").classList.remove("fresh");
  drawLines();
}).observe($("board"));

// Browsers put back what a field held before a reload; a key is not to come back.
$("key").value = "";
fillForm(SAMPLE.query, SAMPLE.documents);
loadModels();
