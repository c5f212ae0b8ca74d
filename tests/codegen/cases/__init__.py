"""Cases of the conformance suite: a spec and the same matrix built from its factors by loops, `np.kron` or einsum.

Nothing here is shared with codegen. A new family adds a line to `FAMILIES` and inherits every test of the suite.
"""

from tests.codegen.cases.families import FAMILIES
from tests.codegen.cases.modified import MODIFIED
from tests.codegen.cases.parts import TOLERANCES, Array, Case, Factors, factors_of, nested, reversed_bits, strided
from tests.codegen.cases.placed import PLACED
from tests.codegen.cases.tied import TIED
from tests.codegen.cases.written import EINSUM

__all__ = ["CASES", "TOLERANCES", "Array", "Case", "Factors", "factors_of", "nested", "reversed_bits", "strided"]

CASES = FAMILIES | EINSUM | MODIFIED | PLACED | TIED
