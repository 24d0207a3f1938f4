"""Who is here: presence for clusters of Python servers, without a database."""
