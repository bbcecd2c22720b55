// The graph as two lists, for who cannot see or hit it: its nodes, to switch, name, group and pin,
// and its edges with their effects.
import { addressButton } from "./address";
import { capped } from "./capped";
import {
  type Addresses,
  type CircuitEdge,
  type CircuitNode,
  labelOf,
  strengthOf,
} from "./circuit-edges";
import { groupColour, groupsOf } from "./circuit-graph";
import { css, type Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { DISAGREE } from "./edge-reading";
import { signedBar } from "./effect";
import { count, signed, single } from "./format";
import type { Annotate } from "./messages";
import { segments } from "./segments";

export interface CircuitList {
  element: HTMLElement;
  update(
    nodes: readonly CircuitNode[],
    edges: readonly CircuitEdge[],
    /** Of how many these are the strongest. */
    total: number,
    chosen: string | null,
    theme: Theme,
  ): void;
  /** Opens the form of a node and puts the cursor there. */
  edit(id: string): void;
}

export interface CircuitListActions {
  switch(addresses: Addresses): void;
  annotate(gesture: Omit<Annotate, "id" | "kind">): void;
  /** A node's id or an edge's address is pointed at, or has the focus. */
  look(what: string | null): void;
  choose(id: string | null): void;
  changed(): void;
}

const SHOWN = 80;

export function circuitList(signal: AbortSignal, actions: CircuitListActions): CircuitList {
  let of: "nodes" | "edges" = "nodes";
  let groups: string[] = [];
  let theme: Theme | null = null;

  const kinds = segments<"nodes" | "edges">(
    "What is listed",
    [
      { value: "nodes", label: "nodes", title: "Name, group, pin and switch nodes" },
      { value: "edges", label: "edges", title: "Effects of edges, strongest first" },
    ],
    (next) => {
      of = next;
      actions.changed();
    },
    { signal, live: false },
  );
  const nodeLines = new Map<string | number, NodeLine>();
  const edgeLines = new Map<string | number, EdgeLine>();
  const nodeList = h("ul", { class: "pc-circuit-nodes", "aria-label": "Nodes of the circuit" });
  const edgeList = h("ul", { class: "pc-circuit-edges", "aria-label": "Edges of the circuit" });
  const scroll = h("div", { class: "pc-list-scroll" }, nodeList, edgeList);
  const nodeLimit = capped(signal, "nodes", SHOWN, actions.changed);
  const edgeLimit = capped(signal, "edges", SHOWN, actions.changed, () => "the strongest");
  const known = h("datalist", { id: `pc-groups-${Math.floor(Math.random() * 1e9)}` });
  const element = h(
    "section",
    { class: "pc-circuit-list", "aria-label": "Nodes and edges" },
    h("div", { class: "pc-line" }, kinds.element),
    scroll,
    nodeLimit.element,
    edgeLimit.element,
    known,
  );

  interface NodeLine {
    element: HTMLElement;
    dispose(): void;
    update(node: CircuitNode, chosen: boolean): void;
    focus(): void;
  }
  function nodeLine(first: CircuitNode): NodeLine {
    const { signal: own, abort } = childSignal(signal);
    let node = first;
    const { address } = node;
    const inside = h("input", { type: "checkbox", class: "pc-mute", "data-live": true });
    inside.addEventListener("change", () => actions.switch(node.addresses), { signal: own });
    const name = addressButton(
      labelOf(node),
      () => actions.choose(element.dataset.chosen === undefined ? node.id : null),
      own,
    );
    const stripe = h("span", { class: "pc-group-stripe", "aria-hidden": "true" });
    const words = h("span", { class: "pc-muted pc-small-print" });
    const pinned = button(
      "pin",
      { class: "pc-button pc-quiet", "data-live": true },
      () => actions.annotate({ addresses: [address], pinned: !node.pinned }),
      own,
    );
    const field = (label: string, send: (text: string) => void) => {
      const input = h("input", {
        type: "text",
        class: "pc-input pc-note-field",
        "aria-label": `${label} of ${address}`,
        maxlength: 60,
        autocomplete: "off",
        "data-live": true,
      });
      input.addEventListener("change", () => send(input.value.trim()), { signal: own });
      input.addEventListener(
        "keydown",
        (event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          actions.choose(null);
          name.focus();
        },
        { signal: own },
      );
      return input;
    };
    const named = field("Name", (text) => actions.annotate({ addresses: [address], name: text }));
    const grouped = field("Group", (text) =>
      actions.annotate({ addresses: [address], group: text }),
    );
    set(grouped, { list: known.id });
    const form = h(
      "div",
      { class: "pc-line pc-node-form", hidden: true },
      h("label", { class: "pc-field" }, "name", named),
      h("label", { class: "pc-field" }, "group", grouped),
    );
    const element = h(
      "li",
      { "data-node": node.id },
      h(
        "div",
        { class: "pc-list-line" },
        h("label", { class: "pc-check" }, inside),
        stripe,
        name,
        words,
        pinned,
      ),
      form,
    );
    return {
      element,
      dispose: abort,
      focus: () => named.focus(),
      update(next, chosen) {
        node = next;
        if (inside.checked !== next.inside) inside.checked = next.inside;
        set(inside, { "aria-label": `${address} is in the circuit` });
        say(name, labelOf(next));
        set(name, {
          "aria-expanded": chosen ? "true" : "false",
          title: `${address}\nClick to name and group it`,
        });
        const group = groups.indexOf(next.group);
        stripe.style.backgroundColor = group < 0 ? "" : css(groupColour(group));
        say(
          words,
          [next.name === "" ? "" : address, next.group, `${next.incoming} in, ${next.outgoing} out`]
            .filter((each) => each !== "")
            .join(" · "),
        );
        set(pinned, {
          "aria-pressed": next.pinned ? "true" : "false",
          "aria-label": `Pin ${address}`,
          title: "A pinned node stays in sight however small the circuit is",
        });
        set(element, { "data-chosen": chosen, "data-out": !next.inside });
        set(form, { hidden: !chosen });
        for (const [input, value] of [
          [named, next.name],
          [grouped, next.group],
        ] as const) {
          if (input !== document.activeElement) input.value = value;
        }
      },
    };
  }

  interface EdgeLine {
    element: HTMLElement;
    dispose(): void;
    update(edge: CircuitEdge, scale: number): void;
  }
  function edgeLine({ address }: CircuitEdge): EdgeLine {
    const { signal: own, abort } = childSignal(signal);
    const inside = h("input", {
      type: "checkbox",
      class: "pc-mute",
      "aria-label": `${address} is in the circuit`,
      "data-live": true,
    });
    inside.addEventListener("change", () => actions.switch([address]), { signal: own });
    const name = addressButton(address, () => actions.look(address), own);
    const bar = signedBar();
    const value = h("span", { class: "pc-number" });
    const flag = h("span", { class: "pc-flag" }, "⚑");
    const element = h(
      "li",
      { "data-edge": address },
      h(
        "div",
        { class: "pc-list-line pc-edge-line" },
        h("label", { class: "pc-check" }, inside),
        name,
        bar.element,
        value,
        flag,
      ),
    );
    return {
      element,
      dispose: abort,
      update(edge, scale) {
        if (inside.checked !== edge.inside) inside.checked = edge.inside;
        const strength = strengthOf(edge);
        if (theme !== null) bar.update(strength, scale, theme);
        const guessed = Number.isNaN(edge.exact);
        say(value, `${guessed ? "≈ " : ""}${signed(strength)}`);
        set(value, {
          title: `${guessed ? "" : `exact ${single(edge.exact)}\n`}estimate ${single(edge.estimate)}`,
        });
        const why = edge.disagree === null ? null : DISAGREE[edge.disagree];
        set(flag, { hidden: why === null, title: why, role: "img", "aria-label": why });
        set(element, { "data-out": !edge.inside });
      },
    };
  }

  const whatOf = (target: EventTarget | null) => {
    const line = (target as Element).closest<HTMLElement>("[data-node], [data-edge]");
    return line?.dataset.node ?? line?.dataset.edge ?? null;
  };
  for (const [enter, leave] of [
    ["pointerover", "pointerleave"],
    ["focusin", "focusout"],
  ] as const) {
    scroll.addEventListener(enter, (event) => actions.look(whatOf(event.target)), { signal });
    scroll.addEventListener(leave, () => actions.look(null), { signal });
  }

  return {
    element,
    edit(id) {
      of = "nodes";
      actions.choose(id);
      // Its form is there once it is painted.
      requestAnimationFrame(() => requestAnimationFrame(() => nodeLines.get(id)?.focus()));
    },
    update(nodes, edges, total, chosen, now) {
      theme = now;
      groups = groupsOf(nodes);
      kinds.update(of);
      set(nodeList, { hidden: of !== "nodes" });
      set(edgeList, { hidden: of !== "edges" });
      set(scroll, { "aria-label": count(nodes.length, "node") });
      if (
        known.children.length !== groups.length ||
        [...known.children].some((each, i) => (each as HTMLOptionElement).value !== groups[i])
      ) {
        known.replaceChildren(...groups.map((group) => h("option", { value: group })));
      }
      if (of === "nodes") {
        const shown = nodeLimit.take(nodes);
        set(edgeLimit.element, { hidden: true });
        const parts = keyed(nodeList, nodeLines, shown, (node) => node.id, nodeLine);
        for (const [i, node] of shown.entries()) parts[i]?.update(node, node.id === chosen);
      } else {
        const shown = edgeLimit.take(edges, total);
        set(nodeLimit.element, { hidden: true });
        const parts = keyed(edgeList, edgeLines, shown, (edge) => edge.address, edgeLine);
        const scale = Math.max(0, ...shown.map((edge) => Math.abs(strengthOf(edge))));
        for (const [i, edge] of shown.entries()) parts[i]?.update(edge, scale);
      }
    },
  };
}
