"""How the ServerApp tells the command that has started it what has become of the runs; without imports."""

from __future__ import annotations

# A file beside the results, with the sentence for the user where a run could not be made.
FAILURE_FILE_NAME = "failure.txt"
# Lines of the log: number of the run, runs, number of the reply, replies; and the last, once all results are there.
PROGRESS = "Run %d of %d, reply %d of %d"
FINISHED = "Results are in"
# A file beside them, from which a run that was interrupted goes on.
CHECKPOINT_FILE_NAME = "checkpoint.safetensors"
# And one that says what a federation that changes over steps went through.
SCHEDULE_FILE_NAME = "schedule.toml"
