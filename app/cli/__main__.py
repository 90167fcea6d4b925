"""`python -m app.cli` is `./state_service`."""

from app.cli import main

main()
