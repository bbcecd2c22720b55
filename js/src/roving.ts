// Many things of a kind as one stop of the Tab order: arrows walk them, Home and End go to the ends.

export interface Roving {
  /** After things came or went: one of them is the stop. */
  refresh(): void;
}

export function roving(container: HTMLElement, selector: string, signal: AbortSignal): Roving {
  container.dataset.roving = "";
  const all = () => [...container.querySelectorAll<HTMLElement>(selector)];

  const stop = (items: readonly HTMLElement[], at: number) => {
    items.forEach((item, i) => {
      const wanted = i === at ? 0 : -1;
      if (item.tabIndex !== wanted || !item.hasAttribute("tabindex")) item.tabIndex = wanted;
    });
  };
  container.addEventListener(
    "keydown",
    (event) => {
      const items = all();
      const at = items.indexOf(event.target as HTMLElement);
      const to = {
        ArrowLeft: at - 1,
        ArrowUp: at - 1,
        ArrowRight: at + 1,
        ArrowDown: at + 1,
        Home: 0,
        End: items.length - 1,
      }[event.key];
      const next = to === undefined ? undefined : items[to];
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      stop(items, to as number);
      next.focus();
    },
    { signal },
  );
  // Who presses one of them with the pointer goes on from there.
  container.addEventListener(
    "focusin",
    (event) => {
      const items = all();
      const at = items.indexOf(event.target as HTMLElement);
      if (at >= 0) stop(items, at);
    },
    { signal },
  );

  return {
    refresh() {
      const items = all();
      const at = items.findIndex((item) => item.getAttribute("tabindex") === "0");
      stop(items, Math.max(0, at));
    },
  };
}
