"""The demo web page: pictures sent by browsers are restored one at a time, from one queue."""
