"""What a fit may warn of."""


class DegenerateExpertWarning(UserWarning):
    """An expert has no rows, or a variance at its floor: its likelihood is no measure of fit."""


class FewCasesWarning(UserWarning):
    """Experts have few rows for their parameters: one model may do better."""


class ObjectiveFellWarning(UserWarning):
    """A part that does not maximise its likelihood (a forest) made the objective fall; the best was kept."""
