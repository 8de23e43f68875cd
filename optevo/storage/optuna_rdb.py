"""What optevo uses of the private members of Optuna's relational storage, beside `optevo.optuna_private`."""

from __future__ import annotations

from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session as transaction

__all__ = [
    "END",
    "NOT_FOUND",
    "START",
    "Param",
    "Report",
    "Study",
    "SystemAttr",
    "Trial",
    "UserAttr",
    "Value",
    "transaction",
]

Study, Trial = models.StudyModel, models.TrialModel
Param, Value = models.TrialParamModel, models.TrialValueModel
UserAttr, SystemAttr = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
Report = models.TrialIntermediateValueModel
START, END = Trial._datetime_start_utc, Trial._datetime_complete_utc
NOT_FOUND = models.NOT_FOUND_MSG
