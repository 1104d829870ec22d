"""Predictions and what each protocol says of them as a table, for pandas, R or DuckDB."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from workflow_scripts.base import files
from workflow_scripts.evaluation.predictions import Prediction
from workflow_scripts.evaluation.verdicts import Verdict

Scored = dict[tuple[str, str], tuple[float, int]]  # score and cluster, by set and id of the question

_TYPES = {str: "string", str | None: "string", bool: "bool", int: "int64", float: "float64"}


def write(
    path: Path, rows: Sequence[Prediction], verdicts: Mapping[str, Sequence[Verdict]], clusters: Sequence[int]
) -> None:
    """Write a Parquet file of `rows` [n] with the `cluster` of each, and its score and note by protocol.

    A score is null where the note says why: "excluded", "raised" or "unscored".
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields: list[tuple[str, str]] = [
        (name, _TYPES[kind]) for name, kind in get_type_hints(Prediction).items()
    ]
    columns: dict[str, Sequence[Any]] = {name: [dict(row)[name] for row in rows] for name, _ in fields}
    columns["cluster"] = clusters
    fields.append(("cluster", "int64"))
    for protocol, found in verdicts.items():
        columns[protocol] = [verdict.score for verdict in found]
        columns[f"{protocol}_note"] = [verdict.note for verdict in found]
        fields += [(protocol, "float64"), (f"{protocol}_note", "string")]
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in fields])
    with files.replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema), temporary, compression="zstd")


def shares(path: Path, line: str, protocol: str) -> dict[str, dict[str, dict[str, float]]]:
    """The mean score of a line of the table in `path`, by set, language, and "closed", "open" or "all"."""
    import pyarrow.parquet as pq

    columns = ["source", "language", "answer_type", protocol]
    found = pq.read_table(path, columns=columns, filters=[("stage", "==", line)])
    result: dict[str, dict[str, dict[str, float]]] = {}
    for keys in (["source", "language", "answer_type"], ["source", "language"]):
        for row in found.group_by(keys).aggregate([(protocol, "mean")]).to_pylist():
            if (share := row[f"{protocol}_mean"]) is not None:
                of_language = result.setdefault(row["source"], {}).setdefault(row["language"], {})
                of_language[row.get("answer_type", "all")] = share
    return result


def read(path: Path, line: str, protocol: str) -> Scored:
    """The scores of a line of the table in `path` by a protocol that scores every row."""
    import pyarrow.parquet as pq

    columns = ["source", "id", "cluster", protocol]
    found = pq.read_table(path, columns=columns, filters=[("stage", "==", line)]).to_pydict()
    questions = zip(found["source"], found["id"], strict=True)
    return dict(zip(questions, zip(found[protocol], found["cluster"], strict=True), strict=True))
