// A pattern and the grid of all heads as SVG.
import { css, type Theme } from "./colour";
import { addressOf, type HeadsPicture, thumbColours, thumbPixels } from "./heads-grid";
import { type HeatScale, heatColour, mix } from "./heat-bar";
import type { PromptToken } from "./messages";
import { labelOf, type PatternPicture, plainColours, tickStep, tilePixels } from "./pattern";
import {
  BAR,
  barSvg,
  type Caption,
  cut,
  imageSvg,
  LETTER,
  type Measure,
  measurer,
  PAD,
  penOf,
  rect,
  round,
  slanted,
  svgDocument,
  text,
  waiting,
  xml,
} from "./svg";
import { type Area, type PatternCells, placesIn, type Span, TILE } from "./tiles";

export { download, fileName, toPng } from "./svg";

const LABELLED = 11; // a cell at least so large has room for its label
const FEW = 1024; // so many cells are rectangles; more are one picture

/** The seen part of a pattern, with `cell` pixels a cell. */
export function patternSvg(
  picture: PatternPicture,
  area: Area,
  cell: number,
  caption: Caption,
): string {
  const { cells, tokens } = picture;
  const { theme } = caption;
  const { destinations, sources } = area;
  const measure = measurer(caption.font);
  const labelled = cell >= LABELLED;
  const margin = (span: Span) =>
    labelled
      ? Math.max(28, ...tokens.slice(...span).map((token) => labelWidth(token, measure) + 8))
      : 34;
  const left = PAD + margin(destinations);
  const top = PAD + 22 + (labelled ? margin(sources) : 32);
  const width = (sources[1] - sources[0]) * cell;
  const height = (destinations[1] - destinations[0]) * cell;
  const ink = css(theme.ink);
  const quiet = css(mix(theme.background, theme.ink, 0.7));

  const axes: string[] = [];
  const y = (d: number) => top + (d - destinations[0] + 0.5) * cell;
  const x = (s: number) => left + (s - sources[0] + 0.5) * cell;
  if (labelled) {
    for (let d = destinations[0]; d < destinations[1]; d++) {
      axes.push(labelText(tokens[d], left - 6, y(d), "", measure));
    }
    for (let s = sources[0]; s < sources[1]; s++) {
      axes.push(labelText(tokens[s], x(s), top - 6, `rotate(90 ${x(s)} ${top - 6})`, measure));
    }
  } else {
    const rows = tickStep(cell, 14);
    for (let d = Math.ceil(destinations[0] / rows) * rows; d < destinations[1]; d += rows) {
      axes.push(text(String(d), left - 8, y(d), `text-anchor="end" fill="${quiet}"`));
      axes.push(rect(left - 5, y(d) - 0.5, 4, 1, `fill="${quiet}"`));
    }
    const columns = tickStep(cell, 32);
    for (let s = Math.ceil(sources[0] / columns) * columns; s < sources[1]; s += columns) {
      axes.push(text(String(s), x(s), top - 12, `text-anchor="middle" fill="${quiet}"`));
      axes.push(rect(x(s) - 0.5, top - 5, 1, 4, `fill="${quiet}"`));
    }
  }
  axes.push(
    text("from →", left - 6, PAD + 26, `text-anchor="end" fill="${quiet}"`),
    text("to ↓", left - 6, PAD + 39, `text-anchor="end" fill="${quiet}"`),
  );

  const outlines = picture.outlines.map(({ destinations: d, sources: s, muted }) => {
    const [from, to] = d ?? [0, tokens.length];
    const [start, end] = s ?? [0, tokens.length];
    const place = [x(start) - cell / 2, y(from) - cell / 2] as const;
    const size = [(end - start) * cell, (to - from) * cell] as const;
    const halo = `fill="none" stroke="${css(theme.background)}" stroke-width="3.5"`;
    const line = `fill="none" stroke="${ink}" stroke-width="1.5"`;
    return (
      rect(...place, ...size, halo) +
      rect(...place, ...size, muted ? `${line} stroke-dasharray="3 3"` : line)
    );
  });

  return svgDocument(
    Math.max(left + width + PAD, PAD + BAR + 2 * PAD),
    top + height + PAD + 36,
    caption,
    // The whole prompt, also where only a part of its pattern is seen.
    tokens.map((token) => token.text).join(""),
    [...hatches(theme), `<clipPath id="seen">${rect(left, top, width, height, "")}</clipPath>`],
    [
      text(caption.title, PAD, PAD + 8, `fill="${ink}" font-size="13"`),
      ...axes,
      rect(left, top, width, height, `fill="${css(theme.background)}"`),
      cells === null ? "" : cellsSvg(cells, area, cell, left, top, picture.scale, theme),
      `<g clip-path="url(#seen)">${outlines.join("")}</g>`,
      rect(left, top, width, height, `fill="none" stroke="${quiet}" stroke-width="0.5"`),
      barSvg(picture.scale, caption, PAD, top + height + PAD),
    ],
  );
}

/** The grid of all heads. */
export function headsSvg(picture: HeadsPicture, caption: Caption): string {
  const { theme } = caption;
  const { order, thumbs, selected, touched, scale } = picture;
  const n = thumbs.values().next().value?.n ?? 1;
  const block = Math.max(1, ...[...thumbs.values()].map((each) => each.block));
  const side = n * Math.max(1, Math.floor(32 / n));
  const gap = 3;
  const words = order === null ? 0 : LETTER + 2;
  const heads =
    order ??
    Array.from({ length: picture.layers * picture.heads }, (_, i) => ({
      layer: Math.floor(i / picture.heads),
      head: i % picture.heads,
    }));
  const step = order === null ? side + gap : Math.max(side + gap, 52);
  const columns = order === null ? picture.heads : Math.max(1, Math.floor(720 / step));
  const left = PAD + (order === null ? 30 : 0);
  const top = PAD + 22 + (order === null ? 16 : 0);
  const rows = Math.ceil(heads.length / columns);
  const down = side + gap + words;
  const ink = css(theme.ink);
  const quiet = css(mix(theme.background, theme.ink, 0.7));
  const at = (index: number) =>
    [left + (index % columns) * step, top + Math.floor(index / columns) * down] as const;

  const sheet = document.createElement("canvas");
  sheet.width = columns * step;
  sheet.height = rows * down;
  const pen = penOf(sheet);
  pen.imageSmoothingEnabled = false;
  const small = document.createElement("canvas");
  small.width = small.height = n;
  const parts: string[] = [];
  heads.forEach(({ layer, head }, index) => {
    const [x, y] = at(index);
    const of = thumbs.get(layer);
    if (of === undefined) {
      const blank = mix(theme.background, theme.ink, 0.06);
      parts.push(rect(x, y, side, side, `fill="${css(blank)}"`));
      return;
    }
    const codes = of.codes.subarray(head * n * n, (head + 1) * n * n);
    const colours = thumbColours(of.coding, of.peaks[head] ?? 1, scale, theme);
    penOf(small).putImageData(thumbPixels(codes, n, colours), 0, 0);
    pen.globalAlpha = of.stale ? 0.6 : 1;
    pen.drawImage(small, x - left, y - top, side, side);
  });
  parts.push(imageSvg(sheet, left, top, sheet.width, sheet.height));
  heads.forEach((head, index) => {
    const [x, y] = at(index);
    const same = (other: { layer: number; head: number } | null) =>
      other?.layer === head.layer && other.head === head.head;
    const edge = same(selected)
      ? `stroke="#1976d2" stroke-width="2"`
      : `stroke="${quiet}" stroke-width="0.5"`;
    parts.push(rect(x, y, side, side, `fill="none" ${edge}`));
    if (touched.some(same)) {
      parts.push(
        `<path d="M${x + side} ${y}h-7l7 7z" fill="${ink}" stroke="${css(theme.background)}"/>`,
      );
    }
    if (order !== null) {
      parts.push(text(addressOf(head), x, y + side + 8, `fill="${quiet}" font-size="10"`));
    }
  });
  if (order === null) {
    for (let layer = 0; layer < picture.layers; layer++) {
      const [, y] = at(layer * columns);
      parts.push(text(`L${layer}`, left - 5, y + side / 2, `text-anchor="end" fill="${quiet}"`));
    }
    for (let head = 0; head < picture.heads; head++) {
      const [x] = at(head);
      parts.push(text(`H${head}`, x + side / 2, top - 8, `text-anchor="middle" fill="${quiet}"`));
    }
  }
  const foot = top + rows * down + PAD;
  const summary =
    block > 1 ? `A pixel is the largest of ${block} × ${block} cells.` : "A pixel is a cell.";
  parts.push(
    text(caption.title, PAD, PAD + 8, `fill="${ink}" font-size="13"`),
    barSvg(scale, caption, PAD, foot),
    text(summary, PAD, foot + 42, `fill="${quiet}"`),
  );
  return svgDocument(
    Math.max(left + sheet.width + PAD, PAD + BAR + 2 * PAD),
    foot + 42 + PAD,
    caption,
    "",
    [],
    parts,
  );
}

// --- parts of a picture ----------------------------------------------------------------------------

/** Cells: a rectangle each while they are few, otherwise one picture with whole pixels a cell. */
function cellsSvg(
  cells: PatternCells,
  area: Area,
  cell: number,
  left: number,
  top: number,
  scale: HeatScale,
  theme: Theme,
): string {
  const { destinations, sources } = area;
  const [across, down] = [sources[1] - sources[0], destinations[1] - destinations[0]];
  const beyond = css(plainColours(theme).beyond);
  const parts: string[] = [];
  if (across * down <= FEW) {
    for (let d = destinations[0]; d < destinations[1]; d++) {
      for (let s = sources[0]; s < sources[1]; s++) {
        const value = cells.valueAt(d, s);
        const fill =
          cells.causal && s > d
            ? beyond
            : value === null
              ? "url(#waiting)"
              : Number.isNaN(value)
                ? "url(#hole)"
                : css(heatColour(value, scale, theme));
        const [x, y] = [left + (s - sources[0]) * cell, top + (d - destinations[0]) * cell];
        parts.push(rect(x, y, cell, cell, `fill="${fill}"`));
      }
    }
    return `<g shape-rendering="crispEdges">${parts.join("")}</g>`;
  }
  const size = Math.max(1, Math.round(cell));
  const sheet = document.createElement("canvas");
  sheet.width = across * size;
  sheet.height = down * size;
  const pen = penOf(sheet);
  pen.imageSmoothingEnabled = false;
  if (cells.causal) {
    parts.push(rect(left, top, across * cell, down * cell, `fill="${beyond}"`));
  }
  const bitmap = document.createElement("canvas");
  for (const place of placesIn(area, cells.length, cells.causal)) {
    const tile = cells.tile(place);
    const [row, column] = [place[0] * TILE, place[1] * TILE];
    const reach = (start: number) => Math.min(TILE, cells.length - start);
    if (tile === undefined || tile.holes) {
      const clipped = (start: number, [from, to]: Span) =>
        [Math.max(start, from) - from, Math.min(start + reach(start), to) - from] as const;
      const [x0, x1] = clipped(column, sources);
      const [y0, y1] = clipped(row, destinations);
      const fill = tile === undefined ? "url(#waiting)" : "url(#hole)";
      parts.push(
        rect(
          left + x0 * cell,
          top + y0 * cell,
          (x1 - x0) * cell,
          (y1 - y0) * cell,
          `fill="${fill}"`,
        ),
      );
    }
    const [x, y] = [(column - sources[0]) * size, (row - destinations[0]) * size];
    if (tile !== undefined) {
      bitmap.width = tile.columns;
      bitmap.height = tile.rows;
      penOf(bitmap).putImageData(tilePixels(tile, place, cells, scale, theme), 0, 0);
      pen.drawImage(bitmap, x, y, tile.columns * size, tile.rows * size);
    } else if (cells.causal && row === column) {
      pen.fillStyle = beyond;
      for (let i = 0; i < reach(row); i++) {
        pen.fillRect(x + (i + 1) * size, y + i * size, (reach(row) - i - 1) * size, size);
      }
    }
  }
  return parts.join("") + imageSvg(sheet, left, top, across * cell, down * cell);
}

/** What is not a number, and what has not come. */
function hatches(theme: Theme): string[] {
  const hole = "M0 6L6 0M-1 1L1 -1M5 7L7 5";
  return [slanted("hole", plainColours(theme).hole, theme, 0.8, hole), waiting(theme)];
}

/** A token's label that ends at x, with its position next to the cells. */
function labelText(
  token: PromptToken | undefined,
  x: number,
  y: number,
  transform: string,
  measure: Measure,
): string {
  if (token === undefined) return "";
  // Pieces stand in their order, whichever way each is written.
  const spans = labelOf(token).map(({ text, mark }) =>
    mark
      ? `<tspan ${APART} fill-opacity="0.5">${xml(text)}</tspan>`
      : `<tspan ${APART}>${xml(cut(text, measure))}</tspan>`,
  );
  const turned = transform === "" ? "" : ` transform="${transform}"`;
  return (
    `<text x="${round(x)}" y="${round(y)}" dy="${round(LETTER / 3)}" text-anchor="end"` +
    ` xml:space="preserve"${turned}>` +
    `${spans.join("")}<tspan ${APART} fill-opacity="0.65"> ${token.position}</tspan></text>`
  );
}

const APART = 'style="unicode-bidi:isolate"';

function labelWidth(token: PromptToken, measure: Measure): number {
  const words = labelOf(token).map((piece) => (piece.mark ? piece.text : cut(piece.text, measure)));
  return measure(`${words.join("")} ${token.position}`);
}
