"""OpenLineage events of every task, and the tree they make."""
