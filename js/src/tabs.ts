// Tabs after the ARIA pattern: one stop of the Tab order, arrows walk, what is walked to is shown.
import { button, h, say, set } from "./dom";

export interface Tab<Name extends string> {
  name: Name;
  label: string;
  panel: HTMLElement;
}

export interface Tabs<Name extends string> {
  element: HTMLElement;
  chosen(): Name;
  choose(name: Name): void;
  /** Which tabs there are, and what a tab says beside its word. */
  update(there: readonly Name[], words: Partial<Record<Name, string>>): void;
}

export function tabs<Name extends string>(
  signal: AbortSignal,
  name: string,
  all: readonly Tab<Name>[],
  changed: (name: Name) => void,
): Tabs<Name> {
  const id = `pc-tabs-${Math.floor(Math.random() * 1e9)}`;
  let chosen = all[0]?.name as Name;
  const parts = all.map((tab, i) => {
    const extra = h("span", { class: "pc-number pc-muted pc-tab-extra" });
    const element = button(
      tab.label,
      {
        class: "pc-button pc-quiet pc-tab-name",
        role: "tab",
        id: `${id}-${i}`,
        "aria-controls": `${id}-${i}-panel`,
      },
      () => choose(tab.name),
      signal,
    );
    element.append(extra);
    const panel = h(
      "div",
      {
        class: "pc-tab-panel",
        role: "tabpanel",
        id: `${id}-${i}-panel`,
        "aria-labelledby": `${id}-${i}`,
      },
      tab.panel,
    );
    return { ...tab, element, panel, extra };
  });
  const list = h(
    "div",
    { class: "pc-tab-list", role: "tablist", "aria-label": name },
    ...parts.map((part) => part.element),
  );
  const element = h("div", { class: "pc-tabs" }, list, ...parts.map((part) => part.panel));

  const show = () => {
    for (const { name: each, element: tab, panel } of parts) {
      const is = each === chosen;
      set(tab, { "aria-selected": is ? "true" : "false", tabindex: is ? 0 : -1 });
      set(panel, { hidden: !is });
    }
  };
  const choose = (next: Name) => {
    if (next === chosen) return;
    chosen = next;
    show();
    changed(next);
  };
  list.addEventListener(
    "keydown",
    (event) => {
      const there = parts.filter((part) => !part.element.hidden);
      const at = there.findIndex((part) => part.name === chosen);
      const to = {
        ArrowLeft: (at - 1 + there.length) % there.length,
        ArrowRight: (at + 1) % there.length,
        Home: 0,
        End: there.length - 1,
      }[event.key];
      const next = to === undefined ? undefined : there[to];
      if (next === undefined) return;
      event.preventDefault();
      choose(next.name);
      next.element.focus();
    },
    { signal },
  );
  show();

  return {
    element,
    chosen: () => chosen,
    choose,
    update(there, words) {
      for (const part of parts) {
        set(part.element, { hidden: !there.includes(part.name) });
        say(part.extra, words[part.name] ?? "");
      }
      const [first] = there;
      if (!there.includes(chosen) && first !== undefined) choose(first);
    },
  };
}
