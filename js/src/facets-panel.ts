// Several pictures of one unit side by side: one a facet, with the images that each came from, or a
// diverse set. A click shows one large, with its steps.
import type { Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { exact, parse, short } from "./format";
import { type MaximizerPicture, type Optimised, refusalOf, taken } from "./maximizer-picture";
import { roving } from "./roving";
import { stimulusView } from "./stimulus";

export interface FacetsPanel {
  element: HTMLElement;
  update(picture: MaximizerPicture, track: number | null, theme: Theme): void;
  refuse(sentence: string): void;
}

export interface FacetsActions {
  facets(count: number | null): void;
  diverse(count: number, strength: number): void;
  /** Shows a track large. */
  show(track: number): void;
  save(what: "sheet", format: "png"): void;
}

interface Part {
  element: HTMLElement;
  dispose(): void;
  update(track: Optimised, picture: MaximizerPicture, chosen: boolean, theme: Theme): void;
}

export function facetsPanel(signal: AbortSignal, actions: FacetsActions): FacetsPanel {
  const number = (label: string, value: string, title: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number",
      value,
      "aria-label": `${label}: ${title}`,
      autocomplete: "off",
      "data-live": true,
    });
    return { input, element: h("label", { class: "pc-field", title }, label, input) };
  };
  const facetCount = number("facets", "", "How many; empty lets the images say");
  const diverseCount = number("pictures", "4", "How many at once, 2 to 12");
  const strength = number("apart", "1", "How strongly they are kept from looking alike");
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  const startFacets = () => {
    const count = facetCount.input.value.trim() === "" ? null : parse(facetCount.input.value);
    if (facetCount.input.value.trim() !== "" && (count === null || !Number.isInteger(count))) {
      refuse("The number of facets is no whole number; leave it empty to let the images say.");
      return;
    }
    actions.facets(count);
  };
  const facets = button(
    "find facets",
    {
      "data-live": true,
      title: "Cluster the unit's top images, and optimise a picture from the mean of each cluster",
    },
    startFacets,
    signal,
  );
  const diverse = button(
    "diverse set",
    {
      "data-live": true,
      title: "Optimise several pictures at once that must differ; needs no images",
    },
    () => {
      const count = parse(diverseCount.input.value);
      const far = parse(strength.input.value);
      if (count === null || !Number.isInteger(count) || far === null) {
        refuse("A diverse set takes a whole number of pictures and a number for how far apart.");
        return;
      }
      actions.diverse(count, far);
    },
    signal,
  );
  const sheet = button(
    "PNG",
    {
      class: "pc-button pc-quiet pc-save",
      "data-live": true,
      title: "Save a sheet of all pictures as PNG",
      "aria-label": "Save a sheet of all pictures as PNG",
    },
    () => actions.save("sheet", "png"),
    signal,
  );
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "One picture shows one way to drive the unit. ",
    "Facets start one from each cluster of its top images; a diverse set needs no images.",
  );
  const why = h("p", { class: "pc-note pc-small-print" });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const list = h("div", { class: "pc-facet-list", role: "group", "aria-label": "Pictures" });
  const element = h(
    "div",
    { class: "pc-part pc-facets" },
    run,
    h(
      "div",
      { class: "pc-line" },
      facetCount.element,
      facets,
      h("span", { class: "pc-rule", "aria-hidden": "true" }),
      diverseCount.element,
      strength.element,
      diverse,
      h("span", { class: "pc-to-end" }, sheet),
    ),
    error,
    why,
    none,
    list,
  );
  const parts = new Map<string | number, Part>();
  const stops = roving(list, ".pc-facet-show", signal);

  const part = (first: Optimised): Part => {
    const own = childSignal(signal);
    const view = stimulusView(own.signal, "", true);
    const name = h("span", { class: "pc-facet-name" });
    const value = h("span", { class: "pc-number" });
    const show = button("", { class: "pc-facet-show" }, () => actions.show(first.key), own.signal);
    show.append(view.element, h("span", { class: "pc-facet-words" }, name, value));
    const members = h("div", { class: "pc-members" });
    const from = h("span", { class: "pc-muted pc-small-print" });
    const status = h("span", { class: "pc-muted pc-small-print" });
    let views: ReturnType<typeof stimulusView>[] = [];
    let shown: readonly unknown[] = [];
    return {
      element: h("div", { class: "pc-facet" }, show, status, members, from),
      dispose: own.abort,
      update(track, picture, chosen, theme) {
        const frame = picture.latest.get(track.key) ?? null;
        view.update(frame?.picture ?? null);
        view.paint(theme);
        const at = frame?.value ?? track.value;
        say(name, track.label);
        say(value, at === null ? "" : short(at));
        set(show, {
          "aria-pressed": chosen ? "true" : "false",
          title:
            at === null ? null : `activation ${exact(at)}\nClick shows it large, with its steps`,
        });
        const step = taken(picture, track);
        const over = track.status === "running" ? "" : `, ${track.status}`;
        say(status, `step ${step}/${track.total}${over}`);
        if (track.members !== shown) {
          shown = track.members;
          for (const each of views) each.dispose();
          views = track.members.map((member) => {
            const small = stimulusView(own.signal, "", true);
            small.update(member);
            small.paint(theme);
            set(small.element, { "aria-hidden": "true" });
            return small;
          });
          members.replaceChildren(...views.map((each) => each.element));
        }
        for (const each of views) each.paint(theme);
        say(
          from,
          track.member_count === 0
            ? ""
            : track.members.length < track.member_count
              ? `from ${track.member_count} images, ${track.members.length} shown`
              : `from ${track.member_count} ${track.member_count === 1 ? "image" : "images"}`,
        );
      },
    };
  };

  return {
    element,
    refuse,
    update(picture, track, theme) {
      const refusals = {
        facets: refusalOf(picture, "facets"),
        diverse: refusalOf(picture, "diverse"),
      };
      set(facets, { "data-off": refusals.facets !== null });
      set(diverse, { "data-off": refusals.diverse !== null });
      const said = [...new Set([refusals.facets, refusals.diverse])].filter(
        (each) => each !== null,
      );
      say(why, said.join(" "));
      set(why, { hidden: said.length === 0 });
      const going = picture.progress.get("facets");
      set(run, { hidden: going === undefined });
      if (going !== undefined)
        run.style.width = `${(100 * going.done) / Math.max(1, going.total)}%`;
      const shown = picture.tracks.filter((each) => each.kind !== "climb");
      set(none, { hidden: shown.length > 0 });
      set(sheet, { "data-off": picture.tracks.length === 0 });
      const made = keyed(list, parts, shown, (each) => each.key, part);
      shown.forEach((each, i) => {
        made[i]?.update(each, picture, each.key === track, theme);
      });
      stops.refresh();
    },
  };
}
