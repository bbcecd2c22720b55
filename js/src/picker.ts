// Adding a neuron: typed with completion, or picked from the prompt's neurons by what they do.

import { carry } from "./address";
import { css, oranges, redBlue, type Theme } from "./colour";
import { combobox } from "./combobox";
import { button, h, say, select, set } from "./dom";
import { exact, quoted, short, signed } from "./format";
import type { Add, PromptToken, Rank, RankBody } from "./messages";
import type { Requests } from "./requests";

export interface Picker {
  element: HTMLElement;
  update(
    tokens: readonly PromptToken[],
    directions: readonly string[],
    on: ReadonlySet<string>,
  ): void;
  /** The selection of tokens has changed. */
  selected(): void;
  /** Ranking goes on: done of total; null when it does not. */
  progress(progress: { done: number; total: number } | null): void;
  paint(theme: Theme): void;
  /** Puts a neuron, or a direction, at the end of the stack. */
  add(address: string): void;
  /** Lists the prompt's neurons. */
  rank(by: Rank["by"]): void;
}

export interface PickerActions {
  requests: Requests;
  selectedTokens(): number[];
  announce(text: string): void;
}

const MEASURES: readonly (readonly [Rank["by"], string, string])[] = [
  ["activation", "activation", "The neurons that are most active on the prompt"],
  ["direct", "direct effect", "What each neuron writes straight to the top token's logit"],
  [
    "gradient",
    "gradient",
    "Gradient times activation: the first-order estimate of each neuron's effect",
  ],
];

export function picker(signal: AbortSignal, actions: PickerActions): Picker {
  const { requests } = actions;
  let by: Rank["by"] | null = null;
  let ranked: RankBody | null = null;
  let theme: Theme | null = null;
  let present: ReadonlySet<string> = new Set();
  let tokens: readonly PromptToken[] = [];
  let directions: readonly string[] = [];
  let asked = 0;

  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
    set(box.input, { "aria-invalid": sentence === "" ? null : "true" });
  };
  const operation = select(
    [
      ["set", "set"],
      ["add", "add"],
      ["scale", "scale"],
      ["ablate", "ablate"],
    ],
    { "aria-label": "What the new row does", "data-live": true },
    () => undefined,
    signal,
  );
  const where = h("span", { class: "pc-muted" });

  const add = async (typed: string): Promise<void> => {
    const at = actions.selectedTokens();
    const address = typed.includes("@") || at.length === 0 ? typed : `${typed}@${at.join(",")}`;
    try {
      const body = await requests.ask({
        kind: "add",
        address,
        op: operation.value as NonNullable<Add["op"]>,
      });
      refuse("");
      box.clear();
      actions.announce(body?.existed ? `${address} is in the stack already` : `Added ${address}`);
    } catch (refused) {
      refuse((refused as Error).message);
    }
  };

  const box = combobox({
    name: "Add a neuron by its address",
    placeholder: "L12.N304",
    signal,
    take: (value) => void add(value),
    async suggest(typed) {
      const prefix = typed.trim();
      refuse("");
      const own = directions.filter((each) => each.startsWith(prefix));
      if (prefix === "") return own.map((each) => ({ value: each, content: [each] }));
      const { items } = await requests.ask({ kind: "complete", prefix });
      return [...new Set([...own, ...items])].map((each) => ({ value: each, content: [each] }));
    },
  });

  const measures = MEASURES.map(([name, label, title]) =>
    button(
      label,
      { class: "pc-button pc-choice", title, "aria-pressed": "false", "data-live": true },
      () => {
        if (by === name) close();
        else void rank(name);
      },
      signal,
    ),
  );
  const massive = h("input", { type: "checkbox", "data-live": true });
  massive.addEventListener("change", () => (by === null ? undefined : void rank(by)), { signal });
  const massiveLabel = h(
    "label",
    {
      class: "pc-check",
      title:
        "A handful of neurons carry massive activations and wreck everything when touched; rankings and random controls leave them out",
    },
    massive,
    "massive neurons too",
  );
  const heading = h("span", { class: "pc-muted" });
  const items = h("ol", { class: "pc-ranked" });
  const line = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const shut = button("close", { class: "pc-button pc-quiet" }, () => close(), signal);
  const list = h(
    "div",
    { class: "pc-ranking", hidden: true },
    line,
    h("div", { class: "pc-ranking-head" }, heading, massiveLabel, shut),
    items,
  );
  const element = h(
    "section",
    { class: "pc-picker", "aria-label": "Add a neuron" },
    h(
      "div",
      { class: "pc-line" },
      h("span", { class: "pc-word" }, "+ add"),
      operation,
      box.element,
      where,
      h(
        "span",
        { class: "pc-from" },
        h("span", { class: "pc-word" }, "or from"),
        h(
          "span",
          { class: "pc-group", role: "group", "aria-label": "Rank the prompt's neurons by" },
          ...measures,
        ),
      ),
    ),
    error,
    list,
  );

  items.addEventListener(
    "click",
    (event) => {
      const address = (event.target as Element).closest<HTMLElement>("[data-address]")?.dataset
        .address;
      if (address !== undefined) void add(address);
    },
    { signal },
  );
  items.addEventListener(
    "dragstart",
    (event) => {
      const address = (event.target as Element).closest<HTMLElement>("[data-address]")?.dataset
        .address;
      if (address !== undefined) carry(event, address);
    },
    { signal },
  );

  function close(): void {
    by = null;
    asked += 1;
    set(list, { hidden: true });
    press();
  }

  function press(): void {
    measures.forEach((each, i) => {
      set(each, { "aria-pressed": MEASURES[i]?.[0] === by ? "true" : "false" });
    });
  }

  async function rank(next: Rank["by"]): Promise<void> {
    by = next;
    asked += 1;
    const mine = asked;
    press();
    const position = actions.selectedTokens().at(-1) ?? -1;
    const token = tokens.find((each) => each.position === position);
    const place =
      token === undefined
        ? "at the last token"
        : `at position ${position}, ${token.bos ? "BOS" : quoted(token.text)}`;
    const label = MEASURES.find(([name]) => name === next)?.[1] ?? next;
    say(heading, `by ${label}, ${place}`);
    set(list, { hidden: false, "data-stale": ranked !== null, "aria-busy": "true" });
    const slow = setTimeout(() => set(line, { hidden: false }), 150);
    try {
      const body = await requests.ask({
        kind: "rank",
        by: next,
        position,
        count: 20,
        massive: massive.checked,
      });
      if (mine !== asked) return;
      ranked = body;
      refuse("");
      show();
    } catch (refused) {
      if (mine !== asked) return;
      if (ranked === null) close();
      refuse((refused as Error).message);
    } finally {
      clearTimeout(slow);
      if (mine === asked) {
        set(line, { hidden: true });
        set(list, { "data-stale": null, "aria-busy": null });
      }
    }
  }

  function show(): void {
    if (ranked === null || theme === null) return;
    const now = theme;
    const most = Math.max(1e-9, ...ranked.items.map((item) => Math.abs(item.value)));
    const isSigned = ranked.by !== "activation";
    items.replaceChildren(
      ...ranked.items.map((item) => {
        const bar = h("span", { class: "pc-ranked-bar" });
        const size = item.value / most;
        bar.style.width = `${100 * Math.abs(size)}%`;
        bar.style.backgroundColor = css(
          isSigned ? redBlue(size < 0 ? -1 : 1, now) : oranges(0.75, now),
        );
        const value = isSigned ? signed(item.value) : short(item.value);
        return h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: "pc-button pc-pick",
              draggable: "true",
              "data-address": item.address,
              "data-live": true,
              "data-present": present.has(bare(item.address)),
              title: `${item.address}: ${exact(item.value)}${item.massive ? "\nA massive-activation neuron" : ""}\nClick adds it`,
            },
            h(
              "span",
              { class: "pc-pick-name" },
              item.massive ? `${bare(item.address)} ▲` : bare(item.address),
            ),
            h("span", { class: "pc-pick-axis", "aria-hidden": "true" }, bar),
            h("span", { class: "pc-number" }, value),
          ),
        );
      }),
    );
    if (ranked.items.length === 0) {
      items.replaceChildren(h("li", { class: "pc-muted" }, "No neuron to list."));
    }
  }

  const showWhere = () => {
    const at = actions.selectedTokens();
    say(
      where,
      at.length === 0 ? "" : `at ${at.length > 6 ? `${at.length} tokens` : at.join(", ")}`,
    );
    set(where, {
      title: at.length === 0 ? null : "New rows touch the selected tokens only",
      hidden: at.length === 0,
    });
  };

  return {
    element,
    update(nextTokens, nextDirections, on) {
      const before = present;
      const fresh = tokens !== nextTokens && tokens.length > 0;
      const same = fresh && tokens.every((token, i) => token.id === nextTokens[i]?.id);
      const other = fresh && !(same && tokens.length === nextTokens.length);
      tokens = nextTokens;
      directions = nextDirections;
      present = on;
      if (other && ranked !== null) {
        // Another prompt's ranking is no ranking.
        ranked = null;
        if (by === null) items.replaceChildren();
        else void rank(by);
      } else if ([...on].join() !== [...before].join()) show();
    },
    selected() {
      showWhere();
      if (by !== null) void rank(by);
    },
    progress(progress) {
      line.style.width =
        progress === null ? "" : `${(100 * progress.done) / Math.max(1, progress.total)}%`;
    },
    paint(next) {
      theme = next;
      show();
    },
    add: (address) => void add(address),
    rank: (measure) => void rank(measure),
  };
}

/** An address without its positions, which a ranking's heading has said already. */
function bare(address: string): string {
  return address.replace(/@.*$/, "");
}
