// Start, pause, continue, stop, and how far it is. The buttons keep their places and widths: what
// is pressed while something runs must not move.
import { button, h, say, set } from "./dom";
import { short } from "./format";
import { isRunning, type MaximizerPicture, refusalOf, taken } from "./maximizer-picture";

export interface RunControls {
  element: HTMLElement;
  update(picture: MaximizerPicture): void;
  refuse(sentence: string): void;
}

export interface RunActions {
  /** From the first step, whatever is paused. */
  start(): void;
  goOn(): void;
  pause(): void;
  stop(): void;
}

/** What is counted: "step 120/256". */
const WORDS = {
  climb: "step",
  facets: "step",
  diverse: "step",
  dream: "iteration",
  greedy: "greedy, iteration",
  single: "single tokens,",
  examples: "corpus,",
  own: "your own input",
  matter: "ablating,",
  discriminate: "stimuli, iteration",
} as const;

export function runControls(
  signal: AbortSignal,
  actions: RunActions,
  ...rest: HTMLElement[]
): RunControls {
  const go = button(
    "start",
    { class: "pc-button pc-go", "data-live": true },
    () => {
      if (state === "running") actions.pause();
      else if (state === "paused") actions.goOn();
      else actions.start();
    },
    signal,
  );
  const again = button(
    "again",
    { "data-live": true, title: "Start again from the first step" },
    () => actions.start(),
    signal,
  );
  const stop = button(
    "stop",
    {
      "data-live": true,
      title: "Stop, and keep what is best (Esc)",
      "aria-label": "Stop this run",
    },
    () => actions.stop(),
    signal,
  );
  const at = h("span", { class: "pc-number pc-step-count" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const element = h(
    "div",
    { class: "pc-run-controls" },
    h("div", { class: "pc-line" }, h("span", { class: "pc-group" }, go, again, stop), at, ...rest),
    error,
  );
  let state: "idle" | "running" | "paused" = "idle";

  return {
    element,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    update(picture) {
      const { state: declared, front, progress } = picture;
      if (declared === null) return;
      const { activity, family } = declared;
      const prompts = family === "prompt";
      // What has a pause is what optimises; measuring is stopped and asked for again.
      const held =
        activity !== null && ["climb", "facets", "diverse", "dream"].includes(activity.mode);
      state = !held ? "idle" : activity.paused ? "paused" : "running";
      const word = { idle: "start", running: "pause", paused: "continue" }[state];
      say(go, word);
      const refusal = refusalOf(picture, prompts ? "dream" : "climb");
      set(go, {
        "data-off": refusal !== null && state === "idle",
        title:
          refusal ??
          {
            idle: prompts ? "Search for prompts (EPO)" : "Optimise a picture",
            running: "Hold it where it is (Space)",
            paused: "Go on where it is (Space)",
          }[state],
      });
      set(again, { "data-off": state === "idle" || refusal !== null });
      set(stop, { "data-off": activity === null });
      const mode = activity?.mode ?? (prompts ? "dream" : "climb");
      const track = picture.tracks.find((each) => each.status === "running") ?? picture.tracks[0];
      const counted = progress.get(mode);
      const of =
        mode === "climb" || mode === "facets" || mode === "diverse"
          ? track === undefined
            ? null
            : ([taken(picture, track), track.total] as const)
          : counted !== undefined
            ? ([counted.done, counted.total] as const)
            : front !== null && prompts
              ? ([front.iteration, front.iterations] as const)
              : null;
      const runs = isRunning(picture) || activity?.paused === true;
      const words = runs || activity === null ? WORDS[mode] : "";
      say(at, of === null ? "" : `${words} ${of[0]}/${of[1]}`);
      const tried = prompts && front !== null && front.tried > 0;
      set(at, {
        title: tried
          ? `${front.tried.toLocaleString("en-US")} prompts tried in ${short(front.seconds)} s`
          : null,
      });
    },
  };
}
