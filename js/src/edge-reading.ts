// What an edge of the circuit does: its effect, exact beside estimated, and which next tokens it
// moves.
import { type CircuitEdge, type CircuitNode, labelOf, strengthOf } from "./circuit-edges";
import { css, type Theme } from "./colour";
import { h, say, set, tokenText } from "./dom";
import { share, short, signed, single } from "./format";
import type { EdgeBody } from "./messages";
import { inkOf } from "./next-token";

export interface EdgeReading {
  element: HTMLElement;
  update(looked: Looked | null, unit: string, theme: Theme): void;
}

/** What is looked at. */
export type Looked =
  | {
      edge: CircuitEdge;
      /** Null while it is on its way. */
      body: EdgeBody | null;
      refused: string;
    }
  | { node: CircuitNode; edges: readonly CircuitEdge[] };

const TOKENS = 3;
const MOST = 4; // edges of a node

export const DISAGREE: Record<NonNullable<EdgeBody["disagree"]>, string> = {
  sign: "the estimate has the other sign",
  half: "the estimate is off by more than half",
};

export function edgeReading(): EdgeReading {
  const title = h("h3", { class: "pc-address-title" });
  const lines = h("dl", { class: "pc-reading-lines" });
  const tokens = h("p", { class: "pc-muted" });
  const flag = h("p", { class: "pc-flag" });
  const hint = h(
    "p",
    { class: "pc-muted" },
    "Point at an edge to see what it does; click an edge or a node to take it out, again to put it back.",
  );
  const error = h("p", { class: "pc-error", hidden: true });
  const element = h(
    "section",
    { class: "pc-edge-reading", "aria-label": "What is looked at", "aria-live": "polite" },
    hint,
    title,
    lines,
    flag,
    tokens,
    error,
  );

  const put = (
    entries: readonly (readonly [string, string, string | null, (string | undefined)?])[],
  ) => {
    lines.replaceChildren(
      ...entries.map(([name, value, title, colour]) => {
        const number = h("dd", { class: "pc-number", title }, value);
        if (colour !== undefined) number.style.color = colour;
        return h("div", {}, h("dt", {}, name), number);
      }),
    );
  };

  return {
    element,
    update(looked, unit, theme) {
      set(hint, { hidden: looked !== null });
      for (const part of [title, lines]) set(part, { hidden: looked === null });
      for (const part of [flag, tokens, error]) set(part, { hidden: true });
      if (looked === null) return;
      const ink = (value: number) => css(inkOf(value, theme));
      const number = (value: number) => `${signed(value)}${unit === "" ? "" : ` ${unit}`}`;
      if ("node" in looked) {
        const { node, edges } = looked;
        say(title, node.name === "" ? labelOf(node) : `${node.name} · ${node.address}`);
        const own = edges.filter((edge) => edge.from === node.id || edge.to === node.id);
        const best = own.slice(0, MOST);
        put(
          best.map((edge) => {
            const value = strengthOf(edge);
            return [edge.address, signed(value), single(value), ink(value)] as const;
          }),
        );
        const more = own.length - best.length;
        const out = node.inside ? "" : "Taken out of the circuit. ";
        say(tokens, `${out}${more > 0 ? `and ${more} weaker edges` : ""}`);
        set(tokens, { hidden: tokens.textContent === "" });
        return;
      }
      const { edge, body, refused } = looked;
      say(title, edge.address);
      const known = body?.exact ?? (Number.isNaN(edge.exact) ? null : edge.exact);
      const estimate = body?.estimate ?? edge.estimate;
      put([
        [
          "exact",
          known === null ? "…" : number(known),
          known === null ? null : single(known),
          known === null ? undefined : ink(known),
        ],
        ["estimate", Number.isNaN(estimate) ? "–" : number(estimate), single(estimate)],
        ...(body === null
          ? []
          : ([
              [
                "metric",
                `${short(body.before)} → ${short(body.after)}`,
                `${single(body.before)} → ${single(body.after)}`,
              ],
            ] as const)),
      ] as const);
      const disagree = body?.disagree ?? edge.disagree;
      say(flag, disagree === null ? "" : `⚑ ${DISAGREE[disagree]}`);
      set(flag, { hidden: disagree === null });
      if (body !== null && body.top.length > 0) {
        tokens.replaceChildren(
          ...body.top
            .slice(0, TOKENS)
            .flatMap((token, i) => [
              ...(i > 0 ? [", "] : []),
              h("span", { class: "pc-token-text" }, ...tokenText(token.text)),
              h("span", { class: "pc-number" }, ` ${share(token.before)} → ${share(token.after)}`),
            ]),
        );
        set(tokens, { hidden: false });
      }
      say(error, refused);
      set(error, { hidden: refused === "" });
    },
  };
}
