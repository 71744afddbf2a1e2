"""Which files a folder of results may hold, and which of them are made with what clients have sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcof.data.intake import LEFT_OUT_FILE_NAME
from fedcof.run.confusion import CONFUSION_FILE_NAME
from fedcof.run.failures import FILE_NAME as FAILURES_FILE_NAME
from fedcof.run.results import BACKBONE_FILE_NAME, FEDERATION_FILE_NAME, FILE_NAME, HEAD_FILE_NAME
from server.name_book import FILE_NAME as NAMES_FILE_NAME
from server.reporting import CHECKPOINT_FILE_NAME, FAILURE_FILE_NAME, SCHEDULE_FILE_NAME
from server.run import LEDGER_FILE_NAME
from server.run_files import BEST_FOLDER_NAME
from server.upload_store import FOLDER_NAME as UPLOADS

CSV_FILE_NAME, PAGE_FILE_NAME, FIGURES = "comparison.csv", "report.html", "*.png"
EXPORTS = ("timm", "model.onnx")
CONFIG_FILE_NAME, LOG_FILE_NAME = "run-config.toml", "flower.log"
TRACKED = "events.out.tfevents.*"
DEALT = ("nodes", "test", "classes.txt")

# Classifiers and networks, and what they or the clients' own counts come to.
_OF_A_RUN = (
    HEAD_FILE_NAME,
    BACKBONE_FILE_NAME,
    f"{BEST_FOLDER_NAME}/{HEAD_FILE_NAME}",
    f"{BEST_FOLDER_NAME}/{BACKBONE_FILE_NAME}",
    CHECKPOINT_FILE_NAME,
    CONFUSION_FILE_NAME,
    FEDERATION_FILE_NAME,
    LEDGER_FILE_NAME,
    TRACKED,
)
_OF_A_FOLDER = (CSV_FILE_NAME, PAGE_FILE_NAME, *EXPORTS)
# Made with nobody's samples; but a log, a reason or a list of names may name whoever is forgotten.
_OTHERS = {CONFIG_FILE_NAME, LEFT_OUT_FILE_NAME, FILE_NAME, NAMES_FILE_NAME, *DEALT, UPLOADS}
MAY_NAME = (LOG_FILE_NAME, FAILURE_FILE_NAME, FAILURES_FILE_NAME, SCHEDULE_FILE_NAME)
_CSV_OF_PREDICTIONS, _JSON_OF_PREDICTIONS = b"image,class_1,score_1", b'[\n{"image": '


@dataclass(frozen=True)
class Contents:
    """What a folder holds, apart from uploads and results.json.

    Attributes
    ----------
    made : list of Path
        What was made with uploads or of the results, each file or exported folder once.
    may_name : list of Path
        What is not made of anybody's samples, but may name clients.
    unknown : list of Path
        What no command writes.
    """

    made: list[Path]
    may_name: list[Path]
    unknown: list[Path]


def contents(folder: Path, runs: set[Path]) -> Contents:
    """Look through a folder of results.

    Parameters
    ----------
    folder : Path
        Of one run, or of a comparison.
    runs : set of Path
        Folders of the runs in it.

    Returns
    -------
    Contents
        By what is to become of it.
    """
    made, may_name = [], []
    for place in sorted({folder, *runs}):
        patterns = [*_OF_A_RUN, *_OF_A_FOLDER]
        if (place / PAGE_FILE_NAME).exists():
            patterns.append(FIGURES)
        made += [path for pattern in patterns for path in sorted(place.glob(pattern))]
        made += [path for path in sorted(place.glob("*")) if _is_predictions(path)]
        may_name += [place / name for name in MAY_NAME if (place / name).exists()]
    known = {*made, *may_name, *runs, *(run for place in runs for run in place.parents)}
    known |= {path.parent for path in made if path.parent not in (folder, *runs)}
    unknown = [
        path
        for place in sorted({folder, *runs})
        for path in sorted(place.glob("*"))
        if path not in known and path.name not in _OTHERS and not path.name.startswith(".")
    ]
    return Contents(list(dict.fromkeys(made)), may_name, unknown)


def _is_predictions(path: Path) -> bool:
    if path.suffix.lower() not in (".csv", ".json") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_CSV_OF_PREDICTIONS)).startswith((_CSV_OF_PREDICTIONS, _JSON_OF_PREDICTIONS))
