// Composition of the locked head with all others: which earlier heads it reads, which later ones
// read it, through Q, K and V. Addresses are buttons that lock the head they name.
import { addressOf } from "./attention-picture";
import { button, h, say, set } from "./dom";
import { exact, short } from "./format";
import type { ComposeBody } from "./messages";
import type { Unpacked } from "./transport";

export interface Composition {
  element: HTMLElement;
  update(body: Unpacked<ComposeBody> | null, heads: number, waiting: boolean): void;
  refuse(sentence: string): void;
}

export interface CompositionActions {
  measure(): void;
  lock(layer: number, head: number): void;
}

const SHOWN = 3;
const WAYS = ["q", "k", "v"] as const;

export function composition(signal: AbortSignal, actions: CompositionActions): Composition {
  const measure = button(
    "measure",
    {
      class: "pc-button pc-measure",
      "data-live": true,
      "aria-label": "Measure composition with all other heads",
      title: "From the weights alone; measured again for each head that is locked",
    },
    () => actions.measure(),
    signal,
  );
  const note = h("span", { class: "pc-muted pc-small-print" });
  const rows = WAYS.map((way) => {
    const earlier = h("td");
    const later = h("td");
    const element = h("tr", {}, h("th", { scope: "row" }, way.toUpperCase()), earlier, later);
    return { way, earlier, later, element };
  });
  const table = h(
    "table",
    { class: "pc-composition", hidden: true },
    h("caption", { class: "pc-hidden" }, "Strongest composition with other heads"),
    h("colgroup", {}, h("col", { class: "pc-col-way" }), h("col"), h("col")),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("td"),
        h("th", { scope: "col" }, "reads earlier"),
        h("th", { scope: "col" }, "is read by later"),
      ),
    ),
    h("tbody", {}, ...rows.map((row) => row.element)),
  );
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const element = h(
    "section",
    { class: "pc-compose", "aria-label": "Composition" },
    h("div", { class: "pc-line" }, h("h3", { class: "pc-title" }, "composition"), measure, note),
    table,
    error,
  );
  let shown: Unpacked<ComposeBody> | null = null;

  element.addEventListener(
    "click",
    (event) => {
      const place = (event.target as Element).closest<HTMLElement>("[data-lock]")?.dataset.lock;
      const [layer, head] = place?.split(".").map(Number) ?? [];
      if (layer !== undefined && head !== undefined) actions.lock(layer, head);
    },
    { signal },
  );

  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };

  return {
    element,
    refuse,
    update(body, heads, waiting) {
      set(measure, { hidden: body !== null, "data-off": waiting });
      say(measure, waiting ? "…" : "measure");
      set(table, { hidden: body === null });
      say(note, body === null ? "" : "minus random");
      set(note, {
        title:
          body === null
            ? null
            : `Scores minus the mean of random matrices of the same shapes, ${exact(body.baseline)}`,
      });
      if (body === null || body === shown) {
        shown = body;
        return;
      }
      shown = body;
      refuse("");
      for (const { way, earlier, later } of rows) {
        const all = [...body[way]].map((value, i) => ({
          value,
          layer: Math.floor(i / heads),
          head: i % heads,
        }));
        const best = (part: typeof all) =>
          part
            .filter((each) => !Number.isNaN(each.value))
            .sort((a, b) => b.value - a.value)
            .slice(0, SHOWN)
            .map(({ layer, head, value }) => {
              const address = addressOf(layer, head);
              return h(
                "button",
                {
                  type: "button",
                  class: "pc-button pc-quiet pc-composed",
                  "data-lock": `${layer}.${head}`,
                  "data-live": true,
                  title: `${address}: ${exact(value)} by ${way.toUpperCase()}. Click locks it`,
                },
                h("span", { class: "pc-composed-name" }, address),
                h("span", { class: "pc-number" }, short(value)),
              );
            });
        const fill = (cell: HTMLElement, part: typeof all) => {
          const parts = best(part);
          cell.replaceChildren(...(parts.length > 0 ? parts : [h("span", {}, "–")]));
        };
        fill(
          earlier,
          all.filter((each) => each.layer < body.layer),
        );
        fill(
          later,
          all.filter((each) => each.layer > body.layer),
        );
      }
    },
  };
}
