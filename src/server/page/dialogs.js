// Settings, and the keys that the page knows.

import { getKey, setKey } from "./api.js";
import { element } from "./markdown.js";
import { $, keep, keepSettings, state } from "./state.js";

const closeButton = (dialog) => element("div", { class: "foot" },
  element("button", { class: "primary", type: "button", onclick: () => dialog.close() }, "Done"));

function numberRow(name, label, hint) {
  const defaults = state.props?.default_generation_settings?.params ?? {};
  const input = element("input", { inputmode: "decimal", placeholder: hint ?? defaults[name] ?? "" });
  input.value = state.settings[name];
  input.addEventListener("change", () => {
    const given = input.value.trim();
    state.settings[name] = given === "" || isNaN(given) ? "" : given;
    keepSettings();
  });
  return element("label", { class: "row" }, element("span", {}, label), input);
}

function themeRow() {
  const theme = element("select", {}, ...["auto", "light", "dark"].map((name) => element("option", { value: name, selected: state.settings.theme === name }, name)));
  theme.addEventListener("change", () => { state.settings.theme = theme.value; keepSettings(); });
  return element("label", { class: "row" }, element("span", {}, "Colours"), theme);
}

function systemRow() {
  const conversation = state.current;
  const system = element("textarea", { "aria-label": "System message of this conversation" });
  system.value = conversation.system;
  system.addEventListener("change", () => {
    conversation.system = system.value;
    if (state.conversations.includes(conversation)) keep(conversation);
  });
  return element("label", { class: "row tall" }, element("span", {}, "System message of this conversation"), system);
}

function keyRow(onKeyGiven) {
  const key = element("input", { type: "password", autocomplete: "off", placeholder: "if the server needs one" });
  key.value = getKey();
  key.addEventListener("change", () => { setKey(key.value.trim()); onKeyGiven(); });
  return element("label", { class: "row" }, element("span", {}, "API key"), key);
}

export function openSettings(onKeyGiven) {
  const sheet = $("settings");
  if (sheet.open) return;
  sheet.replaceChildren(element("h2", {}, "Settings"), systemRow(),
    numberRow("temperature", "Temperature"), numberRow("top_p", "Top-p"), numberRow("top_k", "Top-k"),
    numberRow("max_tokens", "Longest answer", "no limit"), themeRow(), keyRow(onKeyGiven), closeButton(sheet));
  sheet.showModal();
}

const KEYS = [
  ["Enter", "send"], ["Shift Enter", "a new line"], ["Esc", "stop the answer"], ["↑ in an empty box", "edit the last message"],
  ["Ctrl K", "search conversations"], ["Ctrl Shift O", "new conversation"], ["Ctrl .", "what the engine does"], ["?", "these keys"],
];

export function openHelp() {
  const sheet = $("help");
  sheet.replaceChildren(element("h2", {}, "Keys"),
    ...KEYS.map(([key, does]) => element("div", { class: "row" }, element("span", {}, element("kbd", {}, key)), element("span", {}, does))),
    closeButton(sheet));
  sheet.showModal();
}
