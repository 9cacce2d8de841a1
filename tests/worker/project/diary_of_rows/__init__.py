"""Listens to the rows of the task table: then the worker changes them through the ORM alone."""
