"""An atlas: a folder of tables about every neuron of one model, with a manifest, and a door to it.

How it is built is in `build.py`. What is asked of it is answered by DuckDB, from the files.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from patchclamp.atlas import tables
from patchclamp.atlas.build import build, plan_of, read_values
from patchclamp.atlas.manifest import Manifest
from patchclamp.engine.engine import Engine
from patchclamp.errors import AddressError, AtlasError
from patchclamp.methods.neighbours import fires_like
from patchclamp.sites import Site

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from typing import Literal

    import duckdb
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from patchclamp.atlas.build import Decoding, Ray, Reading, Tell
    from patchclamp.engine.queue import Task
    from patchclamp.methods.decoded_weights import Matrix
    from patchclamp.methods.neighbours import Near
    from patchclamp.models.language_model import LanguageModel

CONTEXT = 12
"""Tokens on either side of an example."""


class Atlas:
    """The tables of one model's neurons, opened for reading.

    Args:
        folder: where they are.
        model: checked to be the one that the atlas is of; None does not check.

    Raises:
        AtlasError: when there is no finished atlas, or it is of another model.

    Attributes:
        folder: where the tables are.
        manifest: what they are of.
    """

    def __init__(self, folder: str | os.PathLike[str], model: LanguageModel | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        if not (self.folder / "neurons.parquet").is_file():
            msg = f"The atlas in {self.folder} is not finished: build it again, it goes on."
            raise AtlasError(msg)
        if model is not None:
            self.manifest.check_model(model)

    def __repr__(self) -> str:
        m = self.manifest
        corpus = f", {m.tokens:,} tokens of {m.corpus_name or 'a corpus'}" if m.corpus else ""
        decoded = f", {' and '.join(m.decoded)} decoded" if m.decoded else ""
        return f"Atlas({m.model}: {len(self.neurons):,} neurons{corpus}{decoded})"

    @classmethod
    def build(
        cls,
        model: LanguageModel,
        texts: Iterable[str] | None = None,
        folder: str | os.PathLike[str] = "atlas",
        *,
        labels: Sequence[str] | None = None,
        reading: Reading | None = None,
        decode: Sequence[Matrix] | Decoding | None = None,
        engine: Literal["local", "ray"] | Ray = "local",
        tell: Tell | None = None,
    ) -> Atlas:
        """Build an atlas, or go on with one that is not finished, and wait for it.

        Args:
            model: whose neurons.
            texts: the corpus; None only decodes weights.
            folder: where the atlas goes; made if need be.
            labels: one for each text, to say which neurons tell them apart.
            reading: how the corpus is read; None is the usual way.
            decode: which matrices are decoded, of "down", "up" and "gate"; None is all there are.
                A :class:`~patchclamp.atlas.build.Decoding` says of which layers, too.
            engine: "local" reads the corpus in this process; "ray", or a
                :class:`~patchclamp.atlas.build.Ray` with its options, on a Ray cluster or, where
                none is running, on workers of this machine.
            tell: told of progress, on the model's worker.

        Raises:
            InputError: when the corpus is empty, or the labels do not fit it.
            AtlasError: when the folder holds another atlas, or cannot be written.
            ModelError: when the model has no neurons.
        """
        plan = plan_of(
            model, texts, folder, labels=labels, reading=reading, decode=decode, engine=engine
        )
        on = Engine.of(model)
        task: Task[None] = on.queue.submit(
            lambda stop: build(on, plan, stop, tell), priority="sweep"
        )
        task.result()
        return cls(folder)

    # --- looking things up -----------------------------------------------------------------------

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect()
        for table in self.tables:
            connection.read_parquet(str(self.folder / f"{table}.parquet")).create_view(table)
        return connection

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that there are; see :mod:`patchclamp.atlas.tables`."""
        return tuple(name for name in tables.TABLES if (self.folder / f"{name}.parquet").is_file())

    def query(self, sql: str, **values: object) -> pd.DataFrame:
        """Ask with SQL, as DuckDB speaks it; the tables are :attr:`tables`.

        Args:
            sql: the question, with ``$name`` where a value goes.
            **values: these values, by name.

        Raises:
            AtlasError: when the question cannot be read, or asks for what is not there.

        Example:
            >>> atlas.query("SELECT address, down_token FROM neurons LIMIT 3")  # doctest: +SKIP
        """
        import duckdb

        try:
            # A cursor of its own: views and cells may ask at the same time.
            return self._connection.cursor().execute(sql, values).df()
        except duckdb.Error as error:
            said = str(error).split("\n\n", maxsplit=1)[0].strip()
            msg = f"DuckDB cannot answer that: {said} (The tables are {', '.join(self.tables)}.)"
            raise AtlasError(msg) from error

    @cached_property
    def values(self) -> np.ndarray:
        """Float32[text, neuron] of an atlas with labels: what stands for each text.

        Neurons are those of :attr:`neurons`, in their order; a text without a token has NaN. With
        them labels can be compared in other ways; see :mod:`patchclamp.methods.label_statistics`.

        Raises:
            AtlasError: when the corpus had no labels.
        """
        self._need("labels", "the corpus had no labels")
        return read_values(self.folder)

    @cached_property
    def neurons(self) -> pd.DataFrame:
        """One row a neuron."""
        return self.query("SELECT * FROM neurons ORDER BY layer, index")

    def row(self, address: str) -> pd.Series:
        """Return a neuron's row.

        Raises:
            AddressError: when there is no such neuron.
        """
        layer, index = self._place(address)
        found = self.query(
            "SELECT * FROM neurons WHERE layer = $layer AND index = $index",
            layer=layer,
            index=index,
        )
        return found.iloc[0]

    def decoded(self, address: str) -> pd.DataFrame:
        """Return the tokens that stand out of a neuron's weights: matrix, sign, rank, token, ..."""
        self._need("decoded", "weights were not decoded")
        layer, index = self._place(address)
        return self.query(
            "SELECT matrix, sign, rank, token, text, z FROM decoded "
            "WHERE layer = $layer AND index = $index ORDER BY matrix, sign DESC, rank",
            layer=layer,
            index=index,
        )

    def examples(self, address: str) -> pd.DataFrame:
        """Return where a neuron's values were: group, rank, value, document, position, before, ...

        The text around each is split in what is before, the token itself, and what is after. Of
        a token that is a part of a character, the whole character stands for the token.
        """
        self._need("examples", "no corpus was read")
        layer, index = self._place(address)
        return self.query(
            """
            WITH found AS (
                SELECT "group", rank, value, place, document, position, "window", text
                FROM examples JOIN tokens USING (place)
                WHERE layer = $layer AND index = $index
            ),
            here AS (
                SELECT found.*, max(near.place) AS first, arg_max(near.text, near.place) AS whole
                FROM found LEFT JOIN tokens AS near ON near."window" = found."window"
                    AND near.place BETWEEN found.place - $longest AND found.place
                    AND near.text <> ''
                GROUP BY ALL
            )
            SELECT "group", rank, value, here.place, here.document, here.position,
                coalesce(here.whole, here.text) AS token,
                coalesce(string_agg(near.text, '' ORDER BY near.place)
                    FILTER (near.place < coalesce(here.first, here.place)), '') AS before,
                coalesce(string_agg(near.text, '' ORDER BY near.place)
                    FILTER (near.place > here.place), '') AS after
            FROM here JOIN tokens AS near ON near."window" = here."window"
                AND near.place BETWEEN here.place - $around AND here.place + $around
            GROUP BY ALL ORDER BY "group", rank
            """,
            layer=layer,
            index=index,
            around=CONTEXT,
            longest=tables.LONGEST,
        )

    def histogram(self, address: str) -> pd.DataFrame:
        """Return a neuron's histogram: the middles of its bins (raw units) and their counts."""
        self._need("sketches", "no corpus was read")
        layer, index = self._place(address)
        return self.query(
            "SELECT unnest(bins) AS value, unnest(counts) AS count FROM sketches "
            "WHERE layer = $layer AND index = $index",
            layer=layer,
            index=index,
        )

    def fires_like(self, address: str, count: int = 10) -> list[Near]:
        """Return the neurons whose values on the corpus go most nearly with a neuron's, or against.

        By the correlation over the sampled tokens; see :mod:`patchclamp.methods.neighbours`.
        """
        self._need("examples", "no corpus was read")
        layer, index = self._place(address)
        known = self.neurons
        unit = int(((known["layer"] == layer) & (known["index"] == index)).to_numpy().argmax())
        layers, indices = known["layer"].tolist(), known["index"].tolist()
        return fires_like(self._sample, layers, indices, unit, count)

    @cached_property
    def _sample(self) -> Tensor:
        return tables.read_sample(self.folder)

    def find(self, token: str, *, matrix: Matrix = "down", count: int = 50) -> pd.DataFrame:
        """Return the neurons out of whose weights a token stands, the farthest first.

        Args:
            token: text that is looked for in the decoded tokens, whatever its case and spaces.
            matrix: which matrix.
            count: how many neurons at most.
        """
        self._need("decoded", "weights were not decoded")
        return self.query(
            "SELECT neurons.address, text, sign, rank, z, neurons.* EXCLUDE (address) "
            "FROM decoded JOIN neurons USING (layer, index) "
            "WHERE matrix = $matrix AND lower(trim(text)) = lower(trim($token)) "
            # "dog" and " dog" may both stand out of one neuron: it is found once.
            "QUALIFY row_number() OVER (PARTITION BY layer, index ORDER BY abs(z) DESC, rank) = 1 "
            "ORDER BY abs(z) DESC, layer, index LIMIT $count",
            matrix=matrix,
            token=token,
            count=count,
        )

    def _need(self, table: str, why: str) -> None:
        if table not in self.tables:
            msg = f"This atlas has no {table}: {why} when it was built."
            raise AtlasError(msg)

    def _place(self, address: str) -> tuple[int, int]:
        site = Site.parse(address)
        if site.kind != "neuron" or site.layer is None or site.index is None:
            msg = (
                f"{address} is no neuron; an atlas has neurons, such as {self.neurons.address[0]}."
            )
            raise AddressError(msg)
        known = self.neurons
        if not ((known["layer"] == site.layer) & (known["index"] == site.index)).any():
            msg = (
                f"There is no neuron {site.address} in this atlas: it has {known.address.iloc[0]} "
                f"to {known.address.iloc[-1]}."
            )
            raise AddressError(msg)
        return site.layer, site.index
