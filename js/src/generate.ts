// The prompt continued, baseline and clamped side by side, as tokens come in.
import { button, h, say, set, tokenText } from "./dom";
import { parse } from "./format";
import type { Generate, Generated, GeneratedText } from "./messages";

export interface Generation {
  element: HTMLElement;
  /** One more token. */
  take(message: Generated): void;
  /** Everything, as `hello` has it. */
  fill(sides: readonly GeneratedText[]): void;
  /** The prompt's last words, before which a continuation means nothing. */
  context(prompt: string): void;
  /** The stack has changed since: what is shown is not what it would say now. */
  outdated(is: boolean): void;
  running(): boolean;
  /** Python has stopped, or will not start. */
  end(): void;
  refuse(sentence: string): void;
}

export interface GenerationActions {
  run(settings: Pick<Generate, "count" | "seed" | "temperature">): Promise<unknown>;
  stop(): void;
}

type Side = Generated["side"];

export function generation(signal: AbortSignal, actions: GenerationActions): Generation {
  const field = (name: string, label: string, value: string, title: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number",
      "aria-label": name,
      value,
      title,
      autocomplete: "off",
      "data-live": true,
    });
    return { input, element: h("label", { class: "pc-field", title }, label, input) };
  };
  const count = field(
    "Number of tokens",
    "tokens",
    "40",
    "How many tokens to continue by, 1 to 2000",
  );
  const temperature = field(
    "Temperature",
    "temperature",
    "0",
    "0 always takes the most probable token; 1 samples as the model says",
  );
  const seed = field(
    "Seed",
    "seed",
    "0",
    "The same seed gives both sides the same luck, and again next time",
  );
  const run = button(
    "run",
    { "data-live": true, "aria-label": "run: continue the prompt" },
    () => void start(),
    signal,
  );
  const stop = button("stop", { "aria-label": "Stop continuing" }, () => actions.stop(), signal);
  stop.disabled = true;
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const line = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const contexts = [
    h("span", { class: "pc-context" }),
    h("span", { class: "pc-context" }),
  ] as const;
  const texts: Record<Side, HTMLElement> = {
    baseline: h("span", { class: "pc-continued" }),
    clamped: h("span", { class: "pc-continued" }),
  };
  const said: Record<Side, string> = { baseline: "", clamped: "" };
  const length: Record<Side, number> = { baseline: 0, clamped: 0 };
  const open: Record<Side, boolean> = { baseline: false, clamped: false };
  let total = 40;
  let asking = false;

  const sides = h(
    "div",
    { class: "pc-sides" },
    h(
      "div",
      { class: "pc-side", "data-side": "baseline" },
      h("div", { class: "pc-side-name pc-muted" }, "baseline"),
      h("p", { class: "pc-text" }, contexts[0], texts.baseline),
    ),
    h(
      "div",
      { class: "pc-side", "data-side": "clamped" },
      h("div", { class: "pc-side-name" }, "clamped"),
      h("p", { class: "pc-text" }, contexts[1], texts.clamped),
    ),
  );
  const element = h(
    "section",
    { class: "pc-generate", "aria-label": "Continuations" },
    h(
      "div",
      { class: "pc-line" },
      h("h3", { class: "pc-title" }, "continue"),
      count.element,
      temperature.element,
      seed.element,
      h("span", { class: "pc-group" }, run, stop),
    ),
    error,
    h("div", { class: "pc-part" }, line, sides),
  );
  for (const { input } of [count, temperature, seed]) {
    input.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Enter") void start();
      },
      { signal },
    );
  }

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }

  async function start(): Promise<void> {
    const [n, t, s] = [count, temperature, seed].map(({ input }) => parse(input.value)) as [
      number | null,
      number | null,
      number | null,
    ];
    if (n === null || !Number.isInteger(n) || n < 1 || n > 2000) {
      refuse(`“${count.input.value}” is no number of tokens; 1 to 2000 would be.`);
      return;
    }
    if (t === null || t < 0 || t > 100) {
      refuse(
        `“${temperature.input.value}” is no temperature; 0 (always the top token) to 100 would be.`,
      );
      return;
    }
    if (s === null || !Number.isInteger(s) || s < 0 || s >= 2 ** 32) {
      refuse(`“${seed.input.value}” is no seed; a whole number from 0 to 4294967295 would be.`);
      return;
    }
    refuse("");
    total = n;
    asking = true;
    state();
    try {
      await actions.run({ count: n, temperature: t, seed: s });
    } catch (refused) {
      asking = false;
      refuse((refused as Error).message);
      state();
    }
  }

  function running(): boolean {
    return asking || open.baseline || open.clamped;
  }

  function state(): void {
    stop.disabled = !running();
    set(line, { hidden: !running() });
    set(element, { "aria-busy": running() ? "true" : null });
    const done = length.baseline + length.clamped;
    line.style.width = asking ? "" : `${Math.min(100, (50 * done) / total)}%`;
  }

  /** Where the two sides part: before that, both say the same, and that recedes. */
  function paint(): void {
    const same = shared(said.baseline, said.clamped);
    for (const side of ["baseline", "clamped"] as const) {
      texts[side].replaceChildren(
        h("span", { class: "pc-same" }, ...visible(said[side].slice(0, same))),
        h("span", { class: "pc-own" }, ...visible(said[side].slice(same))),
        open[side] ? h("span", { class: "pc-caret", "aria-hidden": "true" }) : "",
      );
    }
  }

  return {
    element,
    take(message) {
      const { side } = message;
      asking = false;
      // A message may carry several tokens; then its index is the first one's.
      if (message.index === 0) said[side] = "";
      said[side] += message.text;
      length[side] = message.index + 1;
      open[side] = !message.done;
      set(element, { "data-stale": null });
      state();
      paint();
    },
    fill(given) {
      for (const each of given) {
        said[each.side] = each.text;
        length[each.side] = each.tokens;
        open[each.side] = !each.done;
      }
      state();
      paint();
    },
    context(prompt) {
      const tail = prompt.length > 60 ? `…${prompt.slice(-60).replace(/^\S*/, "")}` : prompt;
      for (const each of contexts)
        if (each.textContent !== tail) each.replaceChildren(...visible(tail));
    },
    outdated(is) {
      set(element, { "data-stale": is && !running() && said.clamped !== "" });
    },
    running,
    end() {
      asking = false;
      open.baseline = false;
      open.clamped = false;
      state();
      paint();
    },
    refuse,
  };
}

/** Running text: ordinary spaces, but a newline is seen before it breaks the line. */
function visible(text: string): (Node | string)[] {
  return text
    .split(/(\n)/)
    .filter((piece) => piece !== "")
    .flatMap((piece) => (piece === "\n" ? tokenText(piece) : [piece]));
}

/** How many characters two texts share at their beginning, in whole words. */
export function shared(a: string, b: string): number {
  if (a === b) return a.length;
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  // While one side is still behind, all of it is shared; otherwise go back to the word's start.
  if (same === a.length || same === b.length) return same;
  while (same > 0 && !/\s/.test(a[same] as string)) same -= 1;
  return same;
}
