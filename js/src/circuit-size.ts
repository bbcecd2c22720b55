// How large the circuit is: a slider on a logarithm of sizes that lies over the curve of faithfulness,
// what threshold that is, and what the circuit keeps, measured exactly.
import { onResize } from "./canvas";
import { thresholdOf } from "./circuit-edges";
import type { CircuitPicture } from "./circuit-picture";
import { css, type Theme } from "./colour";
import { lineColours } from "./curve";
import { button, focused, h, say, set } from "./dom";
import { faithfulnessPlot, readAt, shareOf, sizeAt } from "./faithfulness-plot";
import { exact, parse, short } from "./format";
import type { Checked } from "./messages";
import { type Format, saveButtons } from "./save-buttons";
import { keyItem } from "./stack-section";

export interface CircuitSize {
  element: HTMLElement;
  /** `size`: what is wanted, before Python has confirmed it. */
  update(picture: CircuitPicture, size: number): void;
  paint(theme: Theme): void;
  refuse(sentence: string): void;
  /** Whether somebody holds the slider. */
  dragging(): boolean;
  drawn(): { svg: SVGSVGElement; width: number; height: number } | null;
}

export interface CircuitSizeActions {
  /** `final` ends the gesture. */
  size(count: number, final: boolean): void;
  /** Measures the curve. */
  check(): void;
  save(format: Format): void;
}

const STEPS = 1000;

export function circuitSize(signal: AbortSignal, actions: CircuitSizeActions): CircuitSize {
  let total = 1;
  let now = 0;
  let held = false;
  let picture: CircuitPicture | null = null;
  let theme: Theme | null = null;

  const slider = h("input", {
    type: "range",
    class: "pc-slider pc-size-slider",
    min: 0,
    max: STEPS,
    step: 1,
    "aria-label": "Size of the circuit",
    "data-live": true,
  });
  const box = h("input", {
    type: "text",
    inputmode: "numeric",
    class: "pc-input pc-box pc-number pc-size-box",
    "aria-label": "Edges in the circuit",
    autocomplete: "off",
    "data-live": true,
  });
  const of = h("span");
  const threshold = h("span", { class: "pc-muted" });
  const byHand = h("p", { class: "pc-muted pc-small-print" });
  const plot = faithfulnessPlot();
  const area = h("div", { class: "pc-plot-box" });
  area.append(plot.element, slider);
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const measure = button("", { "data-live": true }, () => actions.check(), signal);
  const legend = h("span", { class: "pc-key pc-muted" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const note = h("p", { class: "pc-muted pc-small-print" });
  const rows = {
    clean: line("clean", "The metric with nothing replaced"),
    circuit: line(
      "the circuit alone",
      "The metric with everything outside of the circuit replaced",
    ),
    without: line(
      "all but the circuit",
      "The metric with the circuit replaced and the rest as it is",
    ),
    corrupt: line("all replaced", "The metric with everything replaced"),
  };
  const table = h(
    "table",
    { class: "pc-checked" },
    h("caption", { class: "pc-hidden" }, "What the circuit keeps of the metric"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "measured exactly"),
        h("th", {}, h("span", { class: "pc-hidden" }, "bar")),
        h("th", { scope: "col", class: "pc-figure" }, "metric"),
        h(
          "th",
          { scope: "col", class: "pc-figure", title: "Of what separates clean from corrupt" },
          "share",
        ),
      ),
    ),
    h("tbody", {}, ...Object.values(rows).map((row) => row.element)),
  );
  const element = h(
    "section",
    { class: "pc-part pc-circuit-size", "aria-label": "Size of the circuit" },
    h(
      "div",
      { class: "pc-line" },
      box,
      of,
      threshold,
      h("span", { class: "pc-group pc-to-end" }, ...saveButtons("the curve", actions.save, signal)),
    ),
    byHand,
    h("div", { class: "pc-part" }, run, area),
    h("div", { class: "pc-line" }, legend, measure),
    note,
    error,
    table,
  );

  function line(name: string, title: string) {
    const bar = h("span", { class: "pc-kept-bar" });
    const value = h("td", { class: "pc-figure pc-number" });
    const share = h("td", { class: "pc-figure pc-number" });
    const element = h(
      "tr",
      { title },
      h("th", { scope: "row" }, name),
      h("td", { class: "pc-kept", "aria-hidden": "true" }, bar),
      value,
      share,
    );
    return {
      element,
      update(metric: number | null, of: number | null, colour: string) {
        say(value, metric === null ? "–" : short(metric));
        say(share, of === null ? "–" : short(of));
        set(value, { title: metric === null ? null : exact(metric) });
        set(share, { title: of === null ? null : exact(of) });
        const to = Math.min(1, Math.max(0, of ?? 0));
        bar.style.width = `${100 * to}%`;
        bar.style.backgroundColor = colour;
      },
    };
  }

  // --- the slider ---
  const go = (size: number, final: boolean) => {
    const next = Math.min(total, Math.max(0, Math.round(size)));
    now = next;
    refuse(""); // now, and not when it is answered: what was typed since may be wrong
    actions.size(next, final);
  };
  slider.addEventListener(
    "pointerdown",
    () => {
      held = true;
    },
    { signal },
  );
  const letGo = () => {
    held = false;
  };
  document.addEventListener("pointerup", letGo, { signal });
  document.addEventListener("pointercancel", letGo, { signal });
  slider.addEventListener("input", () => go(sizeAt(Number(slider.value) / STEPS, total), false), {
    signal,
  });
  slider.addEventListener(
    "change",
    () => {
      held = false;
      go(now, true);
    },
    { signal },
  );
  slider.addEventListener(
    "keydown",
    (event) => {
      // A step is one edge where there are few, and a twentieth of them where there are many.
      const step = Math.max(1, Math.round(now * 0.05));
      const to = {
        ArrowRight: now + step,
        ArrowUp: now + step,
        ArrowLeft: now - step,
        ArrowDown: now - step,
        PageUp: now * 2,
        PageDown: now / 2,
        Home: 0,
        End: total,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      go(to, true);
    },
    { signal },
  );
  box.addEventListener(
    "change",
    () => {
      const size = parse(box.value.replaceAll(",", ""));
      if (size === null || !Number.isInteger(size) || size < 0) {
        refuse(`“${box.value}” is no size of a circuit; ${Math.min(100, total)} would be.`);
        return;
      }
      go(size, true);
    },
    { signal },
  );
  box.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape") return;
      box.value = String(now);
      refuse("");
      event.stopPropagation();
    },
    { signal },
  );

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
    set(box, { "aria-invalid": sentence === "" ? null : "true" });
  }

  function draw(): void {
    if (picture === null || theme === null || picture.graph === null) return;
    const { faithful, circuit } = picture;
    const unit = Number.parseFloat(getComputedStyle(area).fontSize) / 13;
    const checked = checkedNow(picture, now);
    plot.draw(
      {
        total,
        curve: faithful,
        stale: faithful !== null && faithful.revision < (circuit?.holds_since.graph ?? 0),
        size: now,
        checked,
        width: area.clientWidth,
        unit,
      },
      theme,
    );
  }
  onResize(area, draw, signal);

  return {
    element,
    refuse,
    dragging: () => held,
    drawn: () =>
      picture?.graph == null
        ? null
        : { svg: plot.element, width: area.clientWidth, height: area.clientHeight },
    update(next, size) {
      picture = next;
      now = size;
      const { graph, circuit, faithful } = next;
      if (graph === null || circuit === null) return;
      total = graph.sizes.at(-1) ?? graph.total;
      if (!held) slider.value = String(Math.round(STEPS * shareOf(size, total)));
      const selection = circuit.selection;
      if (focused(element) !== box) box.value = size.toLocaleString("en-US");
      const share = total > 0 ? `${short((100 * size) / total)} %` : "";
      const what = graph.of;
      set(box, { "aria-label": `${what === "nodes" ? "Nodes" : "Edges"} in the circuit` });
      say(of, `of ${total.toLocaleString("en-US")} ${what}, ${share}`);
      const least = thresholdOf(graph, size);
      const unit = circuit.unit === "" ? "" : ` ${circuit.unit}`;
      say(
        threshold,
        size < 1 || Number.isNaN(least) ? "" : `effect of at least ${short(least)}${unit}`,
      );
      set(threshold, { title: Number.isNaN(least) ? null : exact(least) });
      set(slider, {
        "aria-valuetext": `${size.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} ${what}, ${threshold.textContent}`,
      });
      const [added, removed] = [selection?.added.length ?? 0, selection?.removed.length ?? 0];
      const edges = selection?.edges ?? size;
      say(
        byHand,
        added + removed === 0 || selection === null
          ? ""
          : `Switched by hand: ${removed} out, ${added} in; that leaves ${edges.toLocaleString("en-US")} edges.`,
      );
      set(byHand, { hidden: byHand.textContent === "" });

      const progress = next.progress.get("faithful") ?? null;
      set(run, { hidden: progress === null });
      if (progress !== null) {
        run.style.width = `${(100 * progress.done) / Math.max(1, progress.total)}%`;
      }
      const stale = faithful !== null && faithful.revision < circuit.holds_since.graph;
      const whole = faithful !== null && faithful.done >= faithful.total && !stale;
      say(measure, faithful === null ? "measure the curve" : stale ? "measure again" : "go on");
      set(measure, {
        hidden: whole || progress !== null,
        title:
          "Faithfulness at sizes from one edge to all, beside random circuits of the same size",
      });
      const checked = checkedNow(next, size);
      const guess =
        checked === null && faithful !== null
          ? readAt(faithful.sizes, faithful.faithfulness, size)
          : null;
      const seeds =
        faithful === null
          ? ""
          : `Random circuits: ${faithful.seeds} of each size, with as many edges into each layer’s readers.`;
      const waits =
        guess === null ? "" : `By the curve it keeps about ${short(guess)}; measuring it exactly. `;
      say(note, waits + seeds);
      set(note, { hidden: note.textContent === "" });
      showChecked(next.checked, checked === null);
      draw();
    },
    paint(next) {
      theme = next;
      const { logprob, kl } = lineColours(theme);
      legend.replaceChildren(
        keyItem("line", "faithfulness", css(logprob)),
        keyItem("dash", "completeness", css(kl)),
        keyItem("control", "random circuits"),
      );
      draw();
    },
  };

  function showChecked(checked: Checked | null, old: boolean): void {
    set(table, { "data-stale": old && checked !== null });
    if (theme === null) return;
    const { logprob, kl } = lineColours(theme);
    const grey = "var(--pc-before)";
    const differ = checked !== null && checked.clean !== checked.corrupt;
    rows.clean.update(checked?.clean ?? null, differ ? 1 : null, grey);
    rows.circuit.update(checked?.circuit ?? null, checked?.faithfulness ?? null, css(logprob));
    rows.without.update(checked?.without ?? null, checked?.completeness ?? null, css(kl));
    rows.corrupt.update(checked?.corrupt ?? null, differ ? 0 : null, grey);
  }
}

/** What was measured of the circuit as it is; null while that is on its way. */
export function checkedNow(picture: CircuitPicture, size: number): Checked | null {
  const { checked, circuit } = picture;
  const selection = circuit?.selection ?? null;
  if (checked === null || circuit === null || selection === null) return null;
  const fresh = checked.revision >= circuit.holds_since.checked;
  return fresh && selection.size === size && checked.edges === selection.edges ? checked : null;
}
