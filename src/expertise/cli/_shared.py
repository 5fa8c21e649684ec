"""What the commands share: exit codes."""

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
