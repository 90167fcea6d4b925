"""`python -m stateservice` is `stateservice`."""

from stateservice import main

main()
