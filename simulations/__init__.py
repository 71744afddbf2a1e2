"""What is run with the two ends: the command line, the Flower runtime, results and reports."""
