"""What everything else stands on: events between threads, processes and the kernel."""
