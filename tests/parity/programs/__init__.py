"""Programs as people write them for optax; `test_programs` swaps the import."""
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false
