// NeuronAtlas: every neuron of a model in a table, a scatter plot beside it, and a card of one.
//
// Python sifts, sorts and looks up; the page asks for the rows that it shows. The plot is Altair's
// own widget, and what holds a neuron is a NeuronClamp: both are the host's to make.
import {
  type AtlasPicture,
  emptyAtlas,
  takeAtlas,
  takeBody,
  takeCard,
  takePage,
} from "./atlas-picture";
import { type Asked, atlasSearch } from "./atlas-search";
import { childWidget } from "./child-widget";
import { button, h, say, set } from "./dom";
import { createFrame, type Host } from "./frame";
import { neuronCard } from "./neuron-card";
import { neuronTable, showCount } from "./neuron-table";
import { newest } from "./newest";
import type { Gesture } from "./requests";

function render(host: Host) {
  const { signal } = host;
  const picture: AtlasPicture = emptyAtlas();

  const frame = createFrame(host, {
    name: "NeuronAtlas",
    className: "pc-neuron-atlas",
    needs: ["searching and measuring", "search and measure"],
    counted: ["atlas"],
    picture,
    take(message, news) {
      if (news !== "own") return news !== "old";
      return takeAtlas(picture, message);
    },
    takeAll(everything) {
      if (everything.of === "atlas") takeBody(picture, everything);
    },
    paint,
    theme: () => undefined,
    refusedEdit: () => undefined,
  });
  const { requests, announce, soon } = frame;

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

  // --- building ---
  const plan = h("p", { class: "pc-note" });
  const buildError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const start = button(
    "build the atlas",
    { class: "pc-button pc-build", "data-live": true },
    () =>
      ask({ kind: "build" }, (sentence) => {
        say(buildError, sentence);
        set(buildError, { hidden: sentence === "" });
      }),
    signal,
  );
  const bar = h("progress", { class: "pc-build-progress", "aria-label": "Building", hidden: true });
  const building = h("div", { class: "pc-building" }, plan, start, bar, buildError);

  // --- the table ---
  const search = atlasSearch(signal, sift);
  function sift(asked: Asked): void {
    picture.failure = "";
    ask({ kind: "sift", ...asked }, search.refuse);
  }
  const pages = newest(
    (start: number) => requests.ask({ kind: "page", start, count: 100 }),
    (body) => {
      takePage(picture, body);
      soon();
    },
    () => undefined,
  );
  const table = neuronTable(signal, {
    need(first) {
      if (!frame.dead()) pages.ask(first);
    },
    order(order, falling) {
      search.ask({ order, falling });
    },
    meet,
    hold,
  });
  const count = h("span", { class: "pc-muted", role: "status" });
  const of = h("span", { class: "pc-muted" });

  // --- one neuron ---
  const meets = newest(
    (address: string | null) => requests.ask({ kind: "meet", address }),
    ({ card }) => {
      takeCard(picture, card);
      if (card !== null) announce(`${card.row.address} is shown below the table`);
      soon();
    },
    (refused) => {
      if (picture.card === null) frame.complain(refused.message);
      else card.refuse(refused.message);
    },
  );
  function meet(address: string): void {
    if (!frame.dead()) meets.ask(address);
  }
  function hold(address: string): void {
    ask({ kind: "hold", address }, card.refuse);
  }
  const card = neuronCard(signal, {
    meet,
    hold,
    close() {
      if (frame.dead()) return;
      requests.ask({ kind: "meet", address: null }).then(
        () => {
          takeCard(picture, null);
          soon();
        },
        (refused: Error) => card.refuse(refused.message),
      );
    },
    weigh(address, token) {
      if (frame.dead()) return;
      announce(`Measuring the effect of ${address}`);
      requests.ask({ kind: "weigh", address, token }).then(
        (body) => {
          if (picture.card?.row.address === address) picture.weighed = body;
          card.refuse("");
          soon();
        },
        (refused: Error) => card.refuse(refused.message),
      );
    },
    shade(address, place) {
      if (frame.dead()) return;
      // Another click folds it.
      if (picture.shaded.delete(place)) return soon();
      requests.ask({ kind: "shade", address, place }).then(
        (body) => {
          if (picture.card?.row.address === address) picture.shaded.set(place, body);
          card.refuse("");
          soon();
        },
        (refused: Error) => {
          card.refuse(refused.message, place);
          soon();
        },
      );
    },
  });

  // --- other widgets ---
  const model = host.model as never;
  const chart = childWidget(model, "chart", signal, soon);
  const saved = h("img", {
    class: "pc-saved-chart",
    alt: "Firing rate against specialness",
    hidden: true,
  });
  const waiting = h("p", { class: "pc-note", hidden: true }, "The scatter plot is being made …");
  const plot = h("div", { class: "pc-atlas-plot" }, chart, saved, waiting);
  const clamp = childWidget(model, "clamp", signal, soon);
  let address = "";
  signal.addEventListener("abort", () => URL.revokeObjectURL(address), { once: true });

  const found = h(
    "div",
    { class: "pc-atlas-found" },
    search.element,
    frame.complaint,
    h("div", { class: "pc-line pc-atlas-of" }, count, of),
    h("div", { class: "pc-atlas-columns" }, table.element, plot),
    card.element,
    clamp,
  );
  frame.body.append(building, found, frame.foot);

  function paint(dead: boolean): void {
    const { state } = picture;
    if (state === null) return;
    const { atlas } = state;
    if (picture.failure !== "") search.forget();
    // A failure stands at what failed: the building, or the search.
    const asked = atlas === null ? building : search.element;
    if (frame.failure.parentElement !== asked) asked.append(frame.failure);
    set(building, { hidden: atlas !== null });
    set(found, { hidden: atlas === null });
    if (atlas === null) {
      const progress = picture.progress.get("atlas");
      const running = picture.busy || progress !== undefined;
      say(plan, state.plan);
      set(start, { "data-off": running });
      set(bar, {
        hidden: !running,
        value: progress?.done ?? null,
        max: Math.max(1, progress?.total ?? 1),
      });
      return;
    }
    search.update(state);
    table.update(picture);
    showCount(count, state);
    const corpus =
      atlas.corpus === ""
        ? "no corpus read"
        : `${atlas.tokens.toLocaleString("en-US")} tokens of ${atlas.corpus}`;
    const cut = atlas.split > 0 ? `, ${atlas.split.toLocaleString("en-US")} texts cut` : "";
    say(of, `${corpus}${cut}`);
    set(of, { title: atlas.folder });
    card.update(picture, frame.theme());
    showPlot(dead);
  }

  function showPlot(dead: boolean): void {
    const both =
      picture.state?.atlas?.tokens !== 0 && (picture.state?.atlas?.matrices.length ?? 0) > 0;
    if (picture.scatter !== null && address === "") {
      address = URL.createObjectURL(new Blob([picture.scatter.slice()], { type: "image/png" }));
      saved.src = address;
    }
    set(saved, { hidden: !chart.hidden || address === "" });
    set(waiting, { hidden: dead || !both || !chart.hidden || address !== "" });
    set(plot, { hidden: !both && chart.hidden && address === "" });
  }

  frame.start();
}

export default { render };
