"""A database backend of the project's own, whose password is a token that a file has for a while."""
