// A heat map as SVG: cells are rectangles, its bar below.
import { css, inkOn, type Theme } from "./colour";
import { heatColour, mix } from "./heat-bar";
import type { HeatMapPicture } from "./heat-map";
import {
  BAR,
  barSvg,
  type Caption,
  cut,
  measurer,
  PAD,
  rect,
  round,
  svgDocument,
  text,
  waiting,
  xml,
} from "./svg";

const CELL = { width: 30, height: 22 } as const;
const APART = 6;

export function heatMapSvg(picture: HeatMapPicture, caption: Caption): string {
  const { rows, columns, values, scale, apart } = picture;
  const { theme } = caption;
  const measure = measurer(caption.font);
  const ink = css(theme.ink);
  const quiet = css(mix(theme.background, theme.ink, 0.7));
  const labels = columns.map((label) => cut(label.map((piece) => piece.text).join(""), measure));
  const left = PAD + Math.max(0, ...rows.map(measure)) + 8;
  const top = PAD + 24 + (picture.turned ? Math.max(0, ...labels.map(measure)) + 8 : 16);
  const x = (column: number) =>
    left + column * CELL.width + (apart !== null && column >= apart ? APART : 0);
  const y = (row: number) => top + row * CELL.height;
  const right = x(columns.length - 1) + CELL.width;
  const foot = y(rows.length) + PAD;
  const box = (cell: number) =>
    [x(cell % columns.length), y(Math.floor(cell / columns.length))] as const;
  const line = `stroke="${css(mix(theme.background, theme.ink, 0.12))}" stroke-width="0.5"`;

  const cells = Array.from({ length: rows.length * columns.length }, (_, cell) => {
    const value = values[cell] ?? Number.NaN;
    const fill = Number.isNaN(value) ? "url(#waiting)" : css(heatColour(value, scale, theme));
    return rect(...box(cell), CELL.width, CELL.height, `fill="${fill}" ${line}`);
  });
  const marks = [...picture.crossed].map((cell) => {
    const [left, top] = box(cell);
    const [cx, cy] = [left + CELL.width / 2, top + CELL.height / 2];
    const colour = inkOver(values[cell] ?? Number.NaN, picture, theme);
    const path = `M${cx - 6} ${cy - 6}l12 12m0 -12l-12 12`;
    return (
      rect(left + 1, top + 1, CELL.width - 2, CELL.height - 2, `fill="none" stroke="${colour}"`) +
      `<path d="${path}" stroke="${colour}" stroke-width="1.5"/>`
    );
  });
  const names = labels.map((label, column) => {
    const at = x(column) + CELL.width / 2;
    if (!picture.turned) {
      return text(label, at, top - 8, `text-anchor="middle" fill="${quiet}"`);
    }
    const place = `x="${round(at)}" y="${round(top - 6)}"`;
    const turn = `rotate(-90 ${round(at)} ${round(top - 6)})`;
    return `<text ${place} dy="4" transform="${turn}" xml:space="preserve" fill="${quiet}">${xml(label)}</text>`;
  });
  return svgDocument(
    Math.max(right + PAD, PAD + BAR + 2 * PAD),
    foot + 36,
    caption,
    "",
    [waiting(theme)],
    [
      text(caption.title, PAD, PAD + 8, `fill="${ink}" font-size="13"`),
      ...names,
      ...rows.map((label, row) =>
        text(label, left - 6, y(row) + CELL.height / 2, `text-anchor="end" fill="${quiet}"`),
      ),
      ...cells,
      ...marks,
      barSvg(scale, caption, PAD, foot),
    ],
  );
}

function inkOver(value: number, picture: HeatMapPicture, theme: Theme): string {
  const ground = Number.isNaN(value) ? theme.background : heatColour(value, picture.scale, theme);
  return css(inkOn(ground, theme));
}
