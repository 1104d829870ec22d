"""The table of scores: the rows of predictions.jsonl, with what each protocol says of them."""

import pyarrow.parquet as pq

from benchmarks import pages
from workflow_scripts.datasets import terminology
from workflow_scripts.evaluation import analysis, protocols, scores


def test_the_table_is_the_rows_and_their_verdicts(tmp_path):
    lines = pages.rows(40, 8, 10)
    rows = [row for found in lines.values() for row in found]
    rows[0]["answer"] = None
    rows[1]["question"] = "肺 \u2028 </script>"
    said = analysis.verdicts(lines, protocols.MODULES, terminology.load())
    verdicts = {name: [v for line in lines for v in said[line][name]] for name in protocols.PROTOCOLS}
    scores.write(tmp_path / "x.parquet", rows, verdicts, [place // 5 for place in range(len(rows))])
    found = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    for name, column in verdicts.items():
        assert [row[name] for row in found] == [verdict.score for verdict in column]
        assert [row[f"{name}_note"] for row in found] == [verdict.note for verdict in column]
    assert {row["lmms_slake_note"] for row in found} >= {"", "excluded"}
    sft = scores.read(tmp_path / "x.parquet", "sft", "strict")
    assert len(sft) == 40
    assert sft["pathvqa", "made-0"] == (verdicts["strict"][80].score, 16) or rows[80]["source"] == "slake"
