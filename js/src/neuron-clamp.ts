// NeuronClamp: set, steer, scale or cut out neurons of a live model and see what it then predicts.
//
// Python declares (state) and computes (result, curve, effects, generated); this file wires those
// messages to the parts that show them, and the parts' gestures to the request loop.
import { acceptAddresses } from "./address";
import { css } from "./colour";
import { lineColours } from "./curve";
import { type CurvesPicture, curveSchedule, takeCurve } from "./curves";
import { button, h, set } from "./dom";
import { createFrame, type Host } from "./frame";
import { generation } from "./generate";
import type { PromptToken } from "./messages";
import { metricReading } from "./metric";
import { nextToken } from "./next-token";
import { picker } from "./picker";
import { emptyPicture, forgetRows } from "./picture";
import { prompt } from "./prompt";
import { keyItem, stackOf, stackSection } from "./stack-section";

function render(host: Host) {
  const { signal } = host;
  const picture: CurvesPicture = { ...emptyPicture(), curves: new Map() };
  let generatedAt = -1;

  const frame = createFrame(host, {
    name: "NeuronClamp",
    className: "pc-neuron-clamp",
    needs: ["clamping, ranking and continuing", "clamp, rank and continue"],
    counted: ["reference", "control"],
    picture,
    take(message, news) {
      if (news === "state") forgetRows(picture, picture.curves);
      if (news !== "own") return news !== "old";
      if (message.kind === "curve") return takeCurve(picture, message);
      if (message.kind !== "generated") return false;
      if (message.index === 0 && !continued.running()) generatedAt = picture.revision;
      continued.take(message);
      return true;
    },
    takeAll(everything) {
      if (everything.of !== "hello") return;
      for (const entry of everything.curves) takeCurve(picture, entry);
      forgetRows(picture, picture.curves);
      if (everything.curves.every((each) => each.revision === everything.revision)) {
        schedule.accept(picture);
      }
      continued.fill(everything.generated);
      generatedAt = picture.revision;
    },
    paint,
    theme(theme) {
      text.paint(theme);
      rows.paint(theme);
      chooser.paint(theme);
      const { logprob, kl } = lineColours(theme);
      clamped.legend(
        keyItem("line", "log p of the target", css(logprob)),
        keyItem("dash", "KL", css(kl)),
        keyItem("band", "mean ± sd on reference texts"),
        keyItem("observed", "observed here"),
        keyItem("control", "random control"),
      );
    },
    refusedEdit: (key, refused) => rows.refuse(key, refused.message),
    running: () => continued.running(),
    ended: () => continued.end(),
  });
  const { requests, announce, halt } = frame;

  // --- the parts, from top to bottom ---
  const text = prompt(signal, {
    run: (typed) => requests.ask({ kind: "prompt", text: typed }),
    onSelect: () => chooser.selected(),
  });
  const metric = metricReading(signal, {
    search: async (query) => (await requests.ask({ kind: "tokens", query })).items,
    target: (token) => chooseTarget(token),
  });
  const chooser = picker(signal, {
    requests,
    announce,
    selectedTokens: () => text.strip.selected(),
  });
  const rows = stackOf(signal, frame, () => text.strip.selected());
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
  const clamped = stackSection(signal, frame, rows, empty);
  const encoder = h(
    "p",
    { class: "pc-note", hidden: true },
    "This model predicts no next token; how far each token's output moved is shaded in the prompt.",
  );
  const out = h(
    "div",
    { class: "pc-out" },
    h("section", { class: "pc-part pc-distribution", "aria-label": "Next token" }, next.element),
    continued.element,
  );
  frame.body.append(
    h("div", { class: "pc-head" }, text.element, metric.element),
    frame.failure,
    chooser.element,
    clamped.element,
    encoder,
    out,
    frame.foot,
  );

  function chooseTarget(token: number): void {
    requests.ask({ kind: "target", token }).then(
      () => metric.refuse(""),
      (refused: Error) => metric.refuse(refused.message),
    );
  }

  acceptAddresses(clamped.element, (address) => chooser.add(address), signal);

  function paint(dead: boolean): void {
    const { state, result } = picture;
    if (state === null) return;
    const theme = frame.theme();
    const dragging = rows.dragging();
    text.update(state, result?.moved ?? null, !dragging, result?.moved_as);
    metric.update(state.metric, result?.metric ?? null, theme);
    const predicts = result === null || result.metric !== null;
    for (const part of [metric.element, out]) set(part, { hidden: !predicts });
    set(encoder, { hidden: predicts });
    const all = new Set(state.rows.map((row) => row.address));
    chooser.update(state.tokens, state.directions, all);
    chooser.progress(picture.progress.get("rank") ?? null);
    const effectsAreOld = picture.effectsRevision < picture.revision;
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
    clamped.update(state.rows.length > 0, effectsAreOld && !dead);
    next.update(result?.top ?? [], state.metric?.target.id ?? null, !dragging, theme);
    continued.context(state.prompt ?? textOf(state.tokens));
    continued.outdated(generatedAt < picture.revision);
    schedule.update(
      picture,
      !dead && !dragging && picture.resultRevision >= picture.revision && picture.failure === "",
    );
  }

  frame.start();
}

function textOf(tokens: readonly PromptToken[]): string {
  return tokens.map((token) => (token.bos ? "" : token.text)).join("");
}

export default { render };
