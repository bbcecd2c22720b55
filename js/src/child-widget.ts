// Another widget's view inside one of ours: Python names it, the host makes it.

/** The part of the host's manager that is needed; JupyterLab, Notebook and VS Code have it. */
interface Manager {
  get_model(id: string): Promise<unknown>;
  create_view(model: unknown, options?: object): Promise<{ el: HTMLElement; remove(): void }>;
}
interface Model {
  get(name: string): unknown;
  on(event: string, callback: () => void): void;
  off(event: string, callback: () => void): void;
  widget_manager?: Manager;
}

const REFERENCE = "IPY_MODEL_";

/** Shows the widget that a trait names, whichever it is at the time. */
export function childWidget(
  model: Model,
  trait: string,
  signal: AbortSignal,
  /** Told when it has come or gone. */
  moved: () => void,
): HTMLElement {
  const element = document.createElement("div");
  element.className = `pc-child pc-child-${trait}`;
  element.hidden = true;
  let shown: { remove(): void } | null = null;
  let wanted = "";

  async function show(): Promise<void> {
    const named = model.get(trait);
    const id = typeof named === "string" && named.startsWith(REFERENCE) ? named : "";
    if (id === wanted) return;
    wanted = id;
    shown?.remove();
    shown = null;
    element.replaceChildren();
    element.hidden = true;
    const manager = model.widget_manager;
    if (id === "" || manager === undefined) return;
    const view = await manager.create_view(await manager.get_model(id.slice(REFERENCE.length)), {});
    // Something else was named meanwhile, or the view is gone.
    if (wanted !== id || signal.aborted) {
      view.remove();
      return;
    }
    shown = view;
    element.append(view.el);
    element.hidden = false;
    moved();
  }
  const changed = () => void show();
  model.on(`change:${trait}`, changed);
  signal.addEventListener(
    "abort",
    () => {
      model.off(`change:${trait}`, changed);
      shown?.remove();
    },
    { once: true },
  );
  changed();
  return element;
}
