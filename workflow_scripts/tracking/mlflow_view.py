"""The view of the runs that `make mlflow` opens: a row for each run of the chain, best first, and what tells if to trust it."""

import json

VIEW = "medvqa"  # as ?viewStateShareKey= of the address of the runs
TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = {
    "tags": ("final_stage",),
    "metrics": (
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "accuracy_floor",
        "accuracy_blank",
        "accuracy_leak_free",
        "closed_accuracy",
        "open_accuracy",
        "hours",
        "peak_memory_gb",
    ),
    "params": ("configuration",),
}


def state() -> str:
    """The view as MLflow 3.17's pages keep one that somebody shares."""
    return json.dumps(
        {
            "searchFilter": "tags.level = 'run'",
            "orderByKey": "metrics.`accuracy`",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": [f"{kind}.`{name}`" for kind, names in COLUMNS.items() for name in names],
            "runsPinned": [],
            "runsHidden": [],
            "runsExpanded": {},
            "runListHidden": False,
        }
    )
