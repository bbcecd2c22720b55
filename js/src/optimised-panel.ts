// What is being optimised: the picture of one track with its steps, or the prompt of one candidate.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exact, quoted, short } from "./format";
import { heatBar } from "./heat-bar";
import { WORD } from "./marks";
import {
  type Candidate,
  isRunning,
  type MaximizerPicture,
  nearest,
  promptScale,
  type StimulusFrame,
  stepsOf,
  trackOf,
} from "./maximizer-picture";
import { stepCurve } from "./step-curve";
import { rasterScale, stimulusView } from "./stimulus";
import { tokenLine } from "./token-line";

export interface OptimisedPanel {
  element: HTMLElement;
  /** `step` is null for the newest; `candidate` is what is shown of prompts. */
  update(
    picture: MaximizerPicture,
    shown: { track: number | null; step: number | null; candidate: Candidate | null },
    dead: boolean,
    theme: Theme,
  ): void;
  refuse(sentence: string): void;
  paint(theme: Theme): void;
}

export interface OptimisedActions {
  start(): void;
  /** Null: the newest. */
  scrub(step: number | null): void;
  load(): void;
  save(what: "sheet" | "animation", format: "png" | "gif" | "webp"): void;
}

export function optimisedPanel(signal: AbortSignal, actions: OptimisedActions): OptimisedPanel {
  const name = h("h3", { class: "pc-title" }, "optimised");
  const label = h("span", { class: "pc-muted pc-small-print pc-ellipsis" });
  const value = h("span", { class: "pc-number pc-value" });
  const where = h("span", { class: "pc-number pc-muted" });
  const view = stimulusView(signal, "The optimised picture", false);
  const steps = stepCurve(signal, actions.scrub);
  const live = button(
    "newest",
    { class: "pc-button pc-quiet pc-newest", title: "Show the newest picture and follow it" },
    () => actions.scrub(null),
    signal,
  );
  const load = button(
    "load",
    {
      class: "pc-button pc-quiet",
      "data-live": true,
      title: "Put it into the session, for all its views",
    },
    actions.load,
    signal,
  );
  const files = h(
    "span",
    { class: "pc-group" },
    load,
    ...(
      [
        ["PNG", "sheet", "png", "Save a sheet of all pictures with their activations as PNG"],
        ["GIF", "animation", "gif", "Save the steps as an animated GIF"],
        ["WebP", "animation", "webp", "Save the steps as an animated WebP"],
      ] as const
    ).map(([word, what, format, title]) =>
      button(
        word,
        { class: "pc-button pc-quiet pc-save", title, "aria-label": title, "data-live": true },
        () => actions.save(what, format),
        signal,
      ),
    ),
  );
  const begin = button("start", { "data-live": true }, actions.start, signal);
  const none = h("p", { class: "pc-note pc-first" }, "Nothing is optimised yet: ", begin, ".");
  // Of a raster: what its colours are.
  const bar = heatBar(signal, () => undefined);
  const search = button("search", { "data-live": true }, actions.start, signal);
  const unasked = h(
    "p",
    { class: "pc-note pc-first" },
    "No prompt is optimised yet: ",
    search,
    ".",
  );
  const line = tokenLine();
  const reading = h("p", { class: "pc-muted pc-small-print pc-candidate-reading" });
  const prompt = h("div", { class: "pc-optimised-prompt" }, line.element, reading);
  const note = h("p", { class: "pc-muted pc-small-print pc-track-note" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const picturePart = h(
    "div",
    { class: "pc-optimised-picture" },
    h("div", { class: "pc-optimised-stage" }, view.element, none),
    bar.element,
    steps.element,
    h("div", { class: "pc-line pc-at-step" }, where, live, files),
  );
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "section",
    { class: "pc-part pc-optimised", "aria-label": "Optimised" },
    run,
    h("div", { class: "pc-line pc-column-head" }, name, label, value),
    picturePart,
    unasked,
    prompt,
    note,
    error,
  );

  const showPrompt = (picture: MaximizerPicture, candidate: Candidate | null, theme: Theme) => {
    set(prompt, { hidden: candidate === null });
    if (candidate === null) return;
    line.update(candidate.tokens, candidate.activations, promptScale(picture), theme);
    const { cross_entropy: entropy } = candidate;
    say(
      reading,
      entropy === null ? "one token, nothing to predict" : `${short(entropy)} nats a token`,
    );
    set(reading, { title: entropy === null ? null : exact(entropy) });
  };

  return {
    element,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    update(picture, shown, dead, theme) {
      const { state } = picture;
      if (state === null) return;
      const prompts = state.family === "prompt";
      const track = trackOf(picture, shown.track);
      // Its place is kept from the beginning on: what is below must not jump when a run starts.
      set(picturePart, { hidden: prompts });
      set(none, { hidden: track !== null });
      set(unasked, { hidden: !prompts || shown.candidate !== null || isRunning(picture) });
      set(element, { "data-family": state.family });
      for (const each of [steps.element, files]) set(each, { "data-idle": track === null });
      const stale = prompts
        ? picture.front !== null && picture.front.objective !== state.objective
        : track !== null && track.objective !== state.objective;
      set(element, { "data-stale": stale });
      if (prompts) {
        showPrompt(picture, shown.candidate, theme);
        const { candidate } = shown;
        say(label, candidate === null ? "" : WORD[candidate.kind]);
        say(value, candidate === null ? "" : short(candidate.activation));
        set(value, { title: candidate === null ? null : exact(candidate.activation) });
        const told = picture.front?.note ?? "";
        say(note, stale ? `Of another unit, ${picture.front?.objective}. ${told}` : told);
        return;
      }
      set(prompt, { hidden: true });
      if (track === null) {
        for (const each of [label, value, note, where]) say(each, "");
        view.update(null);
        set(bar.element, { hidden: true });
        return;
      }
      const latest = picture.latest.get(track.key) ?? null;
      const frame = frameAt(picture, track.key, shown.step) ?? latest;
      view.update(frame?.picture ?? null);
      const raster = frame?.picture.renderer === "raster" ? frame.picture : null;
      set(bar.element, { hidden: raster === null });
      if (raster !== null) bar.update(rasterScale(raster), "value");
      const curve = picture.curves.get(track.key) ?? { stride: 1, values: [] };
      steps.update({
        curve,
        total: Math.max(track.total, latest?.total ?? 0),
        steps: stepsOf(picture, track.key, dead),
        step: frame?.step ?? null,
      });
      say(label, track.kind === "climb" ? "" : track.label);
      say(value, frame === null ? "" : short(frame.value));
      set(value, { title: frame === null ? null : exact(frame.value) });
      const behind =
        shown.step !== null &&
        frame !== null &&
        nearestStep(picture, track.key, shown.step, dead) !== frame.step;
      say(where, frame === null ? "" : `step ${frame.step}${behind ? " …" : ""}`);
      set(live, { "data-idle": shown.step === null });
      live.tabIndex = shown.step === null ? -1 : 0;
      say(note, stale ? `Of another unit, ${track.objective}. ${track.note}` : track.note);
    },
    paint(theme) {
      view.paint(theme);
      bar.paint(theme);
      steps.paint(theme);
    },
  };
}

/** A frame that the page holds, the nearest to a step; null for the newest, or for none. */
export function frameAt(
  picture: MaximizerPicture,
  track: number,
  step: number | null,
): StimulusFrame | null {
  if (step === null) return null;
  const held = picture.held.get(track);
  const at = nearest([...(held?.keys() ?? [])], step);
  return at === null ? null : (held?.get(at) ?? null);
}

function nearestStep(
  picture: MaximizerPicture,
  track: number,
  step: number,
  dead: boolean,
): number | null {
  return nearest(stepsOf(picture, track, dead), step);
}

/** A prompt in words, for who cannot see its tokens. */
export function spoken(candidate: Candidate): string {
  const entropy =
    candidate.cross_entropy === null ? "" : `, cross-entropy ${short(candidate.cross_entropy)}`;
  return `${WORD[candidate.kind]}, activation ${short(candidate.activation)}${entropy}: ${quoted(candidate.text)}`;
}
