"""Events: the epoll loop, eventfds and timers."""
