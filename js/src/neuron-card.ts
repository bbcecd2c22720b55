// All about one neuron: the tokens its weights stand for, what it did on the corpus, what is like it,
// what it feeds, and what clamping it does to its token.
import type { AtlasPicture, NeuronCard, Shaded } from "./atlas-picture";
import { css, inkOn, oranges, redBlue, type Theme } from "./colour";
import { button, h, s, say, set, tokenText } from "./dom";
import { exact, percent, quoted, share, short, signed } from "./format";
import type { WeighBody } from "./messages";
import { type ActivationScale, activationColour, tokenLine } from "./token-line";

export interface NeuronCardPanel {
  element: HTMLElement;
  update(picture: AtlasPicture, theme: Theme): void;
  /** Says why something was not done, where it was asked for: at an example, or above. */
  refuse(sentence: string, place?: number): void;
}

export interface NeuronCardActions {
  meet(address: string): void;
  hold(address: string): void;
  /** Measures what clamping does to this token. */
  weigh(address: string, token: number): void;
  shade(address: string, place: number): void;
  close(): void;
}

const SIDE = { down: "writes", up: "reads (up)", gate: "reads (gate)" } as const;
const WIDE = 320;
const HIGH = 64;

export function neuronCard(signal: AbortSignal, actions: NeuronCardActions): NeuronCardPanel {
  const address = h("h3", { class: "pc-card-address pc-number" });
  const facts = h("span", { class: "pc-muted" });
  const hold = button(
    "clamp it",
    { "data-live": true, title: "Put it on a slider, in a NeuronClamp below" },
    () => card !== null && actions.hold(card.row.address),
    signal,
  );
  const weigh = button(
    "measure its effect",
    { "data-live": true, title: "Clamp it up and down and see what its token does" },
    () => token !== null && card !== null && actions.weigh(card.row.address, token),
    signal,
  );
  const close = button(
    "×",
    { class: "pc-button pc-quiet pc-to-end", "aria-label": "Close the card", "data-live": true },
    () => actions.close(),
    signal,
  );
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const note = h("p", { class: "pc-note", hidden: true });
  const decoded = h("dl", { class: "pc-decoded" });
  const effect = h("div", { class: "pc-weighed", hidden: true });
  const histogram = h("figure", { class: "pc-histogram", hidden: true });
  const examples = h("div", {
    class: "pc-card-examples",
    role: "group",
    "aria-label": "Examples of the corpus",
    tabindex: 0,
  });
  const near = h("div", { class: "pc-near" });
  const element = h(
    "section",
    { class: "pc-card", "aria-label": "One neuron", hidden: true },
    h(
      "div",
      { class: "pc-line" },
      address,
      facts,
      h("span", { class: "pc-group" }, hold, weigh),
      close,
    ),
    note,
    error,
    h(
      "div",
      { class: "pc-card-columns" },
      h("div", { class: "pc-card-side" }, decoded, histogram),
      h("div", { class: "pc-card-side" }, near, effect),
    ),
    examples,
  );
  let card: NeuronCard | null = null;
  /** The token whose effect is measured: chosen by hand, or the foremost. */
  let token: number | null = null;
  let drawn: unknown[] = [];
  let refused = { place: -1, sentence: "" };

  // Whatever is clicked in the lists: an address meets its neuron, an example is read again.
  element.addEventListener(
    "click",
    (event) => {
      const at = (event.target as Element).closest<HTMLElement>("[data-meet], [data-place]");
      if (at?.dataset.meet !== undefined) actions.meet(at.dataset.meet);
      const place = at?.dataset.place;
      if (place !== undefined && card !== null) actions.shade(card.row.address, Number(place));
    },
    { signal },
  );

  function show(now: NeuronCard, theme: Theme): void {
    const { row } = now;
    say(address, row.address);
    say(
      facts,
      [
        row.score === null ? "" : `special ${short(row.score)}`,
        row.firing === null ? "" : `fires at ${percent(row.firing)} of the tokens`,
        row.mean === null ? "" : `mean ${short(row.mean)}, sd ${short(row.sd ?? 0)}`,
        row.peak === null ? "" : `peak ${short(row.peak)}`,
      ]
        .filter((each) => each !== "")
        .join(" · "),
    );
    say(note, now.note);
    set(note, { hidden: now.note === "" });
    decoded.replaceChildren(...now.decoded.flatMap((side) => sideOf(side, theme)));
    showHistogram(now.histogram, theme);
    near.replaceChildren(
      ...list("writes like", "cosine of what they write", now.writes_like),
      ...list("fires like", "correlation over sampled tokens", now.fires_like),
      ...list("feeds", "what later neurons and heads read of what it writes", now.feeds),
      ...list("labels", "average precision", now.labels, false),
    );
  }

  function sideOf(side: NeuronCard["decoded"][number], theme: Theme): HTMLElement[] {
    const most = Math.max(...side.tokens.map((each) => Math.abs(each.z)), 1);
    const chips = side.tokens.map((each) => {
      const chip = h(
        "button",
        {
          type: "button",
          class: "pc-decoded-token",
          "data-live": true,
          "aria-pressed": each.id === token ? "true" : "false",
          // White space alone is no name.
          "aria-label": each.text.trim() === "" ? quoted(each.text) : null,
          title: `${quoted(each.text)} z = ${exact(each.z)}; click chooses it for the effect`,
        },
        ...tokenText(each.text),
      );
      const ground = redBlue(Math.max(-1, Math.min(1, each.z / most)), theme);
      chip.style.background = css(ground);
      chip.style.color = css(inkOn(ground, theme));
      chip.addEventListener(
        "click",
        () => {
          token = each.id;
          for (const other of decoded.querySelectorAll(".pc-decoded-token")) {
            set(other, { "aria-pressed": other === chip ? "true" : "false" });
          }
        },
        { signal },
      );
      return chip;
    });
    const arrow = side.sign < 0 ? "↓" : "↑";
    return [h("dt", { class: "pc-muted" }, `${SIDE[side.matrix]} ${arrow}`), h("dd", {}, ...chips)];
  }

  function showHistogram(now: NeuronCard["histogram"], theme: Theme): void {
    set(histogram, { hidden: now === null });
    if (now === null) return;
    const { counts, edges, quantiles } = now;
    const low = edges[0] ?? 0;
    const high = edges[edges.length - 1] ?? 1;
    const x = (value: number) => (WIDE * (value - low)) / (high - low || 1);
    const most = Math.log1p(Math.max(...counts));
    const bars = [...counts].map((count, i) => {
      const tall = (HIGH * Math.log1p(count)) / (most || 1);
      const from = edges[i] ?? 0;
      const to = edges[i + 1] ?? 0;
      const bar = s("rect", {
        x: x(from),
        y: HIGH - tall,
        width: Math.max(0.5, x(to) - x(from) - 0.5),
        height: tall,
        fill: css(oranges(0.6, theme)),
      });
      bar.append(
        s("title", {}, `${short(from)} to ${short(to)}: ${count.toLocaleString("en-US")}`),
      );
      return bar;
    });
    const marks = quantiles.map((value, i) =>
      s("line", {
        x1: x(value),
        x2: x(value),
        y1: i === 2 ? 0 : HIGH * 0.4,
        y2: HIGH,
        class: "pc-quantile",
      }),
    );
    const zero =
      low < 0 && high > 0
        ? [s("line", { x1: x(0), x2: x(0), y1: 0, y2: HIGH + 4, class: "pc-zero" })]
        : [];
    const svg = s(
      "svg",
      { viewBox: `0 0 ${WIDE} ${HIGH + 4}`, role: "img", "aria-label": "Histogram of its values" },
      ...bars,
      ...marks,
      ...zero,
    );
    histogram.replaceChildren(
      svg,
      h(
        "figcaption",
        {
          class: "pc-muted pc-small-print",
          title: `Lines at 1, 10, 50, 90 and 99 %, each right to ${share(now.error)} of itself; heights by logarithm`,
        },
        h("span", {}, short(low)),
        h("span", {}, `median ${short(quantiles[2] ?? 0)}`),
        h("span", {}, short(high)),
      ),
    );
  }

  function list(
    title: string,
    what: string,
    items: readonly NeuronCard["feeds"][number][],
    meets = true,
  ): HTMLElement[] {
    if (items.length === 0) return [];
    const parts = items.some((each) => each.address.includes(":"));
    const lines = items.map((each) => {
      const place = each.address.replace(/:.*$/, "");
      const name = meets && place.includes(".N");
      return h(
        "li",
        {},
        name
          ? h(
              "button",
              { type: "button", class: "pc-address", "data-meet": place, "data-live": true },
              each.address,
            )
          : h("span", { class: "pc-number" }, each.address),
        h("span", { class: "pc-number", title: exact(each.value) }, signed(each.value)),
        h(
          "span",
          { class: "pc-token-text pc-muted", title: each.token === "" ? null : quoted(each.token) },
          ...(each.token === "" ? [] : tokenText(each.token)),
        ),
      );
    });
    return [
      h(
        "div",
        {},
        h("h4", { class: "pc-title", title: what }, title),
        h("ul", { "data-parts": parts }, ...lines),
      ),
    ];
  }

  function showExamples(now: NeuronCard, shaded: ReadonlyMap<number, Shaded>, theme: Theme): void {
    const values = now.examples.map((each) => each.value);
    const scale: ActivationScale = { low: Math.min(0, ...values), high: Math.max(0, ...values) };
    const groups = new Map<string, HTMLElement[]>();
    for (const each of now.examples) {
      const whole = shaded.get(each.place);
      const group = groups.get(each.group) ?? [];
      group.push(example(each, whole, scale, theme));
      if (refused.place === each.place && refused.sentence !== "") {
        group.push(h("p", { class: "pc-error", role: "alert" }, refused.sentence));
      }
      groups.set(each.group, group);
    }
    const held = examples.querySelector<HTMLElement>("[data-place]:focus")?.dataset.place;
    const { scrollTop } = examples;
    examples.replaceChildren(
      ...[...groups].map(([name, parts]) =>
        h(
          "div",
          { class: "pc-atlas-group" },
          h("h4", { class: "pc-title" }, name === "top" ? "largest values" : `tokens at ${name}`),
          ...parts,
        ),
      ),
    );
    examples.scrollTop = scrollTop;
    // Who opened an example with a key goes on from it.
    if (held !== undefined) {
      examples.querySelector<HTMLElement>(`[data-place="${held}"]`)?.focus({ preventScroll: true });
    }
  }

  /** A line of a concordance; once it was read again, all of its window. */
  function example(
    each: NeuronCard["examples"][number],
    whole: Shaded | undefined,
    scale: ActivationScale,
    theme: Theme,
  ): HTMLElement {
    const text = h("span", { class: "pc-atlas-text", "data-whole": whole !== undefined });
    if (whole === undefined) {
      const ground = activationColour(each.value, scale, theme);
      const chip = h("mark", { class: "pc-shaded" }, ...tokenText(each.token));
      chip.style.background = css(ground);
      chip.style.color = css(inkOn(ground, theme));
      text.append(
        h("span", { class: "pc-atlas-before" }, h("span", {}, ...tokenText(each.before))),
        chip,
        h("span", { class: "pc-atlas-after" }, ...tokenText(each.after)),
      );
    } else {
      const line = tokenLine();
      line.update(whole.tokens, whole.values, scale, theme, whole.at);
      text.append(line.element);
    }
    return h(
      "button",
      {
        type: "button",
        class: "pc-atlas-example",
        "data-place": each.place,
        "data-live": true,
        "aria-expanded": whole === undefined ? "false" : "true",
        title: whole === undefined ? "Click reads the neuron at every token around it" : null,
      },
      h("span", { class: "pc-number pc-atlas-value", title: exact(each.value) }, short(each.value)),
      text,
    );
  }

  function showEffect(now: WeighBody | null, theme: Theme): void {
    set(effect, { hidden: now === null });
    if (now === null) return;
    const all = [now.neuron, ...now.controls];
    const most = Math.max(...all.flatMap((each) => [Math.abs(each.up), Math.abs(each.down)]), 1e-9);
    const bar = (value: number, control: boolean) => {
      const part = h("span", { class: "pc-lane-bar", "data-control": control });
      part.style.width = `${(50 * Math.abs(value)) / most}%`;
      part.style[value < 0 ? "right" : "left"] = "50%";
      if (!control) part.style.background = css(redBlue(value < 0 ? -0.8 : 0.8, theme));
      return h("span", { class: "pc-lane" }, part);
    };
    const lines = all.map((each, i) =>
      h(
        "tr",
        { "data-control": i > 0 },
        h("th", { scope: "row", class: "pc-number" }, each.address),
        h("td", {}, bar(each.up, i > 0)),
        h("td", { class: "pc-number pc-weighed-figure", title: exact(each.up) }, signed(each.up)),
        h("td", {}, bar(each.down, i > 0)),
        h(
          "td",
          { class: "pc-number pc-weighed-figure", title: exact(each.down) },
          signed(each.down),
        ),
      ),
    );
    effect.replaceChildren(
      h(
        "p",
        {},
        "log p(",
        h("span", { class: "pc-number" }, ...tokenText(now.token)),
        `) when clamped to ${short(now.value)} and ${short(-now.value)}, nats, mean over ${now.prompts} prompts`,
      ),
      h(
        "table",
        {},
        h("caption", { class: "pc-hidden" }, "The neuron and random neurons of its layer"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", {}, h("span", { class: "pc-hidden" }, "neuron")),
            h("th", { scope: "col" }, "up"),
            h("td", { class: "pc-weighed-figure" }),
            h("th", { scope: "col" }, "down"),
            h("td", { class: "pc-weighed-figure" }),
          ),
        ),
        h("tbody", {}, ...lines),
      ),
      h(
        "p",
        { class: "pc-muted pc-small-print" },
        `hatched: random neurons of the layer. ${now.note}`,
      ),
    );
  }

  return {
    element,
    refuse(sentence, place = -1) {
      refused = { place, sentence: place < 0 ? "" : sentence };
      const above = place < 0 ? sentence : "";
      say(error, above);
      set(error, { hidden: above === "" });
    },
    update(picture, theme) {
      const next = picture.card;
      set(element, { hidden: next === null });
      if (next === null) {
        card = null;
        return;
      }
      if (next !== card) {
        card = next;
        const written = next.decoded.find((side) => side.matrix === "down");
        const sides = next.decoded.filter((side) => side.matrix === (written?.matrix ?? "up"));
        const first = sides.map((side) => side.tokens[0]).filter((each) => each !== undefined);
        first.sort((a, b) => Math.abs(b.z) - Math.abs(a.z));
        token = first[0]?.id ?? null;
        refused = { place: -1, sentence: "" };
        say(error, "");
        set(error, { hidden: true });
      }
      set(weigh, { "data-off": token === null });
      const now = [next, theme, picture.weighed, picture.shaded.size, refused];
      if (now.every((each, i) => each === drawn[i])) return;
      if (now[0] !== drawn[0] || now[1] !== drawn[1]) show(next, theme);
      showExamples(next, picture.shaded, theme);
      showEffect(picture.weighed, theme);
      drawn = now;
    },
  };
}
