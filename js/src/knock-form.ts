// Everything that one token says to another, across layers: the form for it.
import { button, h, say, set } from "./dom";
import { quoted } from "./format";
import type { AttentionState, Knock, PromptToken } from "./messages";
import type { Span } from "./tiles";

export interface KnockForm {
  element: HTMLElement;
  update(attention: AttentionState, tokens: readonly PromptToken[]): void;
  /** Puts a cell's tokens in, as long as nobody typed there. */
  suggest(source: number, destination: number): void;
}

export interface KnockFormActions {
  knock(gesture: Pick<Knock, "layers" | "destinations" | "sources">): Promise<unknown>;
}

export function knockForm(signal: AbortSignal, actions: KnockFormActions): KnockForm {
  let attention: AttentionState | null = null;
  let tokens: readonly PromptToken[] = [];
  let typed = false;

  const field = (name: string, title: string, size: string) => {
    const input = h("input", {
      type: "text",
      class: `pc-input pc-number ${size}`,
      "aria-label": name,
      title,
      autocomplete: "off",
      "data-live": true,
    });
    input.addEventListener(
      "input",
      () => {
        typed = true;
        refuse("");
        names();
      },
      { signal },
    );
    return input;
  };
  const from = field("From token", "A position, 3, or a range, 3-5: what is read", "pc-place");
  const to = field("To token", "A position or a range: what reads it", "pc-place");
  const first = field("First layer", "From this layer", "pc-small");
  const last = field("Last layer", "To this layer, itself among them", "pc-small");
  const fromName = h("span", { class: "pc-token-text pc-muted" });
  const toName = h("span", { class: "pc-token-text pc-muted" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const go = button(
    "knock out",
    {
      "data-live": true,
      "aria-label": "Knock out everything from the one token to the other",
      title: "In all heads of these layers; just the same again takes it back",
    },
    () => void send(),
    signal,
  );
  const element = h(
    "section",
    { class: "pc-knock", "aria-label": "Knock out from token to token" },
    h(
      "div",
      { class: "pc-line" },
      h("label", { class: "pc-field" }, "all heads: from token", from),
      fromName,
      h("label", { class: "pc-field" }, "to token", to),
      toName,
      h(
        "span",
        { class: "pc-field" },
        h("label", { class: "pc-field" }, "in layers", first),
        h("label", { class: "pc-field" }, "–", last),
      ),
      go,
    ),
    error,
  );
  element.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.target === go) return;
      event.preventDefault();
      void send();
    },
    { signal },
  );

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }
  function names(): void {
    for (const [input, name] of [
      [from, fromName],
      [to, toName],
    ] as const) {
      const span = spanOf(input.value);
      const text = (span === null ? [] : tokens.slice(...span))
        .map((token) => (token.bos ? "BOS" : token.text))
        .join("");
      const short = text.length > 24 ? `${text.slice(0, 24)}…` : text;
      say(name, text === "" ? "" : quoted(short));
    }
  }

  async function send(): Promise<void> {
    if (attention === null) return;
    const sources = spanOf(from.value);
    const destinations = spanOf(to.value);
    const layers = spanOf(`${first.value}-${last.value}`);
    const wrong =
      faultOf(sources, from.value, tokens.length, "token") ??
      faultOf(destinations, to.value, tokens.length, "token") ??
      faultOf(layers, `${first.value}–${last.value}`, attention.layers, "layer");
    if (wrong !== null || sources === null || destinations === null || layers === null) {
      refuse(wrong ?? "Say from which token to which.");
      return;
    }
    if (attention.causal && sources[0] >= destinations[1]) {
      refuse(
        `Token ${destinations[1] - 1} cannot read token ${sources[0]}, which comes after it; swap the two.`,
      );
      return;
    }
    try {
      await actions.knock({
        layers: [...layers],
        destinations: [...destinations],
        sources: [...sources],
      });
      refuse("");
    } catch (refused) {
      refuse((refused as Error).message);
    }
  }

  return {
    element,
    update(next, now) {
      if (attention === null || attention.layers !== next.layers) {
        first.value = "0";
        last.value = String(next.layers - 1);
      }
      attention = next;
      if (now !== tokens) {
        tokens = now;
        names();
      }
      set(go, {
        "data-off": next.refusals.knockout !== null,
        ...(next.refusals.knockout !== null && { title: next.refusals.knockout }),
      });
    },
    suggest(source, destination) {
      if (typed && (from.value !== "" || to.value !== "")) return;
      typed = false;
      from.value = String(source);
      to.value = String(destination);
      names();
    },
  };
}

/** "3" or "3-5" (both ends in it) as from the first to before the second; null for neither. */
export function spanOf(text: string): Span | null {
  const parts = /^\s*(\d+)\s*(?:[-–:]\s*(\d+)\s*)?$/.exec(text);
  if (parts === null) return null;
  const start = Number(parts[1]);
  return [start, Number(parts[2] ?? start) + 1];
}

function faultOf(
  span: Span | null,
  text: string,
  length: number,
  what: "token" | "layer",
): string | null {
  const all = `${what}s go from 0 to ${length - 1}`;
  if (span === null) return `“${text}” is no ${what}: write a number such as 3; ${all}.`;
  if (span[0] >= span[1]) return `“${text}” goes backwards; put the smaller number first.`;
  if (span[1] > length) return `There is no ${what} ${span[1] - 1}: ${all}.`;
  return null;
}
