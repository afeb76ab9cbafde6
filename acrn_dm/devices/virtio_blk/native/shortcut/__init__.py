"""What is in memory already, read and written on the loop's own thread: no engine, no completion to wait for."""
