// What is seen, as a file: SVG with real text, PNG at twice the size. Nothing leaves the page.
//
// SVG is written as text, not taken from the page: every word that goes into it is escaped here.
import { css, type Rgb, type Theme } from "./colour";
import { short } from "./format";
import { type HeatScale, heatColour, mix } from "./heat-bar";

/** Fonts and words that a picture needs besides what it draws. */
export interface Caption {
  /** "L5.H3, attention weight, now". */
  title: string;
  /** What the colour bar's numbers are. */
  what: string;
  theme: Theme;
  /** The code font's family. */
  font: string;
}

export const PAD = 12;
export const LETTER = 11; // the size of labels
const LONGEST = 96; // of a label, in pixels

/** An SVG's picture as a PNG, at `scale` device pixels to a pixel. */
export async function toPng(svg: string, scale: number = 2): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.naturalWidth * scale);
  canvas.height = Math.round(image.naturalHeight * scale);
  penOf(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, refuse) => {
    canvas.toBlob((blob) => {
      if (blob === null) refuse(new Error("The picture is too large for this browser; save SVG."));
      else done(blob);
    }, "image/png");
  });
}

/** Hands a file to the reader. */
export function download(name: string, content: Blob | string, type: string = "text/plain"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // Some browsers begin to read only after the click was handled.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** "patchclamp-L5.H3-value-difference.svg": letters that every file system takes. */
export function fileName(parts: readonly string[], ending: "svg" | "png"): string {
  const safe = parts.map((part) => part.replaceAll(/[^\w.-]+/g, "-").replaceAll(/^-+|-+$/g, ""));
  return `${safe.filter((part) => part !== "").join("-")}.${ending}`;
}

/** An SVG of the page as a file: its colours are its own, so only a ground and words are added. */
export function pageSvg(
  drawn: { svg: SVGSVGElement; width: number; height: number },
  caption: Caption,
): string {
  const head = PAD + 22;
  const inner = new XMLSerializer().serializeToString(drawn.svg);
  return svgDocument(
    drawn.width + 2 * PAD,
    drawn.height + head + PAD,
    caption,
    "",
    [],
    [
      text(caption.title, PAD, PAD + 8, `fill="${css(caption.theme.ink)}" font-size="13"`),
      `<g transform="translate(${PAD} ${head})">${inner}</g>`,
    ],
  );
}

// --- parts of a picture ----------------------------------------------------------------------------

export const BAR = 320; // a colour bar with its words

export function barSvg(scale: HeatScale, { what, theme }: Caption, x: number, y: number): string {
  const quiet = css(mix(theme.background, theme.ink, 0.7));
  const from = scale.signed ? -scale.peak : 0;
  const stops = Array.from({ length: 33 }, (_, i) => {
    const share = i / 32;
    const colour = heatColour(from + share * (scale.peak - from), scale, theme);
    return `<stop offset="${share}" stop-color="${css(colour)}"/>`;
  });
  const words = scale.gamma === 1 ? what : `${what}, colours by the square root`;
  return [
    `<linearGradient id="bar">${stops.join("")}</linearGradient>`,
    rect(x, y, 160, 10, `fill="url(#bar)" stroke="${quiet}" stroke-width="0.5"`),
    text(short(from), x, y + 20, `fill="${quiet}"`),
    scale.signed ? text("0", x + 80, y + 20, `text-anchor="middle" fill="${quiet}"`) : "",
    text(short(scale.peak), x + 160, y + 20, `text-anchor="end" fill="${quiet}"`),
    text(words, x + 170, y + 5, `fill="${quiet}"`),
  ].join("");
}

/** Slanted lines, to fill something with. */
export function slanted(
  id: string,
  ground: Rgb,
  theme: Theme,
  strength: number,
  path: string,
): string {
  return (
    `<pattern id="${id}" width="6" height="6" patternUnits="userSpaceOnUse">` +
    rect(0, 0, 6, 6, `fill="${css(ground)}"`) +
    `<path d="${path}" stroke="${css(mix(ground, theme.ink, strength))}" stroke-width="1.25"/>` +
    "</pattern>"
  );
}

/** What has not come yet: `fill="url(#waiting)"`. */
export function waiting(theme: Theme): string {
  return slanted("waiting", theme.background, theme, 0.16, "M0 0L6 6M-1 5L1 7M5 -1L7 1");
}

/** A picture of a width and height, with its title, the prompt it is of, and what it draws. */
export function svgDocument(
  width: number,
  height: number,
  { title, theme, font }: Caption,
  prompt: string,
  definitions: readonly string[],
  parts: readonly string[],
): string {
  const [w, tall] = [Math.ceil(width), Math.ceil(height)];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${tall}"`,
    ` viewBox="0 0 ${w} ${tall}" font-family="${xml(font)}" font-size="${LETTER}"`,
    ` fill="${css(theme.ink)}">`,
    `<title>${xml(title)}</title>`,
    prompt === "" ? "" : `<desc>${xml(prompt)}</desc>`,
    definitions.length > 0 ? `<defs>${definitions.join("")}</defs>` : "",
    rect(0, 0, w, tall, `fill="${css(theme.background)}"`),
    ...parts,
    "</svg>",
  ].join("");
}

export function rect(x: number, y: number, width: number, height: number, more: string): string {
  return `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" ${more}/>`;
}

export function text(words: string, x: number, y: number, more: string): string {
  // Not every program knows dominant-baseline: the middle of a letter is a third of its size up.
  return `<text x="${round(x)}" y="${round(y + LETTER / 3)}" xml:space="preserve" ${more}>${xml(words)}</text>`;
}

/** How wide words are, in pixels. */
export type Measure = (text: string) => number;

export function measurer(font: string): Measure {
  const pen = penOf(document.createElement("canvas"));
  pen.font = `${LETTER}px ${font}`;
  return (words) => pen.measureText(words).width;
}

export function cut(words: string, measure: Measure): string {
  if (measure(words) <= LONGEST) return words;
  const letters = [...words];
  while (letters.length > 1 && measure(`${letters.join("")}…`) > LONGEST) letters.pop();
  return `${letters.join("")}…`;
}

export function imageSvg(
  canvas: HTMLCanvasElement,
  x: number,
  y: number,
  width: number,
  height: number,
): string {
  const place = `x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}"`;
  const data = canvas.toDataURL("image/png");
  return `<image ${place} preserveAspectRatio="none" style="image-rendering:pixelated" href="${data}"/>`;
}

export function penOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const pen = canvas.getContext("2d");
  if (pen === null) throw new Error("This browser gives no canvas to draw on.");
  return pen;
}

export function round(x: number): number {
  return Math.round(x * 100) / 100;
}

/** Text as XML takes it: half of an emoji, or a control character, it takes in no form. */
export function xml(words: string): string {
  return words
    .replaceAll(FORBIDDEN, "\ufffd")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 has no way to write these
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff\p{Cs}]/gu;
