// NeuronClamp: set, steer, scale or cut out neurons of a live model and see what it then predicts.
//
// Python declares (state) and computes (result, curve, effects, generated); this file wires those
// messages to the parts that show them, and the parts' gestures to the request loop.
import type { RenderProps } from "@anywidget/types";
import { css, LIGHT, type Theme } from "./colour";
import { lineColours } from "./curve";
import { curveSchedule } from "./curves";
import { button, copy, focused, h, say, set } from "./dom";
import { generation } from "./generate";
import type { Down } from "./messages";
import { metricReading } from "./metric";
import { nextToken } from "./next-token";
import { ADDRESS_TYPE, picker } from "./picker";
import { emptyPicture, readSnapshot, take, takeAll } from "./picture";
import { prompt } from "./prompt";
import { createRequests, type Gesture, type Kernel } from "./requests";
import { stack } from "./stack";
import { followTheme } from "./theme";
import { unpack } from "./transport";

/** The traits that the page reads. It never saves one: everything it wants is a message. */
interface Traits {
  snapshot: unknown;
  /** Absent in an exported page, which has no kernel. */
  live?: boolean;
}

const STALE_AFTER = 300;
const LINE_AFTER = 150;

function render({ model, el, signal }: Pick<RenderProps<Traits>, "model" | "el" | "signal">) {
  const picture = emptyPicture();
  const exported = !model.get("live");
  let kernel: Kernel = "asking";
  let theme: Theme = LIGHT;
  let frame = 0;
  let staleSince: number | null = null;
  let generatedAt = -1;

  // --- the parts, from top to bottom ---
  const status = h("span", { class: "pc-status pc-muted" });
  const undo = button(
    "undo",
    { "data-live": true, title: "Undo (Ctrl+Z)" },
    () => act({ kind: "undo" }),
    signal,
  );
  const redo = button(
    "redo",
    { "data-live": true, title: "Redo (Ctrl+Shift+Z)" },
    () => act({ kind: "redo" }),
    signal,
  );
  const stop = button(
    "stop",
    { "data-live": true, title: "Stop what is running (Esc)" },
    () => halt(),
    signal,
  );
  const large = button(
    "Aa",
    {
      class: "pc-button pc-quiet",
      title: "Large type",
      "aria-label": "Large type",
      "aria-pressed": "false",
    },
    () => {
      const is = root.classList.toggle("pc-large");
      set(large, { "aria-pressed": is ? "true" : "false" });
    },
    signal,
  );
  const name = h("span", { class: "pc-model" });
  const kernelNote = h("p", { class: "pc-note pc-kernel", role: "status", hidden: true });
  const failure = h("p", { class: "pc-error", role: "alert", hidden: true });
  const computing = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const spoken = h("div", { class: "pc-hidden", "aria-live": "polite" });
  const announce = (text: string) => {
    say(spoken, "");
    say(spoken, text);
  };

  const text = prompt(signal, {
    run: (typed) => requests.ask({ kind: "prompt", text: typed }),
    onSelect: () => chooser.selected(),
  });
  const metric = metricReading(signal, {
    search: async (query) => (await requests.ask({ kind: "tokens", query })).items,
    target: (token) => chooseTarget(token),
  });
  const requests = createRequests({
    wire: model as never,
    signal,
    connected: () => el.closest(".jupyter-widgets-disconnected") === null,
    onKernel(next) {
      const again = kernel === "gone" && next === "asking";
      kernel = next;
      if (next === "gone") {
        picture.busy = false;
        picture.progress.clear();
        continued.end();
      }
      if (again) hello();
      soon();
    },
    onMessage(message, buffers) {
      receive(message as Down, buffers);
    },
    onRefusedEdit(key, refused) {
      rows.refuse(key, refused.message);
      soon();
    },
    onReleased: () => soon(),
  });
  const chooser = picker(signal, {
    requests,
    announce,
    selectedTokens: () => text.strip.selected(),
  });
  const rows = stack(signal, {
    edit: (edit) => requests.edit(edit),
    act: (gesture, key) => {
      requests.ask(gesture).catch((refused: Error) => rows.refuse(key, refused.message));
    },
    selectedTokens: () => text.strip.selected(),
    holds: (key) => requests.holds(key),
    touched: () => soon(),
    announce,
  });
  const schedule = curveSchedule(signal, (key) => {
    requests
      .ask({ kind: "curve", key })
      .catch((refused: Error) => rows.refuse(key, refused.message));
  });
  const next = nextToken(signal, (token) => chooseTarget(token));
  const continued = generation(signal, {
    run: (settings) => {
      generatedAt = picture.revision;
      return requests.ask({ kind: "generate", ...settings });
    },
    stop: () => halt(),
  });

  const empty = h(
    "p",
    { class: "pc-note pc-first" },
    "Nothing is clamped yet: type a neuron's address above, or take one from the ",
    button("most active neurons", { "data-live": true }, () => chooser.rank("activation"), signal),
    ".",
  );
  const reset = button(
    "reset",
    { "data-live": true, title: "Take everything out of the stack (R); undo brings it back" },
    () => act({ kind: "reset" }),
    signal,
  );
  const code = button(
    "copy as code",
    { "data-live": true, title: "Python that does the same with TransformerLens alone" },
    () => void copyCode(),
    signal,
  );
  const legend = h("span", { class: "pc-key pc-muted" });
  const stackError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const listing = h("textarea", {
    class: "pc-input pc-textarea pc-code",
    readonly: true,
    rows: 12,
    "aria-label": "The stack as Python",
    hidden: true,
  });
  const clamped = h(
    "section",
    { class: "pc-stack", "aria-label": "Stack of interventions" },
    rows.element,
    empty,
    h(
      "div",
      { class: "pc-line pc-stack-end" },
      legend,
      h("span", { class: "pc-group" }, reset, code),
    ),
    stackError,
    listing,
  );
  const notes = h("ul", { class: "pc-notes pc-muted" });
  const work = h("span", { class: "pc-work pc-muted pc-number" });
  const nothing = h("p", { class: "pc-note" }, "Waiting for the model's first answer …");
  const body = h(
    "div",
    { class: "pc-body", hidden: true },
    h("div", { class: "pc-head" }, text.element, metric.element),
    failure,
    chooser.element,
    clamped,
    h(
      "div",
      { class: "pc-out" },
      h("section", { class: "pc-part pc-distribution", "aria-label": "Next token" }, next.element),
      continued.element,
    ),
    h("div", { class: "pc-line pc-foot" }, notes, work),
  );
  const root = h(
    "div",
    { class: "pc pc-neuron-clamp", role: "group", "aria-label": "NeuronClamp", tabindex: -1 },
    computing,
    h(
      "header",
      { class: "pc-line pc-tools" },
      name,
      status,
      h("span", { class: "pc-group" }, undo, redo, stop, large),
    ),
    kernelNote,
    nothing,
    body,
    spoken,
  );

  // --- gestures ---
  function act(gesture: Gesture): void {
    requests.ask(gesture).then(
      () => complain(""),
      (refused: Error) => complain(refused.message),
    );
  }
  function complain(sentence: string): void {
    say(stackError, sentence);
    set(stackError, { hidden: sentence === "" });
  }
  function halt(): void {
    act({ kind: "stop" });
    continued.end();
  }
  function chooseTarget(token: number): void {
    requests.ask({ kind: "target", token }).then(
      () => metric.refuse(""),
      (refused: Error) => metric.refuse(refused.message),
    );
  }
  async function copyCode(): Promise<void> {
    try {
      const { text: python } = await requests.ask({ kind: "code" });
      complain("");
      const done = await copy(python);
      listing.value = python;
      set(listing, { hidden: done });
      if (!done) listing.select();
      announce(
        done ? "Copied as Python" : "The page may not copy; the code is shown below the stack",
      );
      if (done) {
        say(code, "copied");
        setTimeout(() => say(code, "copy as code"), 1200);
      }
    } catch (refused) {
      complain((refused as Error).message);
    }
  }

  root.addEventListener("keydown", (event) => onKey(event), { signal });
  clamped.addEventListener(
    "dragover",
    (event) => {
      if (event.dataTransfer?.types.includes(ADDRESS_TYPE)) event.preventDefault();
    },
    { signal },
  );
  clamped.addEventListener(
    "drop",
    (event) => {
      const address = event.dataTransfer?.getData(ADDRESS_TYPE);
      if (!address) return;
      event.preventDefault();
      chooser.add(address);
    },
    { signal },
  );

  function onKey(event: KeyboardEvent): void {
    const key = event.key.toLowerCase();
    const field = textField(event.target);
    if ((event.ctrlKey || event.metaKey) && !event.altKey && (key === "z" || key === "y")) {
      // Half-typed text has an undo of its own.
      if (field !== null && field.value !== field.defaultValue) return;
      act({ kind: key === "y" || event.shiftKey ? "redo" : "undo" });
      event.preventDefault();
    } else if (event.ctrlKey || event.metaKey) {
      return;
    } else if (key === "escape" && !event.defaultPrevented) {
      if (isRunning()) halt();
    } else if (key === "r" && !event.altKey && field === null && !isSelect(event.target)) {
      if (root.dataset.dead === undefined) act({ kind: "reset" });
      event.preventDefault();
    } else if (event.shiftKey && key === "enter") {
      return; // runs the cell
    }
    // A notebook in command mode would take these keys for its own: "r" makes a raw cell.
    event.stopPropagation();
  }

  function isRunning(): boolean {
    return picture.busy || picture.progress.size > 0 || continued.running();
  }

  // --- news ---
  function receive(message: Down, buffers: DataView[]): void {
    const news = take(picture, unpack(message, buffers), (token) => {
      if (token.index === 0 && !continued.running()) generatedAt = picture.revision;
      continued.take(token);
    });
    if (news === "state") requests.sawState(picture.revision);
    else if (news === "result") requests.sawResult(picture.resultRevision);
    else if (news === "failure" && message.kind === "status") requests.sawFailure(message.revision);
    if (message.kind === "status" && message.error !== null) continued.end();
    if (news !== "old") soon();
  }

  function hello(): void {
    requests.ask({ kind: "hello" }).then(
      (everything) => {
        takeAll(picture, everything);
        if (everything.curves.every((each) => each.revision === everything.revision)) {
          schedule.accept(picture);
        }
        requests.sawState(picture.revision);
        requests.sawResult(picture.resultRevision);
        continued.fill(everything.generated);
        generatedAt = picture.revision;
        soon();
      },
      () => soon(),
    );
  }

  // --- showing it: at most once a frame, however many messages a frame brings ---
  function soon(): void {
    if (frame === 0 && !signal.aborted) frame = requestAnimationFrame(update);
  }

  let laterTimer: ReturnType<typeof setTimeout> | undefined;
  function update(): void {
    frame = 0;
    if (signal.aborted) return;
    const had = root.contains(focused(root));
    paint();
    // Who pressed a key on something that is gone or off by now goes on pressing keys here.
    const now = focused(root);
    if (had && (now === null || !root.contains(now) || now.matches(":disabled"))) {
      root.focus({ preventScroll: true });
    }
  }

  function paint(): void {
    const dead = kernel === "gone" || (exported && kernel !== "live");
    set(root, { "data-dead": dead, "aria-busy": isRunning() ? "true" : null });
    showKernel(dead);
    showComputing(dead);
    const { state, result } = picture;
    set(nothing, { hidden: state !== null || dead });
    set(body, { hidden: state === null });
    if (state === null) return;

    const dragging = rows.dragging();
    say(name, state.model);
    set(name, { title: `${state.model}, ${state.dtype} on ${state.device}` });
    text.update(state, result?.moved ?? null, !dragging);
    metric.update(state.metric, result?.metric ?? null, theme);
    say(failure, picture.failure);
    set(failure, { hidden: picture.failure === "" });
    const all = new Set(state.rows.map((row) => row.address));
    chooser.update(state.tokens, state.directions, all);
    chooser.progress(picture.progress.get("rank") ?? null);
    const effectsAreOld = picture.effectsRevision < picture.revision;
    set(clamped, { "data-old-effects": effectsAreOld && !dead });
    rows.update({
      rows: state.rows,
      selected: state.selected,
      tokens: state.tokens,
      effects: picture.effects.values(),
      live: !dead,
      of: (key) => ({
        curve: picture.curves.get(key) ?? null,
        stale: !dead && schedule.stale(key),
        progress: picture.progress.get(`curve:${key}`) ?? null,
        effect: picture.effects.get(key) ?? null,
        waiting: !dead && effectsAreOld,
      }),
    });
    set(empty, { hidden: state.rows.length > 0 });
    set(legend, { hidden: state.rows.length === 0 });
    next.update(result?.top ?? [], state.metric?.target.id ?? null, !dragging, theme);
    continued.context(
      state.prompt ?? state.tokens.map((token) => (token.bos ? "" : token.text)).join(""),
    );
    continued.outdated(generatedAt < picture.revision);
    showNotes(state.notes);
    if (result === null) say(work, "");
    else {
      const { blocks, positions, seconds, way } = result.work;
      say(work, `last run ${Math.round(1000 * seconds)} ms`);
      set(work, {
        title: `The last run recomputed ${blocks} blocks at ${positions} positions (${way})`,
      });
    }
    schedule.update(
      picture,
      !dead && !dragging && picture.resultRevision >= picture.revision && picture.failure === "",
    );
    enable(state.rows.length > 0, state.can_undo, state.can_redo, dead);
  }

  function enable(some: boolean, canUndo: boolean, canRedo: boolean, dead: boolean): void {
    for (const element of root.querySelectorAll<HTMLButtonElement>("[data-live]")) {
      const off = dead || element.dataset.never !== undefined;
      if (element.disabled !== off) element.disabled = off;
    }
    undo.disabled = dead || !canUndo;
    redo.disabled = dead || !canRedo;
    reset.disabled = dead || !some;
    code.disabled = dead || !some;
    stop.disabled = dead || !isRunning();
  }

  function showKernel(dead: boolean): void {
    const kept = "What is drawn stays; addresses and numbers can be read and copied.";
    const sentence =
      dead && exported
        ? `A saved picture without a kernel: clamping, ranking and continuing need one. ${kept}`
        : dead
          ? `No kernel: start it and run the cell again to clamp, rank and continue. ${kept}`
          : kernel === "busy"
            ? "The kernel is busy with something else; this goes on when it is free."
            : "";
    say(kernelNote, sentence);
    set(kernelNote, { hidden: sentence === "" });
  }

  function showComputing(dead: boolean): void {
    const behind =
      !dead &&
      picture.state !== null &&
      picture.failure === "" &&
      picture.resultRevision < picture.revision;
    const reference = picture.progress.get("reference");
    const now = performance.now();
    if (!behind) staleSince = null;
    else staleSince ??= now;
    const waited = staleSince === null ? 0 : now - staleSince;
    const waiting = !dead && (behind || reference !== undefined || picture.state === null);
    set(computing, { hidden: !(waiting && (waited >= LINE_AFTER || !behind)) });
    computing.style.width = reference
      ? `${(100 * reference.done) / Math.max(1, reference.total)}%`
      : "";
    set(root, { "data-stale": waited >= STALE_AFTER && kernel !== "asking" });
    clearTimeout(laterTimer);
    if (behind && waited < STALE_AFTER) {
      laterTimer = setTimeout(soon, (waited < LINE_AFTER ? LINE_AFTER : STALE_AFTER) - waited);
    }
    const counted = reference ?? picture.progress.get("control");
    const done = counted ? ` ${counted.done}/${counted.total}` : "";
    say(status, dead || !picture.busy ? "" : `${picture.what}${done}`);
  }

  function showNotes(lines: readonly string[]): void {
    if (lines.join("\n") === [...notes.children].map((line) => line.textContent).join("\n")) return;
    notes.replaceChildren(...lines.map((line) => h("li", {}, line)));
  }

  function showLegend(): void {
    const { logprob, kl } = lineColours(theme);
    const key = (mark: string, label: string, colour?: string) => {
      const swatch = h("span", { class: `pc-swatch pc-swatch-${mark}`, "aria-hidden": "true" });
      if (colour !== undefined) swatch.style.borderColor = colour;
      return h("span", { class: "pc-key-item" }, swatch, label);
    };
    legend.replaceChildren(
      key("line", "log p of the target", css(logprob)),
      key("dash", "KL", css(kl)),
      key("band", "mean ± sd on reference texts"),
      key("observed", "observed here"),
      key("control", "random control"),
    );
  }

  // --- start ---
  el.append(root);
  followTheme(root, signal, (nextTheme) => {
    theme = nextTheme;
    text.paint(theme);
    rows.paint(theme);
    chooser.paint(theme);
    showLegend();
    soon();
  });
  const saved = readSnapshot(model.get("snapshot"));
  if (saved !== null) {
    takeAll(picture, saved);
    schedule.accept(picture);
    continued.fill(saved.generated);
    generatedAt = picture.revision;
  }
  update();
  hello();
  signal.addEventListener(
    "abort",
    () => {
      cancelAnimationFrame(frame);
      clearTimeout(laterTimer);
      root.remove();
    },
    { once: true },
  );
}

function textField(target: EventTarget | null): HTMLInputElement | HTMLTextAreaElement | null {
  if (target instanceof HTMLTextAreaElement) return target;
  return target instanceof HTMLInputElement && target.type === "text" ? target : null;
}

function isSelect(target: EventTarget | null): boolean {
  return target instanceof HTMLSelectElement;
}

export default { render };
