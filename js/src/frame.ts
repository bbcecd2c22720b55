// What every view has around its own parts: the line at the top (model, status, undo, redo, stop,
// large type), the note about the kernel, the line that says computing, the keys, and the loop that
// takes messages in and paints at most once a frame.
import type { RenderProps } from "@anywidget/types";
import { LIGHT, type Theme } from "./colour";
import { button, copy, focused, h, say, set } from "./dom";
import type { Down } from "./messages";
import {
  type Everything,
  hasStack,
  type News,
  readSnapshot,
  type Shown,
  take,
  takeAll,
} from "./picture";
import { createRequests, type Gesture, type Kernel, type Refused, type Requests } from "./requests";
import { followTheme } from "./theme";
import { type Unpacked, unpack } from "./transport";

/** The traits that the page reads. It never saves one: everything it wants is a message. */
export interface Traits {
  snapshot: unknown;
  /** Absent in an exported page, which has no kernel. */
  live?: boolean;
}

export type Host = Pick<RenderProps<Traits>, "model" | "el" | "signal">;

/** What a view brings into its frame. Nothing here is called before `start`. */
export interface Inner {
  /** The view's name, and the class of its root. */
  name: string;
  className: string;
  /** What goes without a kernel no longer: "clamping and ranking", "clamp and rank". */
  needs: readonly [doing: string, todo: string];
  picture: Shown;
  /** Long work whose progress the status line counts, the first that runs. */
  counted: readonly string[];
  /** A message that the shared picture left to the view ("own"), or took; false: nothing new. */
  take(message: Unpacked<Down>, news: News): boolean;
  /** Everything at once, from Python or from a saved page. */
  takeAll(everything: Everything): void;
  /** There is a state: show it. `dead` is without a kernel. */
  paint(dead: boolean): void;
  theme(theme: Theme): void;
  refusedEdit(key: number, refused: Refused): void;
  /** Whether something runs that the shared picture does not know of. */
  running?(): boolean;
  /** Python was told to stop, has failed, or is gone. */
  ended?(): void;
  /** A key that the frame has no use for; true when the view had one. */
  key?(event: KeyboardEvent): boolean;
}

export interface Frame {
  root: HTMLElement;
  /** For the view's parts; hidden until there is a state. */
  body: HTMLElement;
  /** Why the newest run failed; the view says where it stands. */
  failure: HTMLElement;
  /** Notes of the session and what the last run cost. */
  foot: HTMLElement;
  requests: Requests;
  /** Sends a gesture; `complain` hears of a refusal, and of "" when it was taken. */
  act(gesture: Gesture): void;
  complain(sentence: string): void;
  /** Where refusals of gestures without a place of their own stand. */
  complaint: HTMLElement;
  halt(): void;
  /** Paints in the next frame. */
  soon(): void;
  /** Says something to who cannot see it. */
  announce(text: string): void;
  theme(): Theme;
  dead(): boolean;
  start(): void;
}

const STALE_AFTER = 300;
const LINE_AFTER = 150;

export function createFrame({ model, el, signal }: Host, inner: Inner): Frame {
  const { picture } = inner;
  /** The same where there is a stack: then each change has a result that is waited for. */
  const stacked = hasStack(picture) ? picture : null;
  const exported = !model.get("live");
  let kernel: Kernel = "asking";
  let theme: Theme = LIGHT;
  let frame = 0;
  let staleSince: number | null = null;
  let laterTimer: ReturnType<typeof setTimeout> | undefined;

  const name = h("span", { class: "pc-model" });
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
      soon();
    },
    signal,
  );
  const kernelNote = h("p", { class: "pc-note pc-kernel", role: "status", hidden: true });
  const failure = h("p", { class: "pc-error", role: "alert", hidden: true });
  const complaint = h("p", { class: "pc-error", role: "alert", hidden: true });
  const computing = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const spoken = h("div", { class: "pc-hidden", "aria-live": "polite" });
  const nothing = h("p", { class: "pc-note" }, "Waiting for the model's first answer …");
  const notes = h("ul", { class: "pc-notes pc-muted" });
  const work = h("span", { class: "pc-work pc-muted pc-number" });
  const foot = h("div", { class: "pc-line pc-foot" }, notes, work);
  const body = h("div", { class: "pc-body", hidden: true });
  const root = h(
    "div",
    { class: `pc ${inner.className}`, role: "group", "aria-label": inner.name, tabindex: -1 },
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
        inner.ended?.();
      }
      if (again) hello();
      soon();
    },
    onMessage: (message, buffers) => receive(message as Down, buffers),
    onRefusedEdit(key, refused) {
      inner.refusedEdit(key, refused);
      soon();
    },
    onReleased: () => soon(),
  });

  // --- gestures ---
  function act(gesture: Gesture): void {
    requests.ask(gesture).then(
      () => complain(""),
      (refused: Error) => complain(refused.message),
    );
  }
  function complain(sentence: string): void {
    say(complaint, sentence);
    set(complaint, { hidden: sentence === "" });
  }
  function halt(): void {
    act({ kind: "stop" });
    inner.ended?.();
  }
  function announce(text: string): void {
    say(spoken, "");
    say(spoken, text);
  }

  root.addEventListener("keydown", (event) => onKey(event), { signal });

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
    } else if (
      key === "r" &&
      stacked !== null &&
      !event.altKey &&
      field === null &&
      !isSelect(event.target)
    ) {
      if (root.dataset.dead === undefined) act({ kind: "reset" });
      event.preventDefault();
    } else if (event.shiftKey && key === "enter") {
      return; // runs the cell
    } else if (field === null && inner.key?.(event)) {
      event.preventDefault();
    }
    // A notebook in command mode would take these keys for its own: "r" makes a raw cell.
    event.stopPropagation();
  }

  function isRunning(): boolean {
    return picture.busy || picture.progress.size > 0 || (inner.running?.() ?? false);
  }

  // --- news ---
  function receive(message: Down, buffers: DataView[]): void {
    const unpacked = unpack(message, buffers);
    const news = take(picture, unpacked);
    if (!inner.take(unpacked, news)) return;
    if (news === "state") requests.sawState(picture.revision);
    else if (news === "result") requests.sawResult(stacked?.resultRevision ?? -1);
    else if (news === "failure" && message.kind === "status") requests.sawFailure(message.revision);
    if (message.kind === "status" && message.error !== null) inner.ended?.();
    soon();
  }

  function takeEverything(everything: Everything): void {
    if (stacked !== null) takeAll(stacked, everything);
    inner.takeAll(everything);
  }

  function hello(): void {
    requests.ask({ kind: "hello" }).then(
      (everything) => {
        takeEverything(everything);
        requests.sawState(picture.revision);
        if (stacked !== null) requests.sawResult(stacked.resultRevision);
        soon();
      },
      () => soon(),
    );
  }

  // --- showing it: at most once a frame, however many messages a frame brings ---
  function soon(): void {
    if (frame === 0 && !signal.aborted) frame = requestAnimationFrame(update);
  }

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

  function isDead(): boolean {
    return kernel === "gone" || (exported && kernel !== "live");
  }

  function paint(): void {
    const dead = isDead();
    set(root, { "data-dead": dead, "aria-busy": isRunning() ? "true" : null });
    showKernel(dead);
    showComputing(dead);
    const { state } = picture;
    set(nothing, { hidden: state !== null || dead });
    set(body, { hidden: state === null });
    if (state === null) return;
    say(name, state.model);
    set(name, { title: `${state.model}, ${state.dtype} on ${state.device}` });
    say(failure, picture.failure);
    set(failure, { hidden: picture.failure === "" });
    inner.paint(dead);
    showFoot(state.notes);
    set(undo, { "data-off": !state.can_undo });
    set(redo, { "data-off": !state.can_redo });
    set(stop, { "data-off": !isRunning() });
    enable(dead);
  }

  /** Controls marked "data-live" need a kernel; their owners mark them "data-off" besides. */
  function enable(dead: boolean): void {
    for (const element of root.querySelectorAll<HTMLButtonElement>("[data-live]")) {
      const off = dead || element.dataset.off !== undefined;
      if (element.disabled !== off) element.disabled = off;
    }
  }

  function showKernel(dead: boolean): void {
    const kept = "What is drawn stays; addresses and numbers can be read and copied.";
    const [doing, todo] = inner.needs;
    const sentence =
      dead && exported
        ? `A saved picture without a kernel: ${doing} need one. ${kept}`
        : dead
          ? `No kernel: start it and run the cell again to ${todo}. ${kept}`
          : kernel === "busy"
            ? "The kernel is busy with something else; this goes on when it is free."
            : "";
    say(kernelNote, sentence);
    // What comes and goes under someone's hand must not push anything: it lies over the top line.
    set(kernelNote, { hidden: sentence === "", "data-over": !dead });
  }

  function showComputing(dead: boolean): void {
    const behind =
      !dead &&
      stacked !== null &&
      stacked.state !== null &&
      stacked.failure === "" &&
      stacked.resultRevision < stacked.revision;
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
    const counted = inner.counted.map((job) => picture.progress.get(job)).find(Boolean);
    const done = counted ? ` ${counted.done}/${counted.total}` : "";
    say(status, dead || !picture.busy ? "" : `${picture.what}${done}`);
    set(status, { title: status.textContent || null });
  }

  function showFoot(lines: readonly string[]): void {
    if (lines.join("\n") !== [...notes.children].map((line) => line.textContent).join("\n")) {
      notes.replaceChildren(...lines.map((line) => h("li", {}, line)));
    }
    if (stacked === null || stacked.result === null) {
      say(work, "");
      return;
    }
    const { blocks, positions, seconds, way } = stacked.result.work;
    say(work, `last run ${Math.round(1000 * seconds)} ms`);
    set(work, {
      title: `The last run recomputed ${blocks} blocks at ${positions} positions (${way})`,
    });
  }

  function start(): void {
    el.append(root);
    followTheme(root, signal, (next) => {
      theme = next;
      inner.theme(theme);
      soon();
    });
    const saved = readSnapshot(model.get("snapshot"));
    if (saved !== null) takeEverything(saved);
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

  return {
    root,
    body,
    failure,
    foot,
    requests,
    act,
    complain,
    complaint,
    halt,
    soon,
    announce,
    theme: () => theme,
    dead: isDead,
    start,
  };
}

/** What is copied as Python: the stack, unless somebody says otherwise. */
export interface Copied {
  ask(): Promise<string>;
  title: string;
  /** "The stack as Python". */
  name: string;
  /** Where the text is shown, "the stack". */
  below: string;
}

/** A button that copies as Python, and the text to copy by hand where a page may not. */
export function codeCopy(
  signal: AbortSignal,
  frame: Pick<Frame, "requests" | "complain" | "announce">,
  { ask, title, name, below }: Copied = {
    ask: async () => (await frame.requests.ask({ kind: "code" })).text,
    title: "Python that does the same with TransformerLens alone",
    name: "The stack as Python",
    below: "the stack",
  },
): { button: HTMLButtonElement; listing: HTMLElement } {
  const code = button("copy as code", { "data-live": true, title }, () => void copyCode(), signal);
  const listing = h("textarea", {
    class: "pc-input pc-textarea pc-code",
    readonly: true,
    rows: 12,
    "aria-label": name,
    hidden: true,
  });

  async function copyCode(): Promise<void> {
    try {
      const python = await ask();
      frame.complain("");
      const done = await copy(python);
      listing.value = python;
      set(listing, { hidden: done });
      if (!done) listing.select();
      frame.announce(
        done ? "Copied as Python" : `The page may not copy; the code is shown below ${below}`,
      );
      if (done) {
        say(code, "copied");
        setTimeout(() => say(code, "copy as code"), 1200);
      }
    } catch (refused) {
      frame.complain((refused as Error).message);
    }
  }

  return { button: code, listing };
}

function textField(target: EventTarget | null): HTMLInputElement | HTMLTextAreaElement | null {
  if (target instanceof HTMLTextAreaElement) return target;
  return target instanceof HTMLInputElement && target.type === "text" ? target : null;
}

function isSelect(target: EventTarget | null): boolean {
  return target instanceof HTMLSelectElement;
}
