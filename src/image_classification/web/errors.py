"""A request that is not answered with a prediction."""

from image_classification.core.errors import UserError


class HTTPError(UserError):
    """The client's fault, or a bad moment: one line, and the HTTP status that says which.

    Attributes:
        status: of the answer, 400 to 599.
        headers: that it has besides the usual ones.
    """

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers
