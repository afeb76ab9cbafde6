"""``python -m tests.testing.conformance.mutants [NAME...]``: try every mutant, print the list and the score.

Exit status 0 when each is caught by a rule with the right id.
"""

import sys

from tests.testing.conformance.mutants.score import main

sys.exit(main(sys.argv[1:]))
