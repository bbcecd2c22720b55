// ActivationMaximizer: what drives a unit, optimised while you watch, beside what the corpus has.
//
// Python optimises and streams frames and fronts; this file wires them to the parts that show them.
// Which track, step and candidate is looked at is the page's own matter: Python is only told when
// one is to go into the session.
import { activationAxis } from "./activation-axis";
import { axisMarks } from "./axis-marks";
import { corpusColumn } from "./corpus-column";
import { discriminativePanel } from "./discriminative-panel";
import { button, h, set } from "./dom";
import { examplesPanel } from "./examples-panel";
import { facetsPanel } from "./facets-panel";
import { short } from "./format";
import { createFrame, type Host } from "./frame";
import { matterPanel } from "./matter-panel";
import { optionsPanel } from "./maximizer-options";
import {
  bestCandidate,
  type Candidate,
  emptyMaximizer,
  isRunning,
  keep,
  type MaximizerPicture,
  refusalOf,
  takeBody,
  takeMaximizer,
  trackOf,
} from "./maximizer-picture";
import type { Save } from "./messages";
import { newest } from "./newest";
import { frameAt, optimisedPanel, spoken } from "./optimised-panel";
import { ownInput } from "./own-input";
import { promptsPanel } from "./prompts-panel";
import type { Gesture } from "./requests";
import { runControls } from "./run-controls";
import { type Format, saveButtons } from "./save-buttons";
import { sessionStrip } from "./session-strip";
import { download, fileName, pageSvg, toPng } from "./svg";
import { tabs } from "./tabs";
import { unitForm } from "./unit-form";

type TabName = "prompts" | "facets" | "examples" | "matter" | "discriminate";

function render(host: Host) {
  const { signal } = host;
  const picture: MaximizerPicture = emptyMaximizer();
  /** What is looked at; null is what is best, or newest. */
  let chosenTrack: number | null = null;
  let chosenStep: number | null = null;
  let chosenCandidate: number | null = null;
  /** The candidate under the pointer. */
  let looked: number | null = null;
  let optionsOpen = false;

  const frame = createFrame(host, {
    name: "ActivationMaximizer",
    className: "pc-activation-maximizer",
    needs: ["optimising and measuring", "optimise and measure"],
    counted: COUNTED,
    picture,
    take(message, news) {
      if (news !== "own") return news !== "old";
      const fresh = takeMaximizer(picture, message);
      if (fresh && message.kind === "maximizer") sawState();
      return fresh;
    },
    takeAll(everything) {
      if (everything.of !== "maximizer") return;
      takeBody(picture, everything);
      sawState();
    },
    paint,
    theme(theme) {
      for (const part of [optimised, corpus, axis, prompts, examples, discriminative, strip]) {
        part.paint(theme);
      }
    },
    refusedEdit: (key, refused) => strip.refuse(key, refused.message),
    running: () => isRunning(picture),
    key(event) {
      if (event.key.toLowerCase() === "r" && !event.altKey) {
        return !(event.target instanceof HTMLSelectElement) && !frame.dead() && strip.reset();
      }
      if (event.key !== " " || event.target !== frame.root) return false;
      toggle();
      return true;
    },
  });
  const { requests, announce, soon } = frame;

  /** No result follows an edit of the stack: the next one goes up once its state is here. */
  function sawState(): void {
    requests.sawState(picture.revision);
    requests.sawResult(picture.revision);
  }

  /** Sends a gesture; `refuse` hears of a refusal, and of "" when it was taken. */
  function ask(gesture: Gesture, refuse: (sentence: string) => void): void {
    if (frame.dead()) return;
    requests.ask(gesture).then(
      () => refuse(""),
      (refused: Error) => {
        refuse(refused.message);
        soon();
      },
    );
  }

  // --- what is maximised, and how ---
  const unit = unitForm(signal, {
    complete: (prefix) => requests.ask({ kind: "complete", prefix }),
    aim: (terms) => requests.ask({ kind: "aim", terms: terms as [(typeof terms)[number]] }),
    changed: soon,
  });
  const options = optionsPanel(signal, {
    change: (change) => requests.ask({ kind: "options", ...change }),
  });
  const openOptions = button(
    "options",
    {
      class: "pc-button pc-quiet pc-options-button",
      "aria-expanded": "false",
      "aria-controls": options.element.id,
    },
    () => {
      optionsOpen = !optionsOpen;
      set(openOptions, { "aria-expanded": optionsOpen ? "true" : "false" });
      set(options.element, { hidden: !optionsOpen });
    },
    signal,
  );
  const controls = runControls(
    signal,
    {
      start: () => void start(),
      goOn: () => go(false),
      pause: () => ask({ kind: "pause" }, controls.refuse),
      stop: () => frame.halt(),
    },
    options.seed,
    openOptions,
  );

  async function start(): Promise<void> {
    // What was typed and not entered is meant too; what was refused is not started.
    if (frame.dead() || !(await unit.settled()) || signal.aborted) return;
    go(true);
  }
  function go(again: boolean): void {
    picture.failure = "";
    chosenTrack = chosenStep = chosenCandidate = null;
    if (picture.state?.family === "prompt") {
      ask({ kind: "dream", again, ...options.prompts() }, controls.refuse);
    } else ask({ kind: "climb", again }, controls.refuse);
    soon();
  }
  function toggle(): void {
    const activity = picture.state?.activity ?? null;
    if (activity === null) void start();
    else if (activity.paused) go(false);
    else ask({ kind: "pause" }, controls.refuse);
  }

  // --- three columns on one axis ---
  const scrubs = newest(
    (question: { track: number; step: number }) => requests.ask({ kind: "scrub", ...question }),
    (body) => {
      keep(picture, body.frame);
      soon();
    },
    (refused) => {
      optimised.refuse(refused.message);
      soon();
    },
  );
  const optimised = optimisedPanel(signal, {
    start: () => void start(),
    scrub(step) {
      chosenStep = step;
      const track = shownTrack();
      const known = step === null || track === null || picture.held.get(track)?.has(step);
      if (known || frame.dead()) scrubs.ask(null);
      else scrubs.ask({ track, step });
      soon();
    },
    load() {
      const track = shownTrack();
      if (track === null) return;
      const step = frameAt(picture, track, chosenStep)?.step ?? null;
      ask({ kind: "load", track, step }, optimised.refuse);
    },
    save: (what, format) => void save({ what, format, track: shownTrack() }, optimised.refuse),
  });
  const corpus = corpusColumn(signal, {
    measure: () => ask({ kind: "examples" }, corpus.refuse),
    load: (group, example) =>
      ask({ kind: "load", example: [group, example] as never }, corpus.refuse),
  });
  const own = ownInput(signal, {
    text: (text) => ask({ kind: "own", text }, own.refuse),
    async picture({ name, pieces }) {
      for (const [index, data] of pieces.entries()) {
        await requests.ask({ kind: "piece", name, index, of: pieces.length, data });
      }
      await requests.ask({ kind: "own", piece: name });
    },
    clear: () => ask({ kind: "own" }, own.refuse),
  });
  const axis = activationAxis(
    signal,
    ...saveButtons("the axis", (format) => void figure("axis", format), signal),
    button(
      "CSV",
      {
        class: "pc-button pc-quiet pc-save pc-history",
        "data-live": true,
        title: "Save the activation at each step as CSV",
        "aria-label": "Save the activation at each step as CSV",
      },
      () => void save({ what: "history", format: "csv" }, optimised.refuse),
      signal,
    ),
  );

  // --- tabs ---
  const prompts = promptsPanel(signal, {
    rivals: (method) => ask({ kind: "rivals", method }, prompts.refuse),
    load(candidate) {
      chosenCandidate = candidate;
      const found = picture.front?.candidates.find((each) => each.key === candidate);
      if (found !== undefined) announce(`Loading ${spoken(found)}`);
      ask({ kind: "load", candidate }, prompts.refuse);
      soon();
    },
    table: () => void save({ what: "front", format: "csv" }, prompts.refuse),
    figure: (format) => void figure("front", format),
    look(candidate) {
      looked = candidate;
      soon();
    },
  });
  const facets = facetsPanel(signal, {
    facets: (count) => many({ kind: "facets", count }),
    diverse: (count, strength) => many({ kind: "diverse", count, strength }),
    show(track) {
      chosenTrack = track;
      chosenStep = null;
      soon();
    },
    save: (what, format) => void save({ what, format }, facets.refuse),
  });
  const examples = examplesPanel(signal, {
    measure: () => ask({ kind: "examples" }, examples.refuse),
    load: (group, example) =>
      ask({ kind: "load", example: [group, example] as never }, examples.refuse),
    changed: soon,
  });
  const matter = matterPanel(signal, () => {
    const prompt = picture.state?.family === "prompt";
    const [candidate, track] = [
      prompt ? shownCandidate()?.key : null,
      prompt ? null : shownTrack(),
    ];
    ask({ kind: "matter", candidate: candidate ?? null, track }, matter.refuse);
  });
  const discriminative = discriminativePanel(signal, {
    find: (units, clusters, seed) =>
      ask(
        { kind: "discriminate", units: units as [string, string], clusters, seed },
        discriminative.refuse,
      ),
    stop: () => frame.halt(),
    load: (stimulus) => ask({ kind: "load", stimulus }, discriminative.refuse),
    changed: soon,
    announce,
  });
  const below = tabs<TabName>(
    signal,
    "More about the unit",
    [
      { name: "prompts", label: "prompts", panel: prompts.element },
      { name: "facets", label: "facets", panel: facets.element },
      { name: "examples", label: "examples", panel: examples.element },
      { name: "matter", label: "does it matter?", panel: matter.element },
      { name: "discriminate", label: "discriminative stimuli", panel: discriminative.element },
    ],
    soon,
  );

  // --- the session ---
  const strip = sessionStrip(signal, frame);

  async function many(gesture: Extract<Gesture, { kind: "facets" | "diverse" }>): Promise<void> {
    if (frame.dead() || !(await unit.settled()) || signal.aborted) return;
    picture.failure = "";
    chosenTrack = chosenStep = null;
    ask(gesture, facets.refuse);
  }

  const failures = h("div", {}, frame.failure);
  frame.body.append(
    h("div", { class: "pc-aim" }, unit.element, controls.element),
    options.element,
    failures,
    h("div", { class: "pc-columns" }, optimised.element, corpus.element, own.element),
    axis.element,
    below.element,
    strip.element,
    frame.foot,
  );

  // --- what is looked at ---
  function shownTrack(): number | null {
    if (trackOf(picture, chosenTrack) !== null) return chosenTrack;
    const busy = picture.tracks.find((each) => each.status === "running");
    return (busy ?? picture.tracks[0])?.key ?? null;
  }
  function shownCandidate(): Candidate | null {
    const key = looked ?? chosenCandidate;
    const found = picture.front?.candidates.find((each) => each.key === key);
    return found ?? bestCandidate(picture.front);
  }

  // --- files ---
  async function save(
    wanted: Omit<Save, "id" | "kind">,
    refuse: (sentence: string) => void,
  ): Promise<void> {
    if (frame.dead()) return;
    announce("Saving …");
    try {
      const { name, mime, data } = await requests.ask({ kind: "save", ...wanted });
      download(name, new Blob([data.slice()], { type: mime }));
      refuse("");
      announce(`Saved ${name}`);
    } catch (refused) {
      refuse((refused as Error).message);
    }
  }
  async function figure(which: "axis" | "front", format: Format): Promise<void> {
    const drawn = which === "axis" ? axis.drawn() : prompts.drawn();
    if (drawn === null) return;
    const of = picture.state?.objective ?? "";
    const title =
      which === "axis" ? `Activation of ${of}` : `Activation of ${of} against cross-entropy`;
    const font = getComputedStyle(frame.root).getPropertyValue("--pc-code") || "monospace";
    const svg = pageSvg(drawn, { title, what: "", theme: frame.theme(), font });
    const name = fileName(["patchclamp", of, which], format);
    if (format === "svg") download(name, svg, "image/svg+xml");
    else download(name, await toPng(svg));
    announce(`Saved ${name}`);
  }

  // --- showing it ---
  function paint(dead: boolean): void {
    const { state } = picture;
    if (state === null) return;
    const theme = frame.theme();
    const track = shownTrack();
    const candidate = shownCandidate();
    const prompting = state.family === "prompt";
    strip.update(picture, dead);
    // Without a strip, refusals that have no place of their own stand at the top.
    const { complaint } = frame;
    if (state.strip === null && complaint.parentElement !== failures) failures.append(complaint);
    unit.update(state);
    controls.update(picture);
    options.update(state);
    optimised.update(picture, { track, step: chosenStep, candidate }, dead, theme);
    corpus.update(picture, theme);
    own.update(picture, theme);
    set(axis.element, { "data-history": picture.tracks.length > 0 });
    axis.update(axisMarks(picture, { track, step: chosenStep, candidate }));
    const there: TabName[] = prompting ? ["prompts"] : ["facets"];
    there.push("examples", "matter");
    if (refusalOf(picture, "discriminate") === null) there.push("discriminate");
    const several = picture.tracks.filter((each) => each.kind !== "climb").length;
    const found = picture.front?.candidates.length ?? 0;
    const { matter: ablated } = picture;
    const measure = ablated?.measured.startsWith("KL") ? "KL " : "";
    below.update(there, {
      facets: several > 0 ? String(several) : "",
      prompts: found > 0 ? String(found) : "",
      matter: ablated === null ? "" : `${measure}${short(ablated.kl)}`,
    });
    // A part that nobody sees is painted when it is shown.
    if (below.chosen() === "prompts") prompts.update(picture, candidate, theme);
    if (below.chosen() === "facets") facets.update(picture, track, theme);
    if (below.chosen() === "examples") examples.update(picture, theme);
    if (below.chosen() === "matter") matter.update(picture, theme);
    if (below.chosen() === "discriminate") discriminative.update(picture, theme);
  }

  frame.start();
}

/** What was asked for on the side goes first: the status line is about that while it goes on. */
const COUNTED = [
  ...["examples", "matter", "discriminate", "single", "greedy"],
  ...["facets", "diverse", "climb", "dream"],
  ...["reference", "control"],
];

export default { render };
