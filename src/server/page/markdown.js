// Markdown to DOM nodes. Text only ever becomes text nodes, so nothing that a model writes can run;
// links keep http, https and mailto. Blocks that did not change keep their nodes while text arrives.

const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const LONG = 20000; // characters of a paragraph beyond which inline marks are left alone

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

// Puts `text` into `root`, which is given to this function alone.
export function renderMarkdown(root, text) {
  const blocks = cutBlocks(text);
  const kept = root.markdownBlocks || [];
  let same = 0;
  while (same < blocks.length && same < kept.length && kept[same].source === blocks[same].source &&
         kept[same].kind === blocks[same].kind) same++;
  while (root.childNodes.length > same) root.lastChild.remove();
  for (const block of blocks.slice(same)) root.append(blockNode(block));
  root.markdownBlocks = blocks;
}

function cutBlocks(text) {
  const lines = text.split("\n");
  const blocks = [];
  let i = 0;
  const push = (kind, from, to, more = {}) =>
    blocks.push({ kind, source: lines.slice(from, to).join("\n"), ...more });
  while (i < lines.length) {
    const line = lines[i];
    if (!line.trim()) { i++; continue; }
    const begin = i;
    const fence = line.match(/^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/);
    if (fence) {
      i++;
      const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      while (i < lines.length && !close.test(lines[i])) i++;
      const ended = i < lines.length;
      push("code", begin, ended ? i + 1 : i, { language: fence[2].trim().split(/\s+/)[0], ended });
      i += ended ? 1 : 0;
    } else if (/^ {0,3}#{1,6}\s/.test(line)) {
      i++;
      push("heading", begin, i);
    } else if (/^ {0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) {
      i++;
      push("rule", begin, i);
    } else if (/^ {0,3}>/.test(line)) {
      while (i < lines.length && lines[i].trim() && (/^ {0,3}>/.test(lines[i]) || !startsBlock(lines[i]))) i++;
      push("quote", begin, i);
    } else if (isItem(line)) {
      i++;
      while (i < lines.length) {
        if (lines[i].trim() === "") {
          if (i + 1 < lines.length && (/^\s{2,}\S/.test(lines[i + 1]) || isItem(lines[i + 1]))) { i++; continue; }
          break;
        }
        if (!isItem(lines[i]) && !/^\s/.test(lines[i]) && startsBlock(lines[i])) break;
        i++;
      }
      push("list", begin, i);
    } else if (line.includes("|") && i + 1 < lines.length && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[i + 1])) {
      i += 2;
      while (i < lines.length && lines[i].includes("|")) i++;
      push("table", begin, i);
    } else {
      i++;
      while (i < lines.length && lines[i].trim() && !startsBlock(lines[i])) i++;
      push("paragraph", begin, i);
    }
  }
  return blocks;
}

const isItem = (line) => /^\s*([-*+]|\d{1,9}[.)])\s+/.test(line);
const startsBlock = (line) =>
  /^ {0,3}(`{3,}|~{3,}|#{1,6}\s|>)/.test(line) || isItem(line) || /^ {0,3}([-*_])(\s*\1){2,}\s*$/.test(line);

function blockNode(block) {
  const { kind, source } = block;
  if (kind === "code") return codeNode(block);
  if (kind === "rule") return element("hr");
  if (kind === "heading") {
    const [, marks, text] = source.match(/^\s*(#{1,6})\s+(.*?)\s*#*\s*$/) || [null, "#", source];
    return inline(element("h" + marks.length), text);
  }
  if (kind === "quote") {
    const quote = element("blockquote");
    renderMarkdown(quote, source.replace(/^ {0,3}> ?/gm, ""));
    return quote;
  }
  if (kind === "list") return listNode(source.split("\n"));
  if (kind === "table") return tableNode(source.split("\n"));
  return inline(element("p"), source);
}

function codeNode({ source, language, ended }) {
  const lines = source.split("\n").slice(1);
  if (ended) lines.pop();
  const text = lines.join("\n");
  const copy = element("button", { class: "plain", type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return element("div", { class: "code" },
    element("header", {}, element("span", {}, language || "text"), copy),
    element("pre", { tabindex: "0" }, element("code", {}, text)));
}

function listNode(lines) {
  const first = lines[0].match(/^(\s*)([-*+]|\d{1,9}[.)])\s+/);
  const indent = first[1].length;
  const ordered = /\d/.test(first[2]);
  const list = element(ordered ? "ol" : "ul");
  if (ordered && parseInt(first[2], 10) !== 1) list.setAttribute("start", parseInt(first[2], 10));
  let item = null;
  const finish = () => {
    if (!item) return;
    const node = element("li");
    const nested = item.findIndex((line, at) => at > 0 && (isItem(line) || /^(```|~~~|>)/.test(line)));
    const own = nested < 0 ? item : item.slice(0, nested);
    const text = own.join("\n").trim();
    const task = text.match(/^\[([ xX])\]\s+/);
    if (task) node.append(task[1] === " " ? "☐ " : "☑ ");
    const body = task ? text.slice(task[0].length) : text;
    if (body.includes("\n\n")) renderMarkdown(node.appendChild(element("div")), body);
    else inline(node, body);
    if (nested >= 0) renderMarkdown(node.appendChild(element("div")), item.slice(nested).join("\n"));
    list.append(node);
  };
  for (const line of lines) {
    const match = line.match(/^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/);
    if (match && match[1].length <= indent + 1) {
      finish();
      item = [match[3]];
    } else if (item) {
      item.push(line.replace(new RegExp(`^\\s{0,${indent + 4}}`), ""));
    }
  }
  finish();
  return list;
}

function tableNode(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
  const row = (line, tag) => element("tr", {}, ...cells(line).map((cell) => inline(element(tag), cell)));
  return element("table", {},
    element("thead", {}, row(lines[0], "th")),
    element("tbody", {}, ...lines.slice(2).map((line) => row(line, "td"))));
}

const INLINE =
  /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|__(?=\S)([\s\S]*?\S)__(?!\w)|\*(?=[^\s*])([^*\n]*?[^\s*])\*|(?<!\w)_(?=[^\s_])([^_\n]*?[^\s_])_(?!\w)|~~(?=\S)([\s\S]*?\S)~~|!?\[([^\]\n]*)\]\((<?)([^()\s>]+(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+"[^"]*")?\)|(https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]])/g;

function inline(parent, text, depth = 0) {
  if (text.length > LONG || depth > 8) {
    parent.append(text);
    return parent;
  }
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    appendText(parent, text.slice(last, match.index));
    last = match.index + match[0].length;
    const [all, , code, strong, strong2, em, em2, gone, label, , target, bare] = match;
    if (code != null) parent.append(element("code", {}, code.replace(/^ (.*) $/, "$1")));
    else if (strong ?? strong2) parent.append(inline(element("strong"), strong ?? strong2, depth + 1));
    else if (em ?? em2) parent.append(inline(element("em"), em ?? em2, depth + 1));
    else if (gone) parent.append(inline(element("del"), gone, depth + 1));
    else if (target != null && SAFE_LINK.test(target) && !all.startsWith("!")) parent.append(link(target, label));
    else if (bare) parent.append(link(bare, bare));
    else parent.append(all);
  }
  appendText(parent, text.slice(last));
  return parent;
}

function link(target, label) {
  return element("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, label || target);
}

// Two spaces at the end of a line, or a backslash, break it.
function appendText(parent, text) {
  const parts = text.replace(/\\([\\`*_{}[\]()#+\-.!|>~])/g, "$1").split(/(?: {2,}|\\)\n/);
  parts.forEach((part, at) => {
    if (at > 0) parent.append(element("br"));
    if (part) parent.append(part);
  });
}
