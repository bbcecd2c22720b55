// Attention as lines between two columns of the same tokens: destinations on the left, the sources
// they read on the right. All lines of a short prompt; of a long one those of one token.
//
// Classes: .pc-lines > p.pc-muted (which lines these are) + .pc-lines-scroll (scrolls) >
//   .pc-lines-space > canvas.pc-lines-canvas, .pc-lines-token[data-side][data-position][data-on]
import { onResize, surface } from "./canvas";
import { css, inkOn, LIGHT, type Theme } from "./colour";
import { h, say, set, tokenText } from "./dom";
import { type HeatScale, heatColour } from "./heat-bar";
import type { PromptToken } from "./messages";
import type { PatternCells, Place } from "./tiles";

/** Prompts of at most this many tokens show the lines of all of them. */
export const ALL_LINES = 64;

const LINE = 18; // the height of a token
const SPARE = 8; // tokens kept ready beyond either edge
const FAINTEST = 0.01; // of the peak: a fainter line cannot be seen

export interface LinesToken {
  side: "destination" | "source";
  position: number;
}

export interface LinesPicture {
  tokens: readonly PromptToken[];
  cells: PatternCells | null;
  scale: HeatScale;
  locked: LinesToken | null;
}

export interface LinesActions {
  hover(token: LinesToken | null, by: "pointer" | "keys"): void;
  lock(token: LinesToken | null): void;
  /** Tiles that the lines to be drawn need and that are not there. */
  missing(tiles: Place[]): void;
}

export interface AttentionLines {
  element: HTMLElement;
  update(picture: LinesPicture): void;
  paint(theme: Theme): void;
  /** A token to single out, from elsewhere. */
  point(token: LinesToken | null): void;
}

/** One line: how strong it is, as a share of the scale's peak. */
export interface Line {
  destination: number;
  source: number;
  value: number;
  share: number;
}

/**
 * The lines to draw, faint ones first so that strong ones lie on top: those of one token, or all.
 * Tiles that are not there give none.
 */
export function linesOf(cells: PatternCells, scale: HeatScale, of: LinesToken | null): Line[] {
  const lines: Line[] = [];
  const take = (destination: number, source: number, value: number) => {
    const share = Math.min(1, Math.abs(value) / (scale.peak || 1)) ** scale.gamma;
    // What is not a number is no line.
    if (share >= FAINTEST) lines.push({ destination, source, value, share });
  };
  if (of?.side === "source") {
    for (const [at, value] of cells.column(of.position)?.entries() ?? []) {
      take(at, of.position, value);
    }
  } else {
    const [from, to] = of === null ? [0, cells.length] : [of.position, of.position + 1];
    for (let at = from; at < to; at++) {
      for (const [source, value] of cells.row(at)?.entries() ?? []) take(at, source, value);
    }
  }
  return lines.sort((a, b) => a.share - b.share);
}

export function attentionLines(signal: AbortSignal, actions: LinesActions): AttentionLines {
  const note = h("p", { class: "pc-muted" });
  const canvas = h("canvas", { class: "pc-lines-canvas", "aria-hidden": "true" });
  const space = h("div", { class: "pc-lines-space" }, canvas);
  const scroller = h(
    "div",
    {
      class: "pc-lines-scroll",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "attention lines",
      "aria-label":
        "Attention lines; up and down arrows move, left is who reads, right is who is read",
    },
    space,
  );
  const element = h("div", { class: "pc-lines" }, note, scroller);

  let picture: LinesPicture = {
    tokens: [],
    cells: null,
    scale: { signed: false, peak: 1, gamma: 1 },
    locked: null,
  };
  let theme = LIGHT;
  let pointed: LinesToken | null = null;
  let by: "pointer" | "keys" | "point" = "pointer";
  let told: LinesToken | null = null;
  const shown = new Map<string, HTMLElement>();

  let ticket = 0;
  const soon = () => {
    if (ticket === 0) ticket = requestAnimationFrame(now);
  };
  const now = () => {
    ticket = 0;
    draw();
    if (by === "point" || same(pointed, told)) return;
    told = pointed;
    actions.hover(pointed, by);
  };
  signal.addEventListener("abort", () => cancelAnimationFrame(ticket), { once: true });

  const single = () => pointed ?? picture.locked;

  const draw = () => {
    const { cells, tokens, scale } = picture;
    const on = one();
    const unit = Number.parseFloat(getComputedStyle(element).fontSize) / 13;
    const line = LINE * unit;
    space.style.height = `${tokens.length * line}px`;
    canvas.style.height = `${scroller.clientHeight}px`;
    placeTokens(line);
    const whole = tokens.length <= ALL_LINES;
    say(
      note,
      whole
        ? "to (left) from (right); point at a token for its lines alone"
        : `to (left) from (right); point at a token for its lines: with more than ${ALL_LINES} tokens, all at once are a tangle`,
    );
    const surface_ = surface(canvas);
    if (surface_ === null || cells === null) return;
    if (on === null && !whole) return shade(null);
    const wanted =
      on === null
        ? undefined
        : {
            destinations: on.side === "destination" ? span(on.position) : all(),
            sources: on.side === "source" ? span(on.position) : all(),
          };
    const missing = cells.missing(wanted);
    if (missing.length > 0) actions.missing(missing.slice(0, 64));
    const lines = linesOf(cells, scale, on);
    const { pen, width, height } = surface_;
    const top = scroller.scrollTop;
    const [from, to] = [width * 0.32 + 2, width * 0.68 - 2];
    const y = (at: number) => (at + 0.5) * line - top;
    for (const { destination, source, value, share } of lines) {
      const [left, right] = [y(destination), y(source)];
      if (Math.max(left, right) < 0 || Math.min(left, right) > height) continue;
      pen.strokeStyle = css(heatColour(Math.sign(value), atPeak(scale), theme), share);
      pen.lineWidth = (0.75 + 2.25 * share) * unit;
      pen.beginPath();
      pen.moveTo(from, left);
      pen.lineTo(to, right);
      pen.stroke();
    }
    shade(on === null ? null : { of: on, lines });
  };

  const one = (): LinesToken | null => {
    const token = single();
    return token !== null && token.position < picture.tokens.length ? token : null;
  };
  const span = (at: number) => [at, at + 1] as const;
  const all = () => [0, picture.tokens.length] as const;

  /** Shades the tokens at the other end of one token's lines. */
  const shade = (isolated: { of: LinesToken; lines: Line[] } | null) => {
    const values = new Map<string, number>();
    for (const { destination, source, value } of isolated?.lines ?? []) {
      if (isolated?.of.side === "source") values.set(`destination ${destination}`, value);
      else values.set(`source ${source}`, value);
    }
    for (const [key, token] of shown) {
      const value = values.get(key);
      const ground = value === undefined ? null : heatColour(value, picture.scale, theme);
      token.style.backgroundColor = ground === null ? "" : css(ground);
      token.style.color = ground === null ? "" : css(inkOn(ground, theme));
      const on = isolated !== null && key === keyOf(isolated.of);
      set(token, { "data-on": on });
    }
  };

  /** Only the tokens that are seen are in the page. */
  const placeTokens = (line: number) => {
    const first = Math.max(0, Math.floor(scroller.scrollTop / line) - SPARE);
    const last = Math.min(
      picture.tokens.length,
      Math.ceil((scroller.scrollTop + scroller.clientHeight) / line) + SPARE,
    );
    const wanted = new Set<string>();
    for (let position = first; position < last; position++) {
      for (const side of ["destination", "source"] as const) {
        const key = keyOf({ side, position });
        wanted.add(key);
        let part = shown.get(key);
        if (part === undefined) {
          part = tokenPart(picture.tokens[position] as PromptToken, side);
          shown.set(key, part);
          space.append(part);
        }
        part.style.top = `${position * line}px`;
      }
    }
    for (const [key, part] of shown) {
      if (wanted.has(key)) continue;
      part.remove();
      shown.delete(key);
    }
  };

  const tokenAt = (event: Event): LinesToken | null => {
    const part = (event.target as Element).closest<HTMLElement>(".pc-lines-token");
    if (part === null) return null;
    return {
      side: part.dataset.side as LinesToken["side"],
      position: Number(part.dataset.position),
    };
  };

  const on = <Name extends keyof HTMLElementEventMap>(
    name: Name,
    act: (event: HTMLElementEventMap[Name]) => void,
  ) => scroller.addEventListener(name, act, { signal });

  on("pointermove", (event) => {
    const token = tokenAt(event);
    if (by === "pointer" && same(token, pointed)) return;
    pointed = token;
    by = "pointer";
    soon();
  });
  on("pointerleave", () => {
    if (by !== "pointer") return;
    pointed = null;
    soon();
  });
  on("click", (event) => {
    const token = tokenAt(event);
    if (token !== null) actions.lock(same(token, picture.locked) ? null : token);
  });
  on("blur", () => {
    if (by !== "keys") return;
    pointed = null;
    soon();
  });
  on("scroll", soon);
  on("keydown", (event) => {
    const { tokens, locked } = picture;
    if (event.ctrlKey || event.metaKey || event.altKey || tokens.length === 0) return;
    const last = tokens.length - 1;
    const from = pointed ?? locked;
    const at = from ?? { side: "destination", position: last };
    const to = (side: LinesToken["side"], position: number): LinesToken =>
      from === null ? at : { side, position: Math.min(last, Math.max(0, position)) };
    const next = {
      ArrowUp: to(at.side, at.position - 1),
      ArrowDown: to(at.side, at.position + 1),
      ArrowLeft: to("destination", at.position),
      ArrowRight: to("source", at.position),
      Home: to(at.side, 0),
      End: to(at.side, last),
    }[event.key];
    if (next !== undefined) {
      pointed = next;
      by = "keys";
      reveal(next.position);
      soon();
    } else if ((event.key === "Enter" || event.key === " ") && pointed !== null) {
      actions.lock(same(pointed, locked) ? null : pointed);
    } else if (event.key === "Escape" && locked !== null) actions.lock(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const reveal = (position: number) => {
    const line = space.clientHeight / (picture.tokens.length || 1);
    const top = position * line;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + line > scroller.scrollTop + scroller.clientHeight) {
      scroller.scrollTop = top + line - scroller.clientHeight;
    }
  };

  onResize(scroller, soon, signal);

  return {
    element,
    update(next) {
      if (next.tokens !== picture.tokens) {
        for (const part of shown.values()) part.remove();
        shown.clear();
      }
      picture = next;
      soon();
    },
    paint(next) {
      theme = next;
      soon();
    },
    point(token) {
      pointed = token;
      by = token === null ? "pointer" : "point";
      soon();
    },
  };
}

function keyOf({ side, position }: LinesToken): string {
  return `${side} ${position}`;
}

function same(a: LinesToken | null, b: LinesToken | null): boolean {
  return a?.side === b?.side && a?.position === b?.position;
}

/** The colour at the end of the scale: a line's strength is its opacity. */
function atPeak(scale: HeatScale): HeatScale {
  return { ...scale, peak: 1 };
}

function tokenPart(token: PromptToken, side: LinesToken["side"]): HTMLElement {
  const text = token.bos ? [h("span", { class: "pc-bos" }, "BOS")] : tokenText(token.text);
  const part = h("span", {
    class: "pc-lines-token",
    "data-side": side,
    "data-position": token.position,
    title: `position ${token.position}, token ${token.id}`,
    dir: "ltr",
  });
  part.append(h("bdi", {}, ...text));
  return part;
}
