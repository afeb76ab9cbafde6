"""Limits in operations and bytes a second: leaky buckets, and the requests that wait for them."""
