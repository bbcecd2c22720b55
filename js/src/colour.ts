// Colour scales: ColorBrewer's RdBu (reversed, so that blue is positive), Blues and Oranges,
// beginning at the theme's background; and text that stays readable on them.

export type Rgb = readonly [number, number, number];

export interface Theme {
  dark: boolean;
  background: Rgb;
  ink: Rgb;
}

export const LIGHT: Theme = { dark: false, background: [255, 255, 255], ink: [26, 26, 26] };
export const DARK: Theme = { dark: true, background: [17, 17, 17], ink: [230, 230, 230] };

const BLUES = ["#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c"].map(
  hex,
);
const BLUES_DARK = [
  "#0b2545",
  "#08306b",
  "#08519c",
  "#2171b5",
  "#4292c6",
  "#6baed6",
  "#9ecae1",
].map(hex);
const ORANGES = ["#fee6ce", "#fdd0a2", "#fdae6b", "#fd8d3c", "#f16913", "#d94801", "#a63603"].map(
  hex,
);
const ORANGES_DARK = [
  "#3a1702",
  "#7f2704",
  "#a63603",
  "#d94801",
  "#f16913",
  "#fd8d3c",
  "#fdae6b",
].map(hex);
const REDS = ["#fddbc7", "#f4a582", "#d6604d", "#b2182b"].map(hex);
const POSITIVE = ["#d1e5f0", "#92c5de", "#4393c3", "#2166ac"].map(hex);
const REDS_DARK = ["#4a1015", "#8c1d2c", "#d6604d", "#f4a582"].map(hex);
const POSITIVE_DARK = ["#0c2c4c", "#1d4f86", "#4393c3", "#92c5de"].map(hex);

/** Shares from 0 to 1: background to dark blue (in the dark theme: to light blue). */
export function blues(share: number, theme: Theme): Rgb {
  return along([theme.background, ...(theme.dark ? BLUES_DARK : BLUES)], share);
}

/** Activations from 0 to 1. */
export function oranges(share: number, theme: Theme): Rgb {
  return along([theme.background, ...(theme.dark ? ORANGES_DARK : ORANGES)], share);
}

/** Signed effects from -1 (red) through the background to 1 (blue). */
export function redBlue(value: number, theme: Theme): Rgb {
  const side = value < 0 ? (theme.dark ? REDS_DARK : REDS) : theme.dark ? POSITIVE_DARK : POSITIVE;
  return along([theme.background, ...side], Math.abs(value));
}

/** The theme's ink where it is readable on `ground`, otherwise black or white, whichever is. */
export function inkOn(ground: Rgb, theme: Theme): Rgb {
  if (contrast(theme.ink, ground) >= 4.5) return theme.ink;
  const black: Rgb = [0, 0, 0];
  const white: Rgb = [255, 255, 255];
  return contrast(black, ground) >= contrast(white, ground) ? black : white;
}

/** The contrast ratio of WCAG 2, from 1 to 21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [bright, dim] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (bright + 0.05) / (dim + 0.05);
}

export function luminance([red, green, blue]: Rgb): number {
  const linear = (part: number) => {
    const x = part / 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
}

export function css([red, green, blue]: Rgb, alpha = 1): string {
  return alpha === 1
    ? `rgb(${red}, ${green}, ${blue})`
    : `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

/** What `getComputedStyle` gives for a colour; null for one that is not opaque or not sRGB. */
export function parseRgb(text: string): Rgb | null {
  const parts = /^rgba?\(\s*([\d.]+)[\s,]+([\d.]+)[\s,]+([\d.]+)(?:[\s,/]+([\d.]+))?\s*\)$/.exec(
    text,
  );
  if (parts === null || Number(parts[4] ?? 1) < 0.5) return null;
  return [Number(parts[1]), Number(parts[2]), Number(parts[3])];
}

function along(stops: readonly Rgb[], share: number): Rgb {
  const last = stops.length - 1;
  const at = Math.min(1, Math.max(0, Number.isNaN(share) ? 0 : share)) * last;
  const from = Math.min(last - 1, Math.floor(at));
  const a = stops[from] as Rgb;
  const b = stops[from + 1] as Rgb;
  const mix = (i: 0 | 1 | 2) => Math.round(a[i] + (b[i] - a[i]) * (at - from));
  return [mix(0), mix(1), mix(2)];
}

function hex(text: string): Rgb {
  const value = Number.parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
