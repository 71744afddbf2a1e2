"""What ``fedcof predict`` does: find the images, classify them, and show the classes or write them to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fedcof.data.image_paths import find_images, reasons
from fedcof.errors import UserError
from simulations.narrowing import NOTHING, Narrowing
from simulations.prediction import BATCH_SIZE, Prediction, best_run, predict
from simulations.prediction_file import check_output, prediction_file
from simulations.terminal import console, progress_bars, say


def show_predictions(
    folder: Path, places: list[Path], output: Path | None = None, known: Narrowing = NOTHING
) -> None:
    """Print the likeliest classes of each image, or write them to a file.

    An image that cannot be read is said, and the others are classified.

    Parameters
    ----------
    folder : Path
        Output folder of a run.
    places : list of Path
        Image files, folders of them, and patterns; see :func:`fedcof.data.image_paths.find_images`.
    output : Path, optional
        The file, ``.csv`` or ``.json``; nothing but a summary is then printed.
    known : Narrowing
        What is known of the images' classes.

    Raises
    ------
    UserError
        If there is no run or no image, the file cannot be written, none of the images can be read, or, once all
        others are classified, one that was asked for by name.
    """
    run = best_run(folder)
    if output:
        check_output(output)
    found = find_images(places)
    worth = "its accuracy unknown" if run.accuracy is None else f"{run.accuracy:.2%} accurate on its test split"
    say(f"With {run.method}, seed {run.seed}, {worth}:")
    if found.left_out:
        say(f"Left out: {reasons(found.left_out)}", "yellow")
    problems, problems_of_named = [], []
    with prediction_file(output) if output else nullcontext(_show) as write, _bar(len(found.images)) as advance:
        for prediction in predict(folder, run, found.images, known):
            if prediction.problem:
                problems.append(prediction.problem)
                if prediction.image in found.named:
                    problems_of_named.append(prediction.problem)
            # What is wrong with a single image is said in the error.
            if output or len(found.images) > 1 or not prediction.problem:
                write(prediction)
            advance()
    classified = len(found.images) - len(problems)
    if output:
        unread = f", {len(problems)} cannot be read (the file says why)" if problems else ""
        say(f"{classified} of {len(found.images)} images are classified{unread}. Written to {output}")
    if problems_of_named:
        raise _error_of(problems_of_named)
    if not classified:
        raise _error_of(problems)


def _show(prediction: Prediction) -> None:
    if prediction.problem:
        say(prediction.problem, "yellow")
    else:
        classes = ", ".join(f"{name} ({score:.3f})" for name, score in prediction.classes)
        say(f"{prediction.image}: {classes}")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """Show how many images are through, where somebody watches and there is something to watch."""
    if not console.is_terminal or total <= BATCH_SIZE:
        yield lambda: None
        return
    with progress_bars() as bars:
        task = bars.add_task("Images", total=total)
        yield lambda: bars.advance(task)


def _error_of(problems: list[str]) -> UserError:
    first = problems[0]
    return UserError(first if len(problems) == 1 else f"{len(problems)} images cannot be read; the first: {first}")
