// The panel of the stream: what the engine does for the tokens that come, told from its own figures.

import { element } from "./markdown.js";
import { get } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const PERIOD_MS = 500;
const KEPT = 120;

// Parts of a token's time, as the engine names them, in the words of a person.
const PARTS = [
  ["c3", "waiting for the disk", ["expert_wait"]],
  ["c2", "experts", ["experts", "shared_expert"]],
  ["c1", "attention and state", ["mixer"]],
  ["c4", "router, head, sampling", ["router", "head", "sampling", "prefetch", "draft"]],
  ["c5", "not accounted for", ["unaccounted"]],
];

const number = (value, digits = 1) => Number(value).toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const bytes = (value) => {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at++; }
  return `${number(value, at > 1 ? 1 : 0)} ${units[at]}`;
};

export class Panel {
  constructor(root) {
    this.root = root;
    this.speeds = [];
    this.last = null;
    this.timer = null;
    this.isAsking = false;
    this.build();
  }

  build() {
    this.speed = element("div", { class: "big" }, "–");
    this.limit = element("p", { class: "note" }, "No answer yet.");
    this.spark = document.createElementNS(SVG, "svg");
    this.spark.setAttribute("class", "spark");
    this.spark.setAttribute("viewBox", "0 0 100 30");
    this.spark.setAttribute("preserveAspectRatio", "none");
    this.spark.setAttribute("aria-hidden", "true");
    this.hits = element("div", { class: "stack" });
    this.hitsKey = element("div", { class: "key" });
    this.disk = element("div", { class: "big" }, "–");
    this.diskNote = element("p", { class: "note" }, "");
    this.times = element("div", { class: "stack" });
    this.timesKey = element("div", { class: "key" });
    this.memory = element("p", { class: "note" }, "");
    this.root.replaceChildren(
      element("h2", {}, "What the engine does"),
      element("h3", {}, "Speed of the answer"), this.speed, this.limit, this.spark,
      element("h3", {}, "Experts that were in memory"), this.hits, this.hitsKey,
      element("h3", {}, "Read from the disk"), this.disk, this.diskNote,
      element("h3", {}, "Where a token's time goes"), this.times, this.timesKey,
      element("h3", {}, "Memory"), this.memory);
    this.timesNote();
  }

  timesNote() {
    if (!this.times.childNodes.length) this.timesKey.replaceChildren(element("i"), element("span", { class: "muted" }, "told when an answer has ended"), element("span"));
  }

  get isOpen() { return !this.root.hidden; }

  open() {
    this.root.hidden = false;
    this.poll();
    this.timer ??= setInterval(() => this.poll(), PERIOD_MS);
  }

  close() {
    this.root.hidden = true;
    clearInterval(this.timer);
    this.timer = null;
    this.last = null;
  }

  async poll() {
    if (this.isAsking) return; // answers of a slow server would overtake each other
    this.isAsking = true;
    let figures;
    try {
      figures = await get("/figures");
    } catch {
      return; // the status line tells that the server is away
    } finally {
      this.isAsking = false;
    }
    const now = performance.now();
    const before = this.last;
    this.last = { figures, now };
    this.showMemory(figures);
    if (!before) return;
    const seconds = (now - before.now) / 1000;
    const tokens = figures.answer_tokens - before.figures.answer_tokens;
    const read = figures.store.bytes_read - before.figures.store.bytes_read;
    const hits = figures.store.hits - before.figures.store.hits;
    const misses = figures.store.misses - before.figures.store.misses;
    const isBusy = figures.running > 0 || tokens > 0;
    if (isBusy) this.addSpeed(tokens / seconds);
    if (hits + misses > 0) this.showHits(hits, misses);
    this.disk.replaceChildren(number(read / seconds / 1e9, 2), element("small", {}, " GB/s"));
    this.diskNote.textContent = `${bytes(figures.store.bytes_read)} since the start`;
  }

  addSpeed(tokensPerSecond) {
    this.speeds.push(tokensPerSecond);
    this.speeds = this.speeds.slice(-KEPT);
    const recent = this.speeds.slice(-4);
    const mean = recent.reduce((sum, value) => sum + value, 0) / recent.length;
    this.speed.replaceChildren(number(mean), element("small", {}, " tokens/s"));
    this.drawSpark();
  }

  drawSpark() {
    const top = Math.max(...this.speeds, 1e-9);
    const step = 100 / Math.max(this.speeds.length - 1, 1);
    const points = this.speeds.map((value, at) => `${(at * step).toFixed(2)},${(29 - 27 * (value / top)).toFixed(2)}`);
    const path = (data, name) => {
      const node = document.createElementNS(SVG, "path");
      node.setAttribute("d", data);
      if (name) node.setAttribute("class", name);
      return node;
    };
    this.spark.replaceChildren(path(`M0,30 L${points.join(" L")} L100,30 Z`, "area"), path(`M${points.join(" L")}`));
  }

  showHits(hits, misses) {
    const rate = hits / (hits + misses);
    this.hits.replaceChildren(bar("hit", rate), bar("miss", 1 - rate));
    this.hitsKey.replaceChildren(
      ...entry("hit", "in memory", `${number(100 * rate)} %`),
      ...entry("miss", "read for this", `${number(100 * (1 - rate))} %`));
  }

  showMemory(figures) {
    this.memory.textContent =
      `${figures.num_slots.toLocaleString("en")} of ${figures.num_experts.toLocaleString("en")} experts fit; ` +
      `${bytes(figures.memory_used_bytes)} planned of a budget of ${bytes(figures.memory_budget_bytes)}.`;
  }

  // The figures of an answer that has ended.
  showTimings(timings) {
    const waits = timings.penstock?.answer_waits_ms;
    const count = timings.predicted_n;
    if (!waits || !count || !waits.wall) return;
    const rate = timings.predicted_per_second;
    this.speed.replaceChildren(number(rate), element("small", {}, " tokens/s"));
    const free = waits.wall - waits.expert_wait;
    this.limit.textContent = free > 0
      ? `${number((1000 * count) / free)} tokens/s if no token had waited for the disk`
      : "";
    const parts = PARTS.map(([color, name, keys]) => [color, name, keys.reduce((sum, key) => sum + Math.max(waits[key] ?? 0, 0), 0)]);
    const total = parts.reduce((sum, part) => sum + part[2], 0) || 1;
    this.times.replaceChildren(...parts.map(([color, , ms]) => bar(color, ms / total)));
    this.timesKey.replaceChildren(...parts.flatMap(([color, name, ms]) => entry(color, name, `${number(ms / count, 2)} ms`)));
  }
}

function bar(color, share) {
  const node = element("i", { class: color });
  node.style.width = `${100 * share}%`;
  return node;
}

const entry = (color, name, value) => [element("i", { class: color }), element("span", {}, name), element("span", {}, value)];
