"""`python -m app.cli` is `./state_service`."""

from app.cli.root import main

main()
