// What is seen, as a file: SVG with real text, PNG at twice the size. Nothing leaves the page.
import type { Theme } from "./colour";
import type { HeadsPicture } from "./heads-grid";
import type { PatternPicture } from "./pattern";
import type { Area } from "./tiles";

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

/** The seen part of a pattern, with `cell` pixels a cell. */
export declare function patternSvg(
  picture: PatternPicture,
  area: Area,
  cell: number,
  caption: Caption,
): string;

/** The grid of all heads. */
export declare function headsSvg(picture: HeadsPicture, caption: Caption): string;

/** An SVG's picture as a PNG, at `scale` device pixels to a pixel. */
export declare function toPng(svg: string, scale?: number): Promise<Blob>;

/** Hands a file to the reader. */
export declare function download(name: string, content: Blob | string, type?: string): void;

/** "patchclamp-L5.H3-value-difference.svg": letters that every file system takes. */
export declare function fileName(parts: readonly string[], ending: "svg" | "png"): string;
