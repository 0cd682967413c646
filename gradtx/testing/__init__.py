"""Check transformations, of any author, against the properties that training needs.

`check_transformation(tx)` runs all of them; `conformance` makes pytest tests of them;
`python -m gradtx.testing.compare` measures gradtx beside optax.
"""

from gradtx.testing._catalogue import (
    catalogue as catalogue,
)
from gradtx.testing._property import (
    PROPERTIES as PROPERTIES,
    Property as Property,
    Unavailable as Unavailable,
    Violation as Violation,
)
from gradtx.testing._pytest import (
    conformance as conformance,
)
from gradtx.testing._report import (
    Report as Report,
    Result as Result,
    check_transformation as check_transformation,
)
from gradtx.testing._subject import (
    Library as Library,
    Subject as Subject,
    objective as objective,
)
