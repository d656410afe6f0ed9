"""Lines in order are found without reading those before."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.results.lines import read_lines


def key(line: bytes) -> int:
    return int(json.loads(line)["row"])


@given(
    rows=st.sets(st.integers(0, 60)),
    widths=st.lists(st.integers(0, 40), min_size=1),
    start=st.integers(0, 70),
    limit=st.integers(0, 20),
    most=st.integers(1, 900),
)
def test_it_is_what_reading_them_all_gives(tmp_path_factory, rows, widths, start, limit, most):
    lines = [
        json.dumps({"row": row, "text": "x" * widths[i % len(widths)]}).encode() + b"\n"
        for i, row in enumerate(sorted(rows))
    ]
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    path.write_bytes(b"".join(lines))
    wanted = [line for line in lines if key(line) >= start][:limit]
    while len(b"".join(wanted[:-1])) >= most:
        wanted.pop()
    assert read_lines(path, key, start, limit, most) == wanted


def test_few_lines_are_read_to_find_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"".join(b'{"row":%d}\n' % row for row in range(50_000)))
    asked = []

    def counted(line: bytes) -> int:
        asked.append(line)
        return key(line)

    assert read_lines(path, counted, 31_234, 2, 1_000) == [b'{"row":31234}\n', b'{"row":31235}\n']
    assert len(asked) < 40
