// How edges are scored: by which method, over edges or components, with what put in their place.
import type { CircuitPicture, Replacement } from "./circuit-picture";
import { button, h, say, select, set } from "./dom";
import { parse, typed } from "./format";
import type { Find } from "./messages";
import { replacements } from "./replacements";
import { segments } from "./segments";

export interface CircuitControls {
  element: HTMLElement;
  update(picture: CircuitPicture): void;
  refuse(sentence: string): void;
  /** Finds with what is chosen. */
  find(): void;
}

export interface CircuitControlsActions {
  find(gesture: Omit<Find, "id" | "kind">): void;
  stop(): void;
  changed(): void;
}

type Method = NonNullable<Find["method"]>;
type Of = NonNullable<Find["of"]>;

const METHODS: readonly (readonly [Method, string, string])[] = [
  [
    "eap-ig",
    "EAP-IG",
    "Edge attribution patching with integrated gradients: the gradient averaged on the way from corrupt to clean",
  ],
  ["eap", "EAP", "Edge attribution patching: one gradient times what would be replaced"],
  ["attribution", "attribution", "Attribution patching of each component, its edges alike"],
  ["acdc", "ACDC", "Removes edges one by one, exactly, and keeps those that matter: slow"],
];

export function circuitControls(
  signal: AbortSignal,
  actions: CircuitControlsActions,
): CircuitControls {
  let method: Method = "eap-ig";
  let of: Of = "edges";
  let how: Replacement | null = null;
  let shown: CircuitPicture | null = null;

  const methods = select(
    METHODS.map(([value, label]) => [value, label] as const),
    { "aria-label": "How edges are scored", "data-live": true },
    (value) => {
      method = value as Method;
      actions.changed();
    },
    signal,
  );
  for (const option of methods.options) {
    option.title = METHODS.find(([value]) => value === option.value)?.[2] ?? "";
  }
  const over = segments<Of>(
    "What is scored",
    [
      { value: "edges", label: "edges", title: "Each edge, split by query, key and value" },
      { value: "nodes", label: "nodes", title: "Each component, with all of its edges alike" },
    ],
    (value) => {
      of = value;
      actions.changed();
    },
    { signal },
  );
  const instead = replacements(
    signal,
    "What is put in the place of what an edge carries",
    (value) => {
      how = value;
      actions.changed();
    },
  );
  const field = (name: string, label: string, title: string, value: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number",
      "aria-label": name,
      title,
      autocomplete: "off",
      value,
      "data-live": true,
    });
    input.addEventListener("input", () => refuse(""), { signal });
    return { input, element: h("label", { class: "pc-field" }, label, input) };
  };
  const steps = field("Steps of the integrated gradients", "steps", "From corrupt to clean", "5");
  const threshold = field(
    "ACDC's threshold",
    "threshold",
    "An edge goes whose removal changes the metric by less; empty: a twentieth of what separates clean from corrupt",
    "",
  );
  set(threshold.input, { placeholder: "auto" });
  const runs = field(
    "How many edges ACDC tries at most",
    "at most",
    "What is not tried stays in the circuit",
    "500",
  );
  const find = button("find", { "data-live": true }, () => go(), signal);
  const stop = button("stop", { "data-live": true, hidden: true }, () => actions.stop(), signal);
  const count = h("span", { class: "pc-muted pc-number" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const why = h("p", { class: "pc-muted" });
  const element = h(
    "div",
    { class: "pc-circuit-controls" },
    h(
      "div",
      { class: "pc-line" },
      h("label", { class: "pc-field" }, "by", methods),
      over.element,
      h("label", { class: "pc-field" }, "replaced by", instead.element),
      steps.element,
      threshold.element,
      runs.element,
      h("span", { class: "pc-group" }, find, stop),
      count,
    ),
    error,
    why,
  );
  element.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter" || event.shiftKey || !(event.target instanceof HTMLInputElement)) {
        return;
      }
      if (event.target.type !== "text") return;
      event.preventDefault();
      go();
    },
    { signal },
  );

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }
  function replacement(): Replacement {
    return how ?? (shown?.circuit?.refusals.corrupt === null ? "corrupt" : "mean");
  }
  function go(): void {
    const gesture: Parameters<CircuitControlsActions["find"]>[0] = {
      method,
      of: allowed(),
      how: replacement(),
    };
    const whole = (input: HTMLInputElement) => {
      const value = parse(input.value);
      return value !== null && Number.isInteger(value) && value >= 1 ? value : null;
    };
    if (method === "eap-ig") {
      const value = whole(steps.input);
      if (value === null || value > 100) {
        refuse(`“${steps.input.value}” is no number of steps; 1 to 100 would be, such as 5.`);
        return;
      }
      gesture.steps = value;
    }
    if (method === "acdc") {
      const [least, most] = [parse(threshold.input.value), whole(runs.input)];
      if (threshold.input.value.trim() !== "" && (least === null || least < 0)) {
        refuse(`“${threshold.input.value}” is no threshold; ${typed(0.01)} would be.`);
        return;
      }
      if (most === null) {
        refuse(`“${runs.input.value}” is no number of edges; 500 would be.`);
        return;
      }
      gesture.threshold = threshold.input.value.trim() === "" ? null : least;
      gesture.runs = most;
    }
    refuse("");
    actions.find(gesture);
  }
  /** Attribution patching scores components, ACDC edges. */
  function allowed(): Of {
    return method === "attribution" ? "nodes" : method === "acdc" ? "edges" : of;
  }

  return {
    element,
    refuse,
    find: go,
    update(picture) {
      shown = picture;
      const { circuit } = picture;
      if (circuit === null) return;
      methods.value = method;
      over.update(allowed(), {
        edges: method === "attribution" ? "attribution patching scores components." : null,
        nodes: method === "acdc" ? "ACDC removes edges." : null,
      });
      const chosen = replacement();
      instead.update(chosen, circuit.refusals.corrupt);
      set(steps.element, { hidden: method !== "eap-ig" });
      for (const each of [threshold, runs]) set(each.element, { hidden: method !== "acdc" });
      const progress = picture.progress.get("find") ?? null;
      const refusal = circuit.refusals.edges ?? circuit.refusals.prediction;
      say(why, refusal ?? "");
      set(why, { hidden: refusal === null });
      set(find, { hidden: progress !== null, "data-off": refusal !== null });
      set(stop, { hidden: progress === null });
      say(count, progress === null ? "" : `${progress.done} of ${progress.total}`);
    },
  };
}
