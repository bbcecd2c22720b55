// Which theme the host is in. JupyterLab says it on its body, marimo, VS Code and Colab in their
// own ways; where nobody says anything, the reader's system does.
import { DARK, LIGHT, parseRgb, type Theme } from "./colour";

export function isDark(page: Document): boolean {
  const body = page.body;
  const root = page.documentElement;
  const jupyter = body.dataset.jpThemeLight;
  if (jupyter !== undefined) return jupyter === "false";
  const code = body.dataset.vscodeThemeKind;
  if (code !== undefined) return code.includes("dark") || code === "vscode-high-contrast";
  const named = body.dataset.theme ?? root.dataset.theme ?? root.getAttribute("theme");
  if (named === "dark" || named === "light") return named === "dark";
  if ([body, root].some((each) => each.classList.contains("dark"))) return true;
  if ([body, root].some((each) => each.classList.contains("light"))) return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * Keeps `data-pc-theme` of the view's root right and calls `changed` with the colours to paint
 * with: now, and whenever the host's theme flips.
 */
export function followTheme(
  root: HTMLElement,
  signal: AbortSignal,
  changed: (theme: Theme) => void,
): void {
  const page = root.ownerDocument;
  let shown = "";
  const look = () => {
    const base = isDark(page) ? DARK : LIGHT;
    root.dataset.pcTheme = base.dark ? "dark" : "light";
    const style = getComputedStyle(root);
    const theme: Theme = {
      dark: base.dark,
      background: parseRgb(style.backgroundColor) ?? base.background,
      ink: parseRgb(style.color) ?? base.ink,
    };
    const now = JSON.stringify(theme);
    if (now === shown) return;
    // JupyterLab hides everything while it changes its theme, and a hidden canvas takes no paint.
    shown = root.getClientRects().length > 0 ? now : "";
    changed(theme);
  };
  // The attribute flips before the theme's own style sheet is there: look again when it is.
  let later: ReturnType<typeof setTimeout> | undefined;
  const lookTwice = () => {
    look();
    clearTimeout(later);
    later = setTimeout(look, 300);
  };
  const watch = new MutationObserver(lookTwice);
  const names = [
    "class",
    "theme",
    "data-theme",
    "data-jp-theme-light",
    "data-jp-theme-name",
    "style",
  ];
  for (const node of [page.body, page.documentElement]) {
    watch.observe(node, {
      attributes: true,
      attributeFilter: [...names, "data-vscode-theme-kind"],
    });
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", look, { signal });
  // A root that is not in the page yet has no colours; it gets them with its size.
  const appear = new ResizeObserver(look);
  appear.observe(root);
  const end = () => {
    watch.disconnect();
    appear.disconnect();
    clearTimeout(later);
  };
  signal.addEventListener("abort", end, { once: true });
  lookTwice();
}
