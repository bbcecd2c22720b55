// The parts of dagre that lay out what has its ranks already.

declare module "@dagrejs/dagre/lib/normalize.js" {
  import type { Graph } from "@dagrejs/graphlib";

  /** Gives an edge that passes ranks a node in each of them; `dummyChains` lists the first ones. */
  export function run(graph: Graph): void;
}

declare module "@dagrejs/dagre/lib/order/index.js" {
  import type { Graph } from "@dagrejs/graphlib";

  /** Gives each node its `order` within its rank, so that few edges cross. */
  export default function order(graph: Graph): void;
}

declare module "@dagrejs/dagre/lib/position/bk.js" {
  import type { Graph } from "@dagrejs/graphlib";

  /** From left to right, the middle of each node (Brandes and Köpf). */
  export function positionX(graph: Graph): Record<string, number>;
}
