"""CSV in, CSV out: `prepare` checks and writes nothing, `run` scores, `score_csv` does both.

Who only reads a CSV has `survey_input` for the checks, and `open_source` for the records.

Every row in comes out exactly once, with a similarity or an error, its cells byte for byte as they
were. Importing this costs neither torch nor a model.
"""

from pairscore.csv_file.columns import Column
from pairscore.csv_file.ordered import ScorePairs
from pairscore.csv_file.plan import Plan, default_output, prepare
from pairscore.csv_file.run import Progress, Summary, run
from pairscore.csv_file.score import score_csv
from pairscore.csv_file.source import open_source
from pairscore.csv_file.survey import Survey, TooManyRows, check_input, survey_input

__all__ = [
    "Column",
    "Plan",
    "Progress",
    "ScorePairs",
    "Summary",
    "Survey",
    "TooManyRows",
    "check_input",
    "default_output",
    "open_source",
    "prepare",
    "run",
    "score_csv",
    "survey_input",
]
