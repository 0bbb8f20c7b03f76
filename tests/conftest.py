"""What all tests need."""

import signal

# A shell that starts a job in the background makes it ignore Ctrl-C, and what it starts as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
