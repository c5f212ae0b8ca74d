"""The tasks: each module has a `Config`, and `run(config)` trains, evaluates against trivial rivals and reports."""
