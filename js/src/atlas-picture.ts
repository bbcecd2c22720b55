// What NeuronAtlas shows: what is declared, the rows that the page holds of the table, one neuron's
// card. Rows belong to one sifting of the table; those of an older one are dropped.
import type { AtlasBody, AtlasState, Card, Down, PageBody, ShadeBody, WeighBody } from "./messages";
import { emptyShown, type Shown } from "./picture";
import type { Unpacked } from "./transport";

export type NeuronCard = Unpacked<Card>;
export type Row = Card["row"];
export type Shaded = Unpacked<ShadeBody>;

export interface AtlasPicture extends Shown {
  state: AtlasState | null;
  /** Which sifting `rows` are of. */
  table: number;
  /** By place in the table. */
  rows: Map<number, Row>;
  card: NeuronCard | null;
  weighed: WeighBody | null;
  /** Of an example's place: what the neuron does around it. */
  shaded: Map<number, Shaded>;
  /** Of a saved page: the scatter plot as a PNG file. */
  scatter: Uint8Array | null;
}

export function emptyAtlas(): AtlasPicture {
  return {
    ...emptyShown(),
    state: null,
    table: -1,
    rows: new Map(),
    card: null,
    weighed: null,
    shaded: new Map(),
    scatter: null,
  };
}

/** Takes a message of this view's own in; false for what is older than what is shown. */
export function takeAtlas(picture: AtlasPicture, message: Unpacked<Down>): boolean {
  if (message.kind === "card") {
    takeCard(picture, message.card);
    picture.weighed = message.weighed;
    return true;
  }
  if (message.kind !== "atlas" || message.revision < picture.revision) return false;
  declare(picture, message.revision, message.state);
  return true;
}

export function takeBody(picture: AtlasPicture, body: Unpacked<AtlasBody>): void {
  if (body.revision >= picture.revision) declare(picture, body.revision, body.state);
  takePage(picture, { of: "page", table: body.state.table, start: body.start, rows: body.rows });
  takeCard(picture, body.card);
  picture.weighed = body.weighed;
  picture.scatter = body.scatter;
}

export function takePage(picture: AtlasPicture, { table, start, rows }: PageBody): void {
  if (table !== picture.table) return;
  rows.forEach((row, i) => {
    picture.rows.set(start + i, row);
  });
}

export function takeCard(picture: AtlasPicture, card: NeuronCard | null): void {
  if (card?.row.address !== picture.card?.row.address) {
    picture.weighed = null;
    picture.shaded.clear();
  }
  picture.card = card;
}

function declare(picture: AtlasPicture, revision: number, state: AtlasState): void {
  picture.revision = revision;
  picture.state = state;
  picture.failure = "";
  if (state.table === picture.table) return;
  picture.table = state.table;
  picture.rows.clear();
}
