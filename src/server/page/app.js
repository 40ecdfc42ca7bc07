// The page: conversations on the left, one of them in the middle, the engine's figures on the right.

import { element, renderMarkdown } from "./markdown.js";
import * as store from "./store.js";
import { ApiError, chat, get, getKey, setKey } from "./api.js";
import { Panel } from "./panel.js";

const SHOWN = 100; // messages that are drawn at once; earlier ones on demand
const SETTINGS = "penstock-settings";

const $ = (id) => document.getElementById(id);
const state = {
  conversations: [], current: null, props: null, running: null, shown: SHOWN,
  settings: { theme: "auto", think: false, temperature: "", top_p: "", top_k: "", max_tokens: "", ...readJson(SETTINGS) },
};
const panel = new Panel($("panel"));

function readJson(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function keepSettings() {
  localStorage.setItem(SETTINGS, JSON.stringify(state.settings));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = state.settings.theme === "auto" ? (dark ? "dark" : "light") : state.settings.theme;
  document.documentElement.dataset.theme = theme;
}

// The list of conversations

function drawList() {
  const words = $("search").value.trim();
  const found = state.conversations.filter((one) => store.matches(one, words))
    .sort((a, b) => b.updated.localeCompare(a.updated));
  const nodes = [];
  let heading = "";
  for (const conversation of found) {
    const day = dayOf(conversation.updated);
    if (day !== heading) nodes.push(element("h2", {}, day));
    heading = day;
    const isCurrent = conversation === state.current;
    nodes.push(element("div", { class: isCurrent ? "entry current" : "entry" },
      element("button", { type: "button", "aria-current": isCurrent ? "true" : null, title: conversation.title, onclick: () => select(conversation) },
        conversation.title || "Untitled"),
      element("button", { class: "icon", type: "button", "aria-label": `Export ${conversation.title}`, title: "Export", onclick: () => download([conversation]) }, "↓"),
      element("button", { class: "icon", type: "button", "aria-label": `Delete ${conversation.title}`, title: "Delete", onclick: () => discard(conversation) }, "✕")));
  }
  if (!nodes.length) nodes.push(element("p", { class: "muted" }, words ? "Nothing found." : ""));
  $("conversations").replaceChildren(...nodes);
}

function dayOf(time) {
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 86400000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}

function select(conversation) {
  stop();
  state.current = conversation;
  state.shown = SHOWN;
  closeSidebar();
  draw();
  $("messages").scrollTop = $("messages").scrollHeight;
  $("input").focus();
}

function fresh() {
  select(store.newConversation());
}

async function discard(conversation) {
  if (!confirm(`Delete “${conversation.title || "Untitled"}”?`)) return;
  state.conversations = state.conversations.filter((one) => one !== conversation);
  await store.remove(conversation.id);
  if (conversation === state.current) fresh();
  drawList();
}

async function keep(conversation) {
  if (!state.conversations.includes(conversation)) state.conversations.push(conversation);
  conversation.updated = new Date().toISOString();
  await store.save(conversation);
}

function download(conversations) {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([store.exportText(conversations)], { type: "application/json" })),
    download: conversations.length === 1 ? `${(conversations[0].title || "conversation").replace(/[^\w-]+/g, "-").slice(0, 60)}.json` : "penstock-conversations.json",
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function importFile(file) {
  try {
    const conversations = store.importText(await file.text());
    for (const conversation of conversations) {
      state.conversations.push(conversation);
      await store.save(conversation);
    }
    drawList();
    setStatus(`${conversations.length} imported`);
  } catch (error) {
    setStatus(error instanceof SyntaxError ? "That file is not JSON." : error.message, true);
  }
}

// The conversation

function draw() {
  const messages = store.path(state.current);
  $("title").textContent = state.current.title || "New conversation";
  document.title = state.current.title ? `${state.current.title} · penstock` : "penstock";
  const column = element("div", { class: "column" });
  if (!messages.length) {
    column.append(element("div", { class: "welcome" }, element("strong", {}, state.props?.model_alias ?? "penstock"),
      "Everything stays on this machine."));
  }
  const begin = Math.max(messages.length - state.shown, 0);
  if (begin > 0) {
    column.append(element("button", { class: "earlier", type: "button", onclick: () => { state.shown += SHOWN; draw(); } }, `${begin} earlier messages`));
  }
  for (const message of messages.slice(begin)) column.append(messageNode(message));
  $("messages").replaceChildren(column);
  drawList();
  drawButtons();
}

function messageNode(message) {
  const node = element("article", { class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Answer" });
  node.dataset.id = message.id;
  const body = element("div", { class: "body" });
  node.append(body, element("div", { class: "tools" }));
  if (message.role === "user") body.textContent = message.content;
  else fillAnswer(body, message);
  fillTools(node.lastChild, message);
  return node;
}

function fillAnswer(body, message) {
  let reasoning = body.querySelector("details.reasoning");
  if (message.reasoning && !reasoning) {
    reasoning = element("details", { class: "reasoning" }, element("summary"), element("div", { class: "inner" }));
    body.prepend(reasoning);
  }
  if (reasoning) {
    const isThinking = message === state.running?.message && !message.content;
    reasoning.firstChild.textContent = isThinking ? "Thinking…" : "Reasoning";
    if (reasoning.lastChild.textContent !== message.reasoning) {
      reasoning.lastChild.textContent = message.reasoning;
      reasoning.lastChild.scrollTop = reasoning.lastChild.scrollHeight;
    }
  }
  let text = body.querySelector(":scope > .md");
  if (!text) body.append((text = element("div", { class: "md" })));
  renderMarkdown(text, message.content ?? "");
  body.querySelectorAll(":scope > .call, :scope > .problem").forEach((old) => old.remove());
  for (const call of message.calls ?? []) {
    body.append(element("div", { class: "call" },
      element("header", {}, "Call of ", element("b", {}, call.name)),
      element("pre", { tabindex: "0" }, prettyJson(call.arguments))));
  }
  if (message.problem) body.append(element("div", { class: "problem", role: "alert" }, message.problem));
  body.classList.toggle("cursor", message === state.running?.message);
}

function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function fillTools(tools, message) {
  const button = (label, action) => element("button", { class: "plain", type: "button", onclick: action }, label);
  if (message === state.running?.message) return tools.replaceChildren();
  const nodes = [];
  const others = store.siblings(state.current, message);
  if (others.length > 1) {
    const at = others.indexOf(message);
    const step = (by) => () => { stop(); store.goTo(state.current, others[at + by]); keep(state.current); draw(); };
    nodes.push(element("span", { class: "branch" },
      element("button", { class: "plain", type: "button", disabled: at === 0, "aria-label": "Earlier version", onclick: step(-1) }, "‹"),
      `${at + 1}/${others.length}`,
      element("button", { class: "plain", type: "button", disabled: at === others.length - 1, "aria-label": "Later version", onclick: step(1) }, "›")));
  }
  nodes.push(button("Copy", () => navigator.clipboard.writeText(message.content)));
  nodes.push(button("Edit", () => edit(message)));
  if (message.role === "assistant") nodes.push(button("Again", () => again(message)));
  if (message.figures) nodes.push(element("span", { class: "figures" }, message.figures));
  tools.replaceChildren(...nodes);
}

// Writes a message anew: a branch beside it. An answer is just replaced in words.
function edit(message) {
  const node = document.querySelector(`[data-id="${CSS.escape(message.id)}"]`);
  const area = element("textarea", { "aria-label": "Edit the message" });
  area.value = message.content;
  const done = () => {
    stop();
    const parent = message.parent;
    if (message.role === "user") {
      store.addMessage(state.current, parent, { role: "user", content: area.value });
      keep(state.current);
      draw();
      answer();
    } else {
      store.addMessage(state.current, parent, { role: "assistant", content: area.value, reasoning: message.reasoning });
      keep(state.current);
      draw();
    }
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); draw(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done();
  });
  node.replaceChildren(element("div", { class: "editor" }, area, element("div", { class: "foot" },
    element("button", { type: "button", onclick: draw }, "Cancel"),
    element("button", { type: "button", class: "primary", onclick: done }, message.role === "user" ? "Send" : "Save"))));
  area.style.height = `${Math.min(area.scrollHeight + 24, innerHeight / 2)}px`;
  area.focus();
}

function again(message) {
  stop();
  state.current.leaf = message.parent;
  draw();
  answer();
}

// Asking

async function send() {
  const text = $("input").value.trim();
  if (!text || state.running) return;
  $("input").value = "";
  fitInput();
  const conversation = state.current;
  if (!conversation.title) conversation.title = text.split("\n")[0].slice(0, 80);
  store.addMessage(conversation, conversation.leaf, { role: "user", content: text });
  await keep(conversation);
  draw();
  scrollDown(true);
  await answer();
}

function requestBody(conversation) {
  const messages = store.path(conversation).filter((one) => !one.problem || one.content).map((one) => ({
    role: one.role, content: one.content,
    ...(one.reasoning ? { reasoning_content: one.reasoning } : {}),
    ...(one.calls?.length ? { tool_calls: one.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })) } : {}),
  }));
  const body = { messages: conversation.system ? [{ role: "system", content: conversation.system }, ...messages] : messages };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens"]) {
    if (state.settings[name] !== "") body[name] = Number(state.settings[name]);
  }
  body.chat_template_kwargs = { enable_thinking: state.settings.think };
  return body;
}

async function answer() {
  const conversation = state.current;
  const body = requestBody(conversation);
  const message = store.addMessage(conversation, conversation.leaf, { role: "assistant", content: "", reasoning: "" });
  const running = { message, conversation, abort: new AbortController(), began: performance.now(), tokens: 0, first: 0 };
  state.running = running;
  draw();
  scrollDown(true);
  showProgress({ text: "Waiting" });
  try {
    for await (const chunk of chat(body, running.abort.signal)) take(running, chunk);
  } catch (error) {
    if (error.name !== "AbortError") message.problem = error instanceof ApiError ? error.message : "The connection to the server was lost.";
    if (error.status === 401) openSettings();
  }
  if (state.running === running) state.running = null;
  if (!message.figures && running.tokens > 1) message.figures = `${speedText(running)}, stopped`;
  hideProgress();
  if (!message.content && !message.reasoning && !message.calls && !message.problem) {
    delete conversation.nodes[message.id];
    if (conversation.leaf === message.id) conversation.leaf = message.parent;
  }
  await keep(conversation);
  if (state.current === conversation) {
    const follows = isAtEnd();
    draw();
    if (follows) scrollDown(true);
    setStatus(state.props?.model_alias ?? "");
  }
  drawButtons();
}

function take(running, chunk) {
  const { message } = running;
  if (chunk.queue_position) showProgress({ text: `Waiting, number ${chunk.queue_position} in the queue` });
  if (chunk.prompt_progress) showPrompt(chunk.prompt_progress);
  if (chunk.timings) {
    panel.showTimings(chunk.timings);
    message.figures = figuresText(chunk.timings);
  }
  if (chunk.usage) showContext(chunk.usage.total_tokens);
  const delta = chunk.choices?.[0]?.delta;
  if (!delta) return;
  if (delta.reasoning_content) message.reasoning += delta.reasoning_content;
  if (delta.content) message.content += delta.content;
  for (const call of delta.tool_calls ?? []) {
    message.calls ??= [];
    const known = (message.calls[call.index] ??= { id: "", name: "", arguments: "" });
    known.id = call.id ?? known.id;
    known.name = call.function?.name ?? known.name;
    known.arguments += call.function?.arguments ?? "";
  }
  if (delta.reasoning_content || delta.content || delta.tool_calls) {
    running.tokens++;
    running.first ||= performance.now();
    hideProgress();
    setStatus(speedText(running));
    scheduleRedraw(running);
  }
}

const speedText = (running) => {
  const seconds = (performance.now() - running.first) / 1000;
  return running.tokens < 3 || seconds < 0.2 ? "" : `${(running.tokens / seconds).toFixed(1)} tokens/s`;
};

function figuresText(timings) {
  const parts = [`${timings.predicted_per_second.toFixed(1)} tokens/s`, `${timings.predicted_n} tokens`];
  if (timings.cache_n) parts.push(`${timings.cache_n} of the prompt known`);
  return parts.join(" · ");
}

let redraw = 0;
function scheduleRedraw(running) {
  redraw ||= requestAnimationFrame(() => {
    redraw = 0;
    const node = document.querySelector(`[data-id="${CSS.escape(running.message.id)}"] .body`);
    if (!node) return;
    const follows = isAtEnd();
    fillAnswer(node, running.message);
    if (follows) scrollDown(true);
  });
}

function showPrompt({ total, processed, cache, time_ms: ms }) {
  const done = processed - cache;
  const left = done > 0 ? ((total - processed) * ms) / done / 1000 : 0;
  const rest = total > processed ? (left > 1 ? `, ${durationText(left)} left` : "") : "";
  showProgress({ share: processed / total, text: `Reading the prompt: ${processed} of ${total} tokens${rest}` });
}

const durationText = (seconds) => seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;

function showProgress({ share = 0, text }) {
  $("progress").hidden = false;
  $("progress-bar").style.width = `${100 * share}%`;
  $("progress-text").textContent = text;
}

function hideProgress() { $("progress").hidden = true; }

function showContext(tokens) {
  const all = state.props?.default_generation_settings?.n_ctx;
  $("context-use").textContent = all ? `${tokens.toLocaleString("en")} of ${all.toLocaleString("en")} tokens` : "";
}

function stop() { state.running?.abort.abort(); }

const isAtEnd = () => {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
};
function scrollDown(always) {
  const box = $("messages");
  if (always || isAtEnd()) box.scrollTop = box.scrollHeight;
}

// Around it

function setStatus(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

function drawButtons() {
  $("stop").hidden = !state.running;
  $("send").hidden = Boolean(state.running);
  $("send").disabled = !$("input").value.trim();
}

function fitInput() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
  drawButtons();
}

function closeSidebar() { $("sidebar").classList.remove("open"); }

function togglePanel() {
  if (panel.isOpen) panel.close();
  else panel.open();
  $("toggle-panel").setAttribute("aria-expanded", String(panel.isOpen));
}

function openSettings() {
  const sheet = $("settings");
  const defaults = state.props?.default_generation_settings?.params ?? {};
  const text = (name, label, hint) => {
    const input = element("input", { inputmode: "decimal", placeholder: hint ?? defaults[name] ?? "" });
    input.value = state.settings[name];
    input.addEventListener("change", () => { state.settings[name] = input.value.trim() === "" || isNaN(input.value) ? "" : input.value.trim(); keepSettings(); });
    return element("label", { class: "row" }, element("span", {}, label), input);
  };
  const theme = element("select", {}, ...["auto", "light", "dark"].map((name) => element("option", { value: name, selected: state.settings.theme === name }, name)));
  theme.addEventListener("change", () => { state.settings.theme = theme.value; keepSettings(); });
  const system = element("textarea", { "aria-label": "System message of this conversation" });
  system.value = state.current.system;
  system.addEventListener("change", () => { state.current.system = system.value; if (state.conversations.includes(state.current)) keep(state.current); });
  const key = element("input", { type: "password", autocomplete: "off", placeholder: "if the server needs one" });
  key.value = getKey();
  key.addEventListener("change", () => { setKey(key.value.trim()); connect(); });
  sheet.replaceChildren(element("h2", {}, "Settings"),
    element("label", { class: "row tall" }, element("span", {}, "System message of this conversation"), system),
    text("temperature", "Temperature"), text("top_p", "Top-p"), text("top_k", "Top-k"),
    text("max_tokens", "Longest answer", "no limit"),
    element("label", { class: "row" }, element("span", {}, "Colours"), theme),
    element("label", { class: "row" }, element("span", {}, "API key"), key),
    element("div", { class: "foot" }, element("button", { class: "primary", type: "button", onclick: () => sheet.close() }, "Done")));
  sheet.showModal();
}

const KEYS = [
  ["Enter", "send"], ["Shift Enter", "a new line"], ["Esc", "stop the answer"], ["↑ in an empty box", "edit the last message"],
  ["Ctrl K", "search conversations"], ["Ctrl Shift O", "new conversation"], ["Ctrl .", "what the engine does"], ["?", "these keys"],
];

function openHelp() {
  $("help").replaceChildren(element("h2", {}, "Keys"),
    ...KEYS.map(([key, does]) => element("div", { class: "row" }, element("span", {}, element("kbd", {}, key)), element("span", {}, does))),
    element("div", { class: "foot" }, element("button", { class: "primary", type: "button", onclick: () => $("help").close() }, "Done")));
  $("help").showModal();
}

function onKey(event) {
  const control = event.ctrlKey || event.metaKey;
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) { stop(); closeSidebar(); }
  else if (control && event.key.toLowerCase() === "k") { event.preventDefault(); $("sidebar").classList.add("open"); $("search").focus(); }
  else if (control && event.shiftKey && event.key.toLowerCase() === "o") { event.preventDefault(); fresh(); }
  else if (control && event.key === ".") { event.preventDefault(); togglePanel(); }
  else if (event.key === "?" && !isTyping) openHelp();
}

function onInputKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  if (event.key === "ArrowUp" && !$("input").value) {
    const last = store.path(state.current).filter((one) => one.role === "user").at(-1);
    if (last) { event.preventDefault(); edit(last); }
  }
}

async function connect() {
  try {
    state.props = await get("/props");
    setStatus(state.props.model_alias);
    if (!store.path(state.current).length) draw();
  } catch (error) {
    if (error.status === 401) { setStatus("This server needs an API key", true); openSettings(); return; }
    setStatus(error.status === 503 ? await loadingText() : "The server does not answer", error.status !== 503);
    setTimeout(connect, 1500);
  }
}

async function loadingText() {
  try {
    const health = await (await fetch("/health")).json();
    return health.progress ? `Loading the model: ${Math.round(100 * health.progress)} %` : "Loading the model";
  } catch {
    return "Loading the model";
  }
}

function listen() {
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("input").addEventListener("input", fitInput);
  $("input").addEventListener("keydown", onInputKey);
  $("stop").addEventListener("click", stop);
  $("new-chat").addEventListener("click", fresh);
  $("search").addEventListener("input", drawList);
  $("export-all").addEventListener("click", () => download(state.conversations));
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", (event) => { const [file] = event.target.files; event.target.value = ""; if (file) importFile(file); });
  $("open-settings").addEventListener("click", openSettings);
  $("open-sidebar").addEventListener("click", () => $("sidebar").classList.add("open"));
  $("close-sidebar").addEventListener("click", closeSidebar);
  $("messages").addEventListener("click", closeSidebar);
  $("toggle-panel").addEventListener("click", togglePanel);
  $("think").checked = state.settings.think;
  $("think").addEventListener("change", () => { state.settings.think = $("think").checked; keepSettings(); });
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", keepSettings);
}

async function start() {
  keepSettings();
  listen();
  state.current = store.newConversation();
  draw();
  state.conversations = await store.loadAll();
  drawList();
  fitInput();
  if (innerWidth > 1200) togglePanel();
  await connect();
  $("input").focus();
}

start();
