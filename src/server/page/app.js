// The page: conversations on the left, one of them in the middle, the engine's figures on the right.
// Here the parts are put together; state.js says which there are.

import { stop } from "./answer.js";
import { get } from "./api.js";
import { fitInput, onInputKey, send } from "./composer.js";
import { closeSidebar, download, drawList, fresh, importFile } from "./conversations.js";
import { openHelp, openSettings } from "./dialogs.js";
import { drawMessages } from "./messages.js";
import { Panel } from "./panel.js";
import { $, applyTheme, keepSettings, loadConversations, on, setStatus, state } from "./state.js";
import * as store from "./store.js";

const RETRY_MS = 1500;

const panel = new Panel($("panel"));

function togglePanel() {
  if (panel.isOpen) panel.close();
  else panel.open();
  $("toggle-panel").setAttribute("aria-expanded", String(panel.isOpen));
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

// Asks what is served, until somebody answers.
let retry = 0;
async function connect() {
  clearTimeout(retry);
  try {
    state.props = await get("/props");
    setStatus(state.props.model_alias);
    if (!store.path(state.current).length) drawMessages();
  } catch (error) {
    if (error.status === 401) return askForKey();
    setStatus(error.status === 503 ? await loadingText() : "The server does not answer", error.status !== 503);
    clearTimeout(retry);
    retry = setTimeout(connect, RETRY_MS);
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

function askForKey() {
  setStatus("This server needs an API key", true);
  openSettings(connect);
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
  $("open-settings").addEventListener("click", () => openSettings(connect));
  $("open-sidebar").addEventListener("click", () => $("sidebar").classList.add("open"));
  $("close-sidebar").addEventListener("click", closeSidebar);
  $("messages").addEventListener("click", closeSidebar);
  $("toggle-panel").addEventListener("click", togglePanel);
  $("think").checked = state.settings.think;
  $("think").addEventListener("change", () => { state.settings.think = $("think").checked; keepSettings(); });
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
  on("timings", (timings) => panel.showTimings(timings));
  on("key-wanted", askForKey);
}

async function start() {
  applyTheme();
  listen();
  drawMessages();
  fitInput();
  if (innerWidth > 1200) togglePanel();
  await loadConversations();
  drawList();
  await connect();
  if (document.activeElement === document.body) $("input").focus();
}

start();
